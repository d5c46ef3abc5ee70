"""What becomes of long rollouts: do they stay among pictures that the game could show?

A few held-out videos are continued for thousands of frames, with their own recorded actions over and over. No truth goes
that far, so frames are compared with held-out ones as a set, block by block:

distance   of latents: Frechet distance of Gaussians with diagonal covariance, over the variance of held-out latents
sharpness  mean absolute difference of neighbouring pixels
motion     mean absolute difference of following frames
spread     mean standard deviation, over the videos, of a pixel: how different the videos still are from each other

Memory does not grow with the rollout: only sums are kept.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.dynamics.frame import Step
from reverie.dynamics.generation import Continuation
from reverie.dynamics.model import Dynamics
from reverie.evaluation.windows import Windows
from reverie.nn.cache import FRAMES_PER_PASS
from reverie.nn.frames import to_uint8
from reverie.tokenizer.model import Tokenizer
from reverie.tokenizer.streaming import decode_next, encode_long, warm_decoder

MEASURES = ("distance", "sharpness", "motion", "spread")
BLOCKS = 40
"""Points of the curves, at most."""
_FROZEN = 0.05
_FLAT = 0.5
_FAR = 4.0


class Block:
    """Sums over some frames, of which the measures are made."""

    def __init__(self) -> None:
        self._n = 0
        self._sums: dict[str, Tensor] = {}
        self.finite = True

    def add(self, latents: Tensor, frames: Tensor, before: Tensor | None) -> None:
        """One time step of B videos: latents (B, N_z, D_z), frames (B, H, W, 3) uint8, and the frames before."""
        z, x = latents.double().flatten(1), frames.float() / 255
        self.finite &= bool(torch.isfinite(z).all())
        sums = {"z": z.sum(0), "zz": z.square().sum(0), "sharpness": _sharpness(x), "spread": _spread(x)}
        if before is not None:
            sums["motion"] = (x - before.float() / 255).abs().mean() * len(x)
            sums["moved"] = torch.tensor(float(len(x)))
        for name, value in sums.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._n += len(x)

    @property
    def filled(self) -> bool:
        """Whether anything was added."""
        return self._n > 0

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of the latents, (N_z D_z,) each."""
        mean = self._sums["z"] / self._n
        return mean, (self._sums["zz"] / self._n - mean.square()).clamp_min(0)

    def measures(self, held_out: "Block") -> dict[str, float]:
        """The measures of `MEASURES`, the distance to `held_out`."""
        mean, variance = self.moments()
        true_mean, true_variance = held_out.moments()
        gap = (mean - true_mean).square().sum() + (variance.sqrt() - true_variance.sqrt()).square().sum()
        return {
            "distance": float(gap / true_variance.sum().clamp_min(1e-12)),
            "sharpness": float(self._sums["sharpness"] / self._n),
            "motion": float(self._sums["motion"] / self._sums["moved"]) if "moved" in self._sums else 0.0,
            "spread": float(self._sums["spread"] / self._n),
        }


def _sharpness(x: Tensor) -> Tensor:
    """(B, H, W, C) in [0, 1] -> sum over the videos of the mean gradient."""
    return ((x[:, 1:] - x[:, :-1]).abs().mean() + (x[:, :, 1:] - x[:, :, :-1]).abs().mean()) * len(x)


def _spread(x: Tensor) -> Tensor:
    return x.std(0, correction=0).mean() * len(x)


@dataclass(frozen=True)
class Drift:
    """Measures along a long rollout, and of held-out video.

    frames    (P,) generated frames up to the middle of each block
    curves    measure -> (P,)
    held_out  measure -> its level in held-out video; the distance is that of one half of the held-out frames to the other
    """

    videos: int
    length: int
    frames: list[int]
    curves: dict[str, list[float]]
    held_out: dict[str, float]
    finite: bool

    @property
    def verdict(self) -> str:
        """What the last quarter shows, in a sentence."""
        late = {
            name: float(np.mean(curve[-max(1, len(curve) // 4) :])) for name, curve in self.curves.items()
        }
        if not self.finite:
            return "explodes: latents leave the finite numbers"
        found = []
        if late["distance"] > _FAR:
            found.append(
                f"leaves the held-out pictures (distance {late['distance']:.1f}, more than {_FAR:g} variances)"
            )
        if late["motion"] < _FROZEN * self.held_out["motion"]:
            found.append(
                f"freezes ({late['motion'] / self.held_out['motion']:.0%} of the motion of held-out video)"
            )
        if late["sharpness"] < _FLAT * self.held_out["sharpness"]:
            found.append(f"blurs ({late['sharpness'] / self.held_out['sharpness']:.0%} of the sharpness)")
        if self.videos > 1 and late["spread"] < _FROZEN * self.held_out["spread"]:
            found.append("becomes the same picture in all videos")
        return " and ".join(found) or "stays among the held-out pictures"

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values; None for what is not finite."""
        return {
            "videos": self.videos,
            "length": self.length,
            "frames": self.frames,
            "curves": {name: [_finite(x) for x in curve] for name, curve in self.curves.items()},
            "held_out": {name: _finite(x) for name, x in self.held_out.items()},
            "verdict": self.verdict,
        }


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


@torch.inference_mode()
def drift(
    tokenizer: Tokenizer,
    dynamics: Dynamics,
    windows: Windows,
    *,
    context: int,
    length: int,
    videos: int = 4,
    sampling_steps: int = 4,
    seed: int = 0,
    frames_per_pass: int = FRAMES_PER_PASS,
    fast: bool = False,
    finished: Callable[[int], object] = lambda _: None,
) -> Drift:
    """Continues the first `videos` windows for `length` frames; held-out video is that of all windows, a few at a time."""
    videos = min(videos, len(windows))
    truth = windows.load_frames(list(range(videos)))
    device = tokenizer.mask_token.device
    known = encode_long(tokenizer, truth[:, :context], frames_per_pass)
    past, future = windows.actions.rows(torch.arange(videos)).to(device).split(context)
    actions = Step(future.values, future.known)
    continuation = Continuation(
        dynamics,
        known,
        Step(past.values, past.known),
        sampling_steps=sampling_steps,
        generator=torch.Generator(device).manual_seed(seed),
        frames_per_pass=frames_per_pass,
        fast=fast,
    )
    cache, before = warm_decoder(tokenizer, known, frames_per_pass), truth[:, context - 1].to(device)
    blocks = [Block() for _ in range(min(BLOCKS, length))]
    for t in range(length):
        now = t % future.known.shape[1]
        latents = continuation.next(actions.at(slice(now, now + 1)))
        frames = to_uint8(decode_next(tokenizer, latents, cache, fast=fast))[:, 0]
        blocks[t * len(blocks) // length].add(latents[:, 0], frames, before)
        before = frames
        finished(1)
    return _summary(blocks, _held_out(tokenizer, windows, frames_per_pass), videos, length)


def _held_out(tokenizer: Tokenizer, windows: Windows, frames_per_pass: int) -> tuple[Block, Block, Block]:
    """All windows, and those of even and of odd number."""
    every, halves = Block(), (Block(), Block())
    for row in range(0, len(windows), 4):
        rows = list(range(row, min(row + 4, len(windows))))
        frames = windows.load_frames(rows).to(tokenizer.mask_token.device)
        latents = encode_long(tokenizer, frames, frames_per_pass)
        for t in range(frames.shape[1]):
            before = frames[:, t - 1] if t else None
            every.add(latents[:, t], frames[:, t], before)
            halves[row // 4 % 2].add(latents[:, t], frames[:, t], before)
    return every, *halves


def _summary(blocks: list[Block], held_out: tuple[Block, Block, Block], videos: int, length: int) -> Drift:
    every, even, odd = held_out
    measured = [block.measures(every) for block in blocks]
    level = every.measures(every)
    level["distance"] = odd.measures(even)["distance"] if odd.filled else 0.0
    return Drift(
        videos=videos,
        length=length,
        frames=[round((i + 0.5) * length / len(blocks)) for i in range(len(blocks))],
        curves={name: [found[name] for found in measured] for name in MEASURES},
        held_out=level,
        finite=all(block.finite for block in blocks),
    )
