"""The part of `evaluate` that says when not to believe Dreamer 4's rollouts, and what becomes of long ones."""

from typing import Any

import torch
from rich.console import Console

from reverie.dynamics.fast_frame import use_fast
from reverie.evaluation.charts import drift_chart, trust_chart
from reverie.evaluation.drift import drift
from reverie.evaluation.metrics import decibels
from reverie.evaluation.trust import MEANINGS, Calibration, Signals, expected_error, measure, worths
from reverie.evaluation.windows import Windows
from reverie.pipelines.runs.progress import meter
from reverie.pipelines.scoring.models import Scoring


def trust_figures(scoring: Scoring, windows: Windows, console: Console) -> dict[str, Any]:
    """Measures the signals, prints what they are worth, and returns what the report needs of them."""
    signals = _measure(scoring, windows)
    found = worths(signals, scoring.config.seed)
    shown = ", ".join(f"{name} {worth.all.text()}" for name, worth in found.items())
    console.print(f"trust: rank correlation of signals with the true error: {shown or 'too few windows'}")
    count, horizon = signals.error.shape
    figures = {
        "windows": count,
        "frames": count * horizon,
        "signals": {name: worth.to_json() for name, worth in found.items()},
        "meanings": MEANINGS,
    }
    if found:
        figures["calibration"] = Calibration.fit(signals.values, signals.error).to_json()
        pair = (decibels(torch.from_numpy(x)).numpy() for x in (expected_error(signals), signals.error))
        scoring.gallery.trust_chart = trust_chart(*pair)
    return {"trust": figures}


def drift_figures(scoring: Scoring, windows: Windows, console: Console) -> dict[str, Any]:
    """Rolls out for --drift frames, prints what became of them, and returns what the report needs."""
    config, models = scoring.config, scoring.models
    assert models.tokenizer is not None and models.dynamics is not None
    device = models.tokenizer.mask_token.device
    with meter("drift", config.drift) as shown:
        found = drift(
            models.tokenizer,
            models.dynamics,
            windows,
            context=config.context,
            length=config.drift,
            sampling_steps=config.sampling_steps,
            seed=config.seed,
            frames_per_pass=config.frames_per_pass,
            fast=use_fast(config.compile, device, config.drift),
            finished=shown.update,
        )
    console.print(f"drift: after {found.length} frames the world model {found.verdict}")
    if found.finite:
        scoring.gallery.drift_chart = drift_chart(found.frames, found.curves, found.held_out)
    return {"drift": found.to_json()}


def _measure(scoring: Scoring, windows: Windows) -> Signals:
    config, models = scoring.config, scoring.models
    assert models.tokenizer is not None and models.dynamics is not None
    device = models.tokenizer.mask_token.device
    frames = -(-config.clips // config.batch_size) * config.horizon * 4
    with meter("trust", len(windows)) as shown:
        return measure(
            models.tokenizer,
            models.dynamics,
            windows,
            context=config.context,
            sampling_steps=config.sampling_steps,
            seed=config.seed,
            batch_size=config.batch_size,
            frames_per_pass=config.frames_per_pass,
            fast=use_fast(config.compile, device, frames),
            finished=shown.update,
        )
