"""The row that runs a preset from recordings to an agent: few steps of every stage, each with what its log says."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.gpu.data import game_shards
from reverie.pipelines.presets import presets_of
from reverie.pipelines.stages.clone import CloneStage, train_clone
from reverie.pipelines.stages.dynamics import DynamicsStage, train_dynamics
from reverie.pipelines.stages.encode import EncodeConfig, encode
from reverie.pipelines.stages.imagine import ImagineStage, train_imagine
from reverie.pipelines.stages.tokenizer import TokenizerStage, train_tokenizer
from reverie.pipelines.training.metrics import read_metrics
from reverie.pipelines.training.pace import PREFIX

if TYPE_CHECKING:
    from benchmarks.gpu.rows import Work

ROWS, STEPS = 8, 20
"""Windows of a batch, and steps of a stage."""


def end_to_end(work: "Work") -> dict[str, Any]:
    """Tokenizer, encode, dynamics, clone and imagine of `base`."""
    video = game_shards(work.folder, work.steps(400), (64, 64))
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=work.folder) as folder:
        root = Path(folder)

        def stage(name: str, kind: Callable[..., Any], run: Callable[[Any], None], **given: Any) -> Path:
            begun = time.perf_counter()
            run(kind(out=root / name, **given))
            found[name] = {"seconds": time.perf_counter() - begun, **_pace(root / name)}
            return root / name

        tokenizer = stage(
            "tokenizer", TokenizerStage, train_tokenizer, data=video, **_settings(work, "tokenizer")
        )
        latents = stage("encode", EncodeConfig, encode, data=video, tokenizer=tokenizer)
        dynamics = stage(
            "dynamics", DynamicsStage, train_dynamics, data=latents, **_settings(work, "dynamics")
        )
        agent = stage(
            "clone", CloneStage, train_clone, data=latents, dynamics=dynamics, **_settings(work, "clone")
        )
        stage("imagine", ImagineStage, train_imagine, data=latents, agent=agent, **_settings(work, "imagine"))
    return found


def _settings(work: "Work", stage: str) -> dict[str, Any]:
    """The preset's, with few steps, windows as short as the game's episodes, and no LPIPS."""
    settings = dict(presets_of(stage)[work.preset("base")])
    steps, length = work.steps(STEPS * 5) // 5 or 2, 8
    settings["batches"] = replace(
        settings["batches"], batch_size=ROWS, length=length, long_probability=0.0, num_workers=0
    )
    settings["training"] = replace(
        settings["training"], steps=steps, log_every=max(1, steps // 2), evaluate_every=0, save_every=steps
    )
    if stage == "tokenizer":
        objective = settings.get("objective", TokenizerStage(data=Path("."), out=Path(".")).objective)
        settings["objective"] = replace(objective, lpips_weight=0.0)
    return settings


def _pace(run: Path) -> dict[str, float]:
    """Of the last logged row."""
    rows = read_metrics(run / "metrics.jsonl")
    return {name: x for row in rows for name, x in row.items() if name.startswith(PREFIX)}
