"""When not to believe a rollout: signals that need no truth, and how well they foretell the true error on held-out video.

Every window is rolled out twice with other noise. Beside each generated frame stand

disagreement  squared difference of the two rollouts, in pixels: grows where they drift apart
round trip    squared change of the frame's latents when its picture is encoded again, after the true context
refinement    what one finer step of denoising changes (`dynamics.doubt`)
noises        what other noise changes in this frame alone (`dynamics.doubt`)

`expected` combines them: ridge regression of the logarithm of a frame's error on the logarithms of its signals. Its figures
are of windows that the regression has not seen.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import rearrange
from scipy.stats import rankdata
from torch import Tensor

from reverie.dynamics.doubt import doubt
from reverie.dynamics.frame import Step
from reverie.dynamics.generation import Continuation
from reverie.dynamics.model import Dynamics
from reverie.evaluation.predictors import decode_future
from reverie.evaluation.statistics import Estimate, bootstrap
from reverie.evaluation.windows import Actions, Windows
from reverie.nn.cache import FRAMES_PER_PASS
from reverie.tokenizer.model import Tokenizer
from reverie.tokenizer.streaming import encode_long

SIGNALS = ("disagreement", "round trip", "refinement", "noises")
EXPECTED = "expected"
MEANINGS = {
    "disagreement": "difference to a second rollout with other noise",
    "round trip": "change of the latents when the picture is encoded again",
    "refinement": "what one finer step of denoising changes",
    "noises": "what other noise changes in this frame alone",
    EXPECTED: "all of them, by a regression on other windows",
}
MIN_WINDOWS = 10
_FLOOR = 1e-7
_RIDGE = 1.0
_FOLDS = 5


@dataclass(frozen=True)
class Signals:
    """What was measured of M windows.

    error   (M, H) mean squared error of each generated frame, of values in [0, 1]
    values  signal -> (M, H)
    """

    error: np.ndarray
    values: dict[str, np.ndarray]


@dataclass(frozen=True)
class Worth:
    """How well a signal foretells the error: Spearman's correlation, 95 % intervals by the bootstrap over windows.

    all     over all frames of all windows
    within  between windows at the same step, averaged over the steps: what is left without the growth of both along a rollout
    """

    all: Estimate
    within: Estimate

    def to_json(self) -> dict[str, Any]:
        """Both estimates."""
        return {"all": self.all.to_json(), "within": self.within.to_json()}


@torch.no_grad()
def measure(
    tokenizer: Tokenizer,
    dynamics: Dynamics,
    windows: Windows,
    *,
    context: int,
    sampling_steps: int,
    seed: int = 0,
    batch_size: int = 16,
    frames_per_pass: int = FRAMES_PER_PASS,
    fast: bool = False,
    finished: Callable[[int], object] = lambda _: None,
) -> Signals:
    """Rolls out every window twice and measures error and signals; of few windows at a time."""
    parts = []
    for start in range(0, len(windows), batch_size):
        rows = torch.arange(start, min(start + batch_size, len(windows)))
        truth = windows.load_frames(rows.tolist())
        rollouts = _Rollouts(
            tokenizer,
            dynamics,
            truth,
            windows.actions.rows(rows),
            context,
            sampling_steps,
            frames_per_pass,
            fast,
        )
        parts.append(rollouts.signals(seed + start))
        finished(len(rows))
    error = np.concatenate([error for error, _ in parts])
    return Signals(error, {name: np.concatenate([found[name] for _, found in parts]) for name in SIGNALS})


class _Rollouts:
    """Some windows, encoded once."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        dynamics: Dynamics,
        truth: Tensor,
        actions: Actions,
        context: int,
        sampling_steps: int,
        frames_per_pass: int,
        fast: bool,
    ):
        self.tokenizer, self.dynamics = tokenizer, dynamics
        self.truth, self.context = truth, context
        self.sampling_steps, self.first, self.fast = sampling_steps, frames_per_pass, fast
        device = tokenizer.mask_token.device
        self.known = encode_long(tokenizer, truth[:, :context], frames_per_pass)
        self.past, self.future = actions.to(device).split(context)

    def signals(self, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Errors (B, H), and the signals."""
        latents, doubts = self._roll(seed, doubting=True)
        # A seed far away: neighbouring ones serve the next windows.
        others, _ = self._roll(seed + 2**31, doubting=False)
        frames, other_frames = self._decode(latents), self._decode(others)
        again = encode_long(
            self.tokenizer, torch.cat([self.truth[:, : self.context].to(frames), frames], 1), self.first
        )
        found = {
            "disagreement": _squared(frames / 255.0, other_frames / 255.0),
            "round trip": _squared(again[:, self.context :], latents),
            **{name: x.double().cpu().numpy() for name, x in doubts.items()},
        }
        return _squared(frames / 255.0, self.truth[:, self.context :].to(frames.device) / 255.0), found

    def _roll(self, seed: int, *, doubting: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Latents (B, H, N_z, D_z), and the signals of `dynamics.doubt`, (B, H) each."""
        continuation = Continuation(
            self.dynamics,
            self.known,
            Step(self.past.values, self.past.known),
            sampling_steps=self.sampling_steps,
            generator=torch.Generator(self.known.device).manual_seed(seed),
            frames_per_pass=self.first,
            fast=self.fast,
        )
        future, latents, doubts = Step(self.future.values, self.future.known), [], []
        for t in range(self.future.known.shape[1]):
            latents.append(continuation.next(future.at(slice(t, t + 1))))
            if doubting:
                doubts.append(doubt(continuation, seed=seed + t))
        names = doubts[0] if doubts else {}
        return torch.cat(latents, 1), {name: torch.stack([d[name] for d in doubts], 1) for name in names}

    def _decode(self, latents: Tensor) -> Tensor:
        return decode_future(self.tokenizer, self.known, latents, self.first, fast=self.fast)


def _squared(a: Tensor, b: Tensor) -> np.ndarray:
    """Mean squared difference (B, T) of (B, T, ...)."""
    return (a - b).square().flatten(2).mean(2).double().cpu().numpy()


def worths(signals: Signals, seed: int = 0) -> dict[str, Worth]:
    """Of every signal and of their combination; nothing with fewer than `MIN_WINDOWS` windows."""
    if len(signals.error) < MIN_WINDOWS:
        return {}
    found = {**signals.values, EXPECTED: expected_error(signals)}
    return {name: _worth(values, signals.error, seed) for name, values in found.items()}


def _worth(values: np.ndarray, error: np.ndarray, seed: int) -> Worth:
    pairs = np.stack([values, error], axis=1)  # (M, 2, H)
    # Ranks are of the whole sample: ranking every draw anew would take seconds and say the same.
    ranks = np.stack([rankdata(values).reshape(values.shape), rankdata(error).reshape(error.shape)], axis=1)
    per_step = rankdata(pairs, axis=0)
    return Worth(bootstrap(ranks, _pooled, seed)[0], bootstrap(per_step, _per_step, seed)[0])


def _pooled(ranks: np.ndarray) -> np.ndarray:
    """(M, 2, H) ranks -> (1,) correlation over all M H pairs; nan where one of them never varies."""
    return _correlation(*rearrange(ranks, "m two h -> two 1 (m h)"))


def _per_step(ranks: np.ndarray) -> np.ndarray:
    """(M, 2, H) ranks -> (1,) mean correlation over the steps at which both vary."""
    found = _correlation(*rearrange(ranks, "m two h -> two h m"))
    return np.nanmean(found, keepdims=True) if np.isfinite(found).any() else np.full(1, np.nan)


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson's, of rows (R, n) twice -> (R,)."""
    a, b = (x - x.mean(1, keepdims=True) for x in (a, b))
    norm = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(norm > 0, (a * b).sum(1) / norm, np.nan)


def expected_error(signals: Signals) -> np.ndarray:
    """(M, H) the error that the signals let expect, from regressions on the other windows."""
    design, target = _design(signals.values), np.log(signals.error + _FLOOR)
    fold, found = np.arange(len(target)) % _FOLDS, np.zeros_like(target)
    for each in range(_FOLDS):
        model = Calibration.fit(
            {name: x[fold != each] for name, x in signals.values.items()}, signals.error[fold != each]
        )
        found[fold == each] = design[fold == each] @ np.array(model.weights)
    return np.exp(found)


@dataclass(frozen=True)
class Calibration:
    """From a frame's signals to its expected error: log(error) = weights . (1, log signals)."""

    names: tuple[str, ...]
    weights: tuple[float, ...]

    @classmethod
    def fit(cls, values: Mapping[str, np.ndarray], error: np.ndarray) -> "Calibration":
        """By ridge regression on windows with a known error; values and error (M, H)."""
        design = _design(values)
        design, target = design.reshape(-1, design.shape[-1]), np.log(error + _FLOOR).ravel()
        ridge = _RIDGE * np.diag([0.0] + [1.0] * (design.shape[1] - 1))
        weights = np.linalg.solve(design.T @ design + ridge, design.T @ target)
        return cls(tuple(values), tuple(float(w) for w in weights))

    def expected(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """Mean squared error to be expected, from signals of any one shape, which it has, too."""
        return np.exp(_design({name: values[name] for name in self.names}) @ np.array(self.weights))

    def to_json(self) -> dict[str, Any]:
        """Names of the signals, and the weights."""
        return {"signals": list(self.names), "weights": list(self.weights)}


def _design(values: Mapping[str, np.ndarray]) -> np.ndarray:
    """Signals of one shape (...) -> (..., 1 + S)."""
    logs = [np.log(np.asarray(x, np.float64) + _FLOOR) for x in values.values()]
    return np.stack([np.ones_like(logs[0]), *logs], axis=-1)
