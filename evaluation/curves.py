"""From scores per window and horizon step to curves with intervals, and the lead over a baseline.

All intervals are bootstrapped over windows. `psnr` is the decibels of the mean error over windows,
`psnr_frame` the mean of each frame's decibels (`metrics` says why there are two).
"""

from dataclasses import dataclass

import numpy as np
import torch

from reverie.evaluation.metrics import FrameScores, decibels
from reverie.evaluation.rollouts import Rollouts
from reverie.evaluation.statistics import Estimate, bootstrap

METRICS = ("psnr", "psnr_frame", "ssim", "lpips")
Curve = list[Estimate]
"""One estimate per horizon step, the first for the first predicted frame."""


@dataclass(frozen=True)
class Advantage:
    """PSNR of the model minus that of a baseline, in decibels: per horizon step and on average."""

    steps: Curve
    average: Estimate
    average_frame: Estimate
    """The same average for `psnr_frame`."""

    def beaten_from(self) -> int | None:
        """The horizon step (from 1) from which on the model is always ahead; None if it is behind at the last."""
        behind = [step for step, estimate in enumerate(self.steps, start=1) if not estimate.value > 0]
        first = max(behind, default=0) + 1
        return first if first <= len(self.steps) else None


def curves(scores: FrameScores, seed: int = 0) -> dict[str, Curve]:
    """Metric -> curve over horizon steps; metrics that were not measured are left out."""
    rows = {"psnr": scores.mse, "psnr_frame": scores.psnr, "ssim": scores.ssim, "lpips": scores.lpips}
    found = {name: x.numpy() for name, x in rows.items() if x is not None and not x.isnan().any()}
    return {name: bootstrap(x, _pooled if name == "psnr" else _mean, seed) for name, x in found.items()}


def advantage(rollouts: Rollouts, baseline: str, seed: int = 0) -> Advantage:
    """How far the model is ahead of `baseline` on the same windows (paired)."""
    ours, theirs = rollouts.scores["model"], rollouts.scores[baseline]
    errors = np.stack([ours.mse.numpy(), theirs.mse.numpy()], axis=1)  # (M, 2, horizon)
    frames = (ours.psnr - theirs.psnr).numpy()
    return Advantage(
        steps=bootstrap(errors, _difference, seed),
        average=bootstrap(errors, lambda x: np.atleast_1d(_difference(x).mean()), seed)[0],
        average_frame=bootstrap(frames, lambda x: np.atleast_1d(x.mean()), seed)[0],
    )


def _mean(rows: np.ndarray) -> np.ndarray:
    return rows.mean(0)


def _pooled(mse: np.ndarray) -> np.ndarray:
    return decibels(torch.from_numpy(mse).mean(0)).numpy()


def _difference(errors: np.ndarray) -> np.ndarray:
    """(M, 2, horizon) errors of model and baseline -> (horizon,) decibels the model is ahead."""
    model, baseline = _pooled(errors)
    return model - baseline
