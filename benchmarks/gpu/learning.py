"""Rows about learning: the demo's tokenizer in float32 and bfloat16, by AdamW and by Muon."""

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.gpu.data import game_shards
from reverie.pipelines.presets import presets_of
from reverie.pipelines.stages.tokenizer import TokenizerStage, train_tokenizer
from reverie.pipelines.training.loop import FabricConfig
from reverie.pipelines.training.metrics import read_metrics

if TYPE_CHECKING:
    from benchmarks.gpu.rows import Work


def curve(work: "Work", precision: Any, optimizer: Any) -> dict[str, Any]:
    """Held-out PSNR by step over half of the preset's steps, without LPIPS, whose weights are a download."""
    settings = dict(presets_of("tokenizer")["nano"])
    steps = work.steps(800)
    chosen = replace(settings["optimizer"], name=optimizer)
    if optimizer == "adamw":  # as in the larger presets; Muon's updates bear more
        chosen = replace(chosen, lr=1e-3)
    settings |= {
        "optimizer": chosen,
        "objective": replace(settings["objective"], lpips_weight=0.0),
        "training": replace(
            settings["training"], steps=steps, evaluate_every=max(1, steps // 8), save_every=steps
        ),
        "fabric": FabricConfig(precision=precision),
    }
    data = game_shards(work.folder, work.steps(400))
    with tempfile.TemporaryDirectory(dir=work.folder) as out:
        begun = time.perf_counter()
        train_tokenizer(TokenizerStage(data=data, out=Path(out) / "run", **settings))
        seconds = time.perf_counter() - begun
        rows = read_metrics(Path(out) / "run" / "metrics.jsonl")
    psnr = {int(row["step"]): row["heldout/psnr"] for row in rows if "heldout/psnr" in row}
    return {"seconds": seconds, "psnr": psnr, "last": psnr[max(psnr)]}
