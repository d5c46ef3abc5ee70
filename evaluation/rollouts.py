"""Rollouts against held-out video: the world model continues real clips, knowing only the actions.

The tokenizer encodes `context` true frames, the dynamics model generates `horizon` more with the true future
actions, and the decoder, its cache warm from the context, turns them into frames one by one. Beside it stand

copy       the last context frame, repeated
shuffled   the same model and the same noise with the future actions of another clip: what actions are worth
tokenizer  the true future encoded and decoded: about the best that a prediction of latents can look
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from einops import repeat
from torch import Tensor, nn

from reverie.dynamics.generation import generate
from reverie.dynamics.model import Dynamics
from reverie.evaluation.metrics import FrameScores, frame_scores
from reverie.evaluation.windows import Actions, Windows
from reverie.nn.cache import RingCache
from reverie.nn.frames import to_uint8
from reverie.tokenizer.model import Tokenizer

METHODS = ("model", "shuffled", "copy", "tokenizer")

Generate = Callable[[Tensor, Actions, Actions, int], Tensor]
"""Context latents (B, C, N, D), context actions (B, C), future actions (B, H), noise seed -> (B, H, N, D)."""


@dataclass(frozen=True)
class Rollouts:
    """What was predicted for M windows.

    scores    method -> scores of shape (M, horizon); no "shuffled" for video without actions
    truth     (V, context + horizon, H, W, C) uint8, the first few windows, to look at
    examples  method -> (V, horizon, H, W, C) uint8, the predictions for them
    """

    context: int
    scores: dict[str, FrameScores]
    truth: Tensor
    examples: dict[str, Tensor]

    @property
    def horizon(self) -> int:
        """Frames predicted per window."""
        return self.truth.shape[1] - self.context


def dynamics_generator(dynamics: Dynamics, sampling_steps: int) -> Generate:
    """`generation.generate` as a `Generate`: its noise depends on the seed alone."""

    def run(latents: Tensor, past: Actions, future: Actions, seed: int) -> Tensor:
        return generate(
            dynamics,
            latents,
            past.values,
            past.known,
            future.values,
            future.known,
            sampling_steps=sampling_steps,
            generator=torch.Generator(latents.device).manual_seed(seed),
        )

    return run


@torch.no_grad()
def roll_out(
    tokenizer: Tokenizer,
    generator: Generate,
    windows: Windows,
    *,
    context: int,
    seed: int = 0,
    batch_size: int = 16,
    num_examples: int = 8,
    lpips: nn.Module | None = None,
    finished: Callable[[int], object] = lambda _: None,
) -> Rollouts:
    """Predicts and scores every window; the first `context` frames of each are given.

    The actions are shuffled over all windows by a permutation that leaves none in place, if all future actions
    are known and there are at least two windows. `finished` is told how many windows were just scored.
    """
    order = torch.from_numpy(derangement(len(windows), seed)) if _can_shuffle(windows, context) else None
    scored: list[dict[str, FrameScores]] = []
    shown: list[tuple[Tensor, dict[str, Tensor]]] = []
    for start in range(0, len(windows), batch_size):
        rows = torch.arange(start, min(start + batch_size, len(windows)))
        other = None if order is None else windows.actions.rows(order[rows])
        truth, frames = _predict(tokenizer, generator, windows, rows, other, context, seed + start)
        scored.append({name: frame_scores(x, truth[:, context:], lpips) for name, x in frames.items()})
        kept = slice(0, max(0, num_examples - start))
        finished(len(rows))
        shown.append((truth[kept].cpu(), {name: x[kept].cpu() for name, x in frames.items()}))
    return Rollouts(
        context=context,
        scores={name: _join_scores([part[name] for part in scored]) for name in scored[0]},
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


def _predict(
    tokenizer: Tokenizer,
    generator: Generate,
    windows: Windows,
    rows: Tensor,
    other: Actions | None,
    context: int,
    seed: int,
) -> tuple[Tensor, dict[str, Tensor]]:
    """True frames (B, context + horizon, H, W, C) of `rows`, each method's (B, horizon, H, W, C); uint8."""
    device = tokenizer.mask_token.device
    truth = windows.load_frames(rows.tolist()).to(device)
    latents = tokenizer.encode(truth)
    past, future = windows.actions.rows(rows).to(device).split(context)
    frames = {
        "model": decode_future(
            tokenizer, latents[:, :context], generator(latents[:, :context], past, future, seed)
        ),
        "copy": repeat(truth[:, context - 1], "b h w c -> b t h w c", t=truth.shape[1] - context),
        "tokenizer": decode_future(tokenizer, latents[:, :context], latents[:, context:]),
    }
    if other is not None:
        _, future = other.to(device).split(context)
        imagined = generator(latents[:, :context], past, future, seed)
        frames["shuffled"] = decode_future(tokenizer, latents[:, :context], imagined)
    return truth, {name: frames[name] for name in METHODS if name in frames}


def decode_future(tokenizer: Tokenizer, context: Tensor, future: Tensor) -> Tensor:
    """Latents of context and future (B, T, N, D) -> the future's frames (B, T, H, W, C) uint8, one by one."""
    cache: RingCache = tokenizer.decoder_cache(len(context))
    tokenizer.decode(context, cache=cache)
    frames = [to_uint8(tokenizer.decode(future[:, t : t + 1], cache=cache)) for t in range(future.shape[1])]
    return torch.cat(frames, dim=1)


def _join_scores(parts: list[FrameScores]) -> FrameScores:
    distances = [part.lpips for part in parts if part.lpips is not None]
    return FrameScores(
        mse=torch.cat([part.mse for part in parts]),
        psnr=torch.cat([part.psnr for part in parts]),
        ssim=torch.cat([part.ssim for part in parts]),
        lpips=torch.cat(distances) if distances else None,
    )
