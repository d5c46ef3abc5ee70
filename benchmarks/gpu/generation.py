"""Rows about generation: frames a second with a full context, and whether the thousandth frame costs what the first does."""

import os
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import torch

from reverie.nn.attention import Backend
from reverie.nn.precision import bfloat16, in_bfloat16
from reverie.pipelines.presets import presets_of
from reverie.pipelines.profile import ProfileConfig
from reverie.pipelines.profile_generate import GenerateProfile, measure_generate, open_video
from reverie.pipelines.stopwatch import figures
from reverie.pipelines.training.devices import pick_device
from reverie.pipelines.training.matmul import synchronize

if TYPE_CHECKING:
    from benchmarks.gpu.rows import Work


def frames(
    work: "Work", preset: str, videos: int, backend: Backend = "auto", softcap: float | None = 50.0
) -> dict[str, Any]:
    """Seconds of a generated and decoded frame, K = 4, and what `reverie profile generate` says of it."""
    config = _config(work, preset, videos, work.steps(200))
    model = replace(config.model, backend=backend, softcap=softcap)
    return asdict(figures(measure_generate(replace(config, model=model))))


def unrecorded(work: "Work", preset: str, videos: int) -> dict[str, Any]:
    """`frames` without CUDA graphs: what recording them brings."""
    before = os.environ.get("REVERIE_CUDA_GRAPHS")
    os.environ["REVERIE_CUDA_GRAPHS"] = "0"
    try:
        return frames(work, preset, videos)
    finally:
        if before is None:
            del os.environ["REVERIE_CUDA_GRAPHS"]
        else:
            os.environ["REVERIE_CUDA_GRAPHS"] = before


def flat(work: "Work") -> dict[str, Any]:
    """Frames a second in each tenth of 10,000 frames, one video; on from a full context."""
    config = _config(work, "paper", 1, 1)
    device, tenth = pick_device(config.device), work.steps(1000)
    rates = []
    with torch.no_grad(), bfloat16(device, in_bfloat16(config.precision, device)):
        frame = open_video(config, device).frame
        for _ in range(3):
            frame()
        for _ in range(10):
            synchronize(device)
            begun = time.perf_counter()
            for _ in range(tenth):
                frame()
            synchronize(device)
            rates.append(tenth / (time.perf_counter() - begun))
    return {"frames": 10 * tenth, "frames_per_second": rates, "last_over_first": rates[-1] / rates[0]}


def _config(work: "Work", preset: str, videos: int, steps: int) -> GenerateProfile:
    timing = ProfileConfig(steps=steps, warmup=work.steps(50), trace=work.folder / "trace.json")
    sizes = presets_of("profile generate")[work.preset(preset)]
    return GenerateProfile(**sizes, batch_size=videos, precision="auto", profile=timing)
