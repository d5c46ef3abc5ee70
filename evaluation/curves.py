"""From scores per window and horizon step to curves with intervals, and the lead over a baseline.

All intervals are bootstrapped over windows. `psnr` is the decibels of the mean error over windows,
`psnr_frame` the mean of each frame's decibels (`metrics` says why there are two).
"""

from dataclasses import dataclass

import numpy as np
import torch

from reverie.evaluation.changes import ChangeScores
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
        """The horizon step (from 1) from which on the model is always ahead; None if it is not so at the last.

        Ahead is an interval above 0; where one window gives none, a value above 0.
        """
        behind = [step for step, estimate in enumerate(self.steps, start=1) if not _lower_end(estimate) > 0]
        first = max(behind, default=0) + 1
        return first if first <= len(self.steps) else None


def _lower_end(estimate: Estimate) -> float:
    return estimate.value if np.isnan(estimate.low) else estimate.low


def curves(scores: FrameScores, seed: int = 0) -> dict[str, Curve]:
    """Metric -> curve over horizon steps; metrics that were not measured are left out."""
    rows = {"psnr": scores.mse, "psnr_frame": scores.psnr, "ssim": scores.ssim, "lpips": scores.lpips}
    found = {name: x.numpy() for name, x in rows.items() if x is not None and not x.isnan().any()}
    return {name: bootstrap(x, _pooled if name == "psnr" else _mean, seed) for name, x in found.items()}


def change_curves(scores: ChangeScores, seed: int = 0) -> dict[str, Curve]:
    """Metric -> curve over horizon steps; what nothing in the windows tells is left out.

    change          1 - error / motion over the pixels that change: 1 is perfect, 0 as good as the true frame before
    right           share of the frames in which every tile is right
    right_changing  the same among the frames in which a tile changes
    """
    found = {}
    if bool((scores.motion.sum(0) > 0).all()):
        found["change"] = bootstrap(_pair(scores.error, scores.motion), lambda x: 1 - _ratio(x), seed)
    if scores.right is not None and scores.changing is not None:
        found["right"] = bootstrap(scores.right.numpy(), _mean, seed)
        if bool((scores.changing.sum(0) > 0).all()):
            rows = _pair(scores.right * scores.changing, scores.changing)
            found["right_changing"] = bootstrap(rows, _ratio, seed)
    return found


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


def _pair(a: torch.Tensor, b: torch.Tensor) -> np.ndarray:
    return np.stack([a.numpy(), b.numpy()], axis=1)


def _ratio(rows: np.ndarray) -> np.ndarray:
    """(M, 2, horizon) parts and wholes of each window -> (horizon,) ratio of their sums."""
    part, whole = rows.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):  # a draw of windows in which nothing changes
        return part / whole


def _pooled(mse: np.ndarray) -> np.ndarray:
    return decibels(torch.from_numpy(mse).mean(0)).numpy()


def _difference(errors: np.ndarray) -> np.ndarray:
    """(M, 2, horizon) errors of model and baseline -> (horizon,) decibels the model is ahead."""
    model, baseline = _pooled(errors)
    return model - baseline
