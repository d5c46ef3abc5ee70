"""Rows about training steps: MFU at a preset's shapes by the project's own loop, and memory beside its plan."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.gpu.data import latent_shards, video_shards
from reverie.pipelines.memory_counts import activations, state_of
from reverie.pipelines.memory_stages import stages
from reverie.pipelines.presets import PRESETS, presets_of
from reverie.pipelines.profile import DynamicsProfile, ProfileConfig, TokenizerProfile, measure
from reverie.pipelines.stopwatch import figures
from reverie.pipelines.training.loop import FabricConfig

if TYPE_CHECKING:
    from benchmarks.gpu.rows import Work

ATTENTION: dict[str, dict[str, Any]] = {
    "sdpa without a soft cap": {"backend": "sdpa", "softcap": None},
    "flash": {"backend": "flash"},
    "flex": {"backend": "flex"},
    "flash without a soft cap": {"backend": "flash", "softcap": None},
    "math": {"backend": "math"},
}
"""Ways to compute attention, by what to change in a model's settings."""


def step(work: "Work", stage: str, preset: str, **changes: Any) -> dict[str, Any]:
    """What `reverie profile STAGE` says, at the largest batch that fits this one device."""
    problems = {}
    for rows in batch_sizes(work):
        config = _config(work, stage, preset, rows)
        config = replace(config, model=replace(config.model, **changes))
        try:
            return {"rows": rows, **asdict(figures(measure(config))), "smaller_than": problems}
        except torch.OutOfMemoryError as error:
            problems[rows] = str(error).partition(". ")[0]
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    raise MemoryError(f"one row does not fit: {problems}")


def batch_sizes(work: "Work") -> Iterator[int]:
    """Rows of a batch to try, largest first."""
    yield from (2,) if work.small else (16, 8, 4, 2, 1)


def memory(work: "Work") -> dict[str, Any]:
    """Most memory that steps of `base` took, beside what `reverie info --devices 1` plans for as many rows."""
    found = {}
    for stage in ("tokenizer", "dynamics"):
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        result = step(work, stage, "base")
        planned = planned_memory(work.preset("base"), stage, result["rows"])
        found[stage] = {
            "rows": result["rows"],
            "peak_memory": result["peak_memory"],
            "planned_memory": planned,
            "over_plan": result["peak_memory"] / planned,
        }
    return found


def planned_memory(preset: str, name: str, rows: int) -> float:
    """Bytes of a step on `rows` of the preset's short windows, by its memory plan."""
    stage = next(stage for stage in stages(PRESETS[preset]) if stage.name == name)
    state = state_of(stage)
    taken = activations(stage, stage.batches.length, stage.checkpointing, stage.softcap)
    return state.weights + state.gradients + state.optimizer + taken.fixed + rows * taken.peak


def _config(work: "Work", stage: str, preset: str, rows: int) -> Any:
    """The preset's own settings on one device."""
    settings = dict(presets_of(f"profile {stage}")[work.preset(preset)])
    length = settings["batches"].length
    settings |= {
        "batches": replace(settings["batches"], batch_size=rows, long_probability=0.0),
        "fabric": FabricConfig(precision="auto"),
        "profile": ProfileConfig(steps=work.steps(20), warmup=work.steps(5), trace=_trace(work)),
    }
    if stage == "tokenizer":
        objective = settings.pop("objective", TokenizerProfile(data=Path(".")).objective)
        data = video_shards(work.folder, settings["model"].frame_size, 2 * rows, length)
        return TokenizerProfile(data=data, objective=replace(objective, lpips_weight=0.0), **settings)
    latents = settings["model"].latent_shape
    return DynamicsProfile(data=latent_shards(work.folder, latents, 2 * rows, length), **settings)


def _trace(work: "Work") -> Path:
    return work.folder / "trace.json"
