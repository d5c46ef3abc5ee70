"""Rollouts against held-out video: a world model continues real clips, knowing only the actions.

Every model (`evaluation.predictors`) sees `context` true frames and predicts `horizon` more with the true future actions.
Beside its prediction stand

copy       the last context frame, repeated
shuffled   the same model and the same noise with the future actions of another clip: what actions are worth
tokenizer  Dreamer 4: the true future encoded and decoded, about the best that a prediction of latents can look
posterior  Dreamer V1 to V3: the same, with states that have seen each true frame
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from einops import repeat
from torch import Tensor, nn

from reverie.evaluation.changes import ChangeScores, Tiles, change_scores
from reverie.evaluation.metrics import FrameScores, frame_scores
from reverie.evaluation.windows import Actions, Windows

METHODS = ("model", "shuffled", "copy", "tokenizer", "posterior")
SHOWN = 8
"""Frames of a long context that are kept to look at, its last ones."""


class Predictor(Protocol):
    """A world model that continues video."""

    def __call__(
        self, truth: Tensor, actions: Actions, others: Actions | None, context: int, seed: int
    ) -> dict[str, Tensor]:
        """Predictions for frames context, context + 1, ...

        Args:
          truth: (B, T, H, W, C) uint8; predictions may use the first `context` frames only.
          actions: the actions that led to `truth`, on any device.
          others: other actions, of which those after the context are used for "shuffled"; None for none.
          seed: decides what is drawn.

        Returns:
          "model", "shuffled" if there are others, and what the model makes of the true future: (B, T - context, H, W, C) uint8
          each, on the device of the model.
        """


@dataclass(frozen=True)
class Rollouts:
    """What was predicted for M windows.

    scores    method -> scores of shape (M, horizon); no "shuffled" for video without actions
    changes   method -> the same, of what changes
    truth     (V, given + horizon, H, W, C) uint8, the first few windows with the end of their context, to look at
    examples  method -> (V, horizon, H, W, C) uint8, the predictions for them
    """

    context: int
    scores: dict[str, FrameScores]
    changes: dict[str, ChangeScores]
    truth: Tensor
    examples: dict[str, Tensor]

    @property
    def horizon(self) -> int:
        """Frames predicted per window."""
        return self.scores["model"].mse.shape[1]

    @property
    def given(self) -> int:
        """Frames of the context that `truth` shows."""
        return self.truth.shape[1] - self.horizon


@torch.no_grad()
def roll_out(
    predictor: Predictor,
    windows: Windows,
    *,
    context: int,
    seed: int = 0,
    batch_size: int = 16,
    num_examples: int = 8,
    lpips: nn.Module | None = None,
    tiles: Tiles | None = None,
    finished: Callable[[int], object] = lambda _: None,
) -> Rollouts:
    """Predicts and scores every window; the first `context` frames of each are given.

    The actions are shuffled over all windows by a permutation that leaves none in place, if all future actions
    are known and there are at least two windows. `tiles` are those of a game on a grid. `finished` is told how
    many windows were just scored.
    """
    order = torch.from_numpy(derangement(len(windows), seed)) if _can_shuffle(windows, context) else None
    scored: list[dict[str, FrameScores]] = []
    changed: list[dict[str, ChangeScores]] = []
    shown: list[tuple[Tensor, dict[str, Tensor]]] = []
    for start in range(0, len(windows), batch_size):
        rows = torch.arange(start, min(start + batch_size, len(windows)))
        others = None if order is None else windows.actions.rows(order[rows])
        truth = windows.load_frames(rows.tolist())
        frames = predictor(truth, windows.actions.rows(rows), others, context, seed + start)
        horizon = truth.shape[1] - context
        truth = truth[:, max(0, context - SHOWN) :]
        last, future = (
            x.to(frames["model"].device) for x in truth.split([min(context, SHOWN), horizon], dim=1)
        )
        frames["copy"] = repeat(last[:, -1], "b h w c -> b t h w c", t=horizon)
        frames = {name: frames[name] for name in METHODS if name in frames}
        scored.append({name: frame_scores(x, future, lpips) for name, x in frames.items()})
        before = torch.cat([last[:, -1:], future[:, :-1]], dim=1)
        changed.append({name: change_scores(x, future, before, tiles) for name, x in frames.items()})
        kept = slice(0, max(0, num_examples - start))
        finished(len(rows))
        shown.append((truth[kept].clone(), {name: x[kept].cpu() for name, x in frames.items()}))
    return Rollouts(
        context=context,
        scores={name: _join_scores([part[name] for part in scored]) for name in scored[0]},
        changes={name: _join_changes([part[name] for part in changed]) for name in changed[0]},
        truth=torch.cat([truth for truth, _ in shown]),
        examples={name: torch.cat([frames[name] for _, frames in shown]) for name in shown[0][1]},
    )


def derangement(n: int, seed: int) -> np.ndarray:
    """A random cyclic permutation of n >= 2 (Sattolo's algorithm): no element stays where it is."""
    rng = np.random.default_rng(seed)
    order = np.arange(n)
    for i in range(n - 1, 0, -1):
        j = rng.integers(i)
        order[i], order[j] = order[j], order[i]
    return order


def _can_shuffle(windows: Windows, context: int) -> bool:
    # Only the future counts: what led to an episode's first frame is never known.
    return len(windows) > 1 and bool(windows.actions.known[:, context:].all())


def _join_scores(parts: list[FrameScores]) -> FrameScores:
    distances = [part.lpips for part in parts if part.lpips is not None]
    return FrameScores(
        mse=torch.cat([part.mse for part in parts]),
        psnr=torch.cat([part.psnr for part in parts]),
        ssim=torch.cat([part.ssim for part in parts]),
        lpips=torch.cat(distances) if distances else None,
    )


def _join_changes(parts: list[ChangeScores]) -> ChangeScores:
    def join(name: str) -> Tensor | None:
        found = [value for part in parts if (value := getattr(part, name)) is not None]
        return torch.cat(found) if found else None

    error, motion = join("error"), join("motion")
    assert error is not None and motion is not None
    return ChangeScores(error, motion, join("right"), join("changing"))
