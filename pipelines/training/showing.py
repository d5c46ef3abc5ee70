"""What a training run shows of itself: reconstructions of the tokenizer, rollouts of the world model, on held-out data.

Both take a few rows of the first held-out batch, so that they cost little and show the same frames every time.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import nn

from reverie.data.batch import Batch
from reverie.dynamics.generation import generate
from reverie.dynamics.model import Dynamics
from reverie.nn.frames import to_uint8
from reverie.pipelines.training.checkpoints import load_tokenizer
from reverie.pipelines.training.sharding import is_sharded
from reverie.tokenizer.model import Tokenizer

Show = Callable[[], Mapping[str, np.ndarray]]
"""Name -> picture (H, W, 3) or film (T, H, W, 3), uint8."""
SHOWN_ROWS = 4
SHOWN_FRAMES = 4
ROLLOUT_FRAMES = 24
SAMPLING_STEPS = 4


def first_rows(held_out: Sequence[Batch], rows: int = SHOWN_ROWS) -> Batch:
    """The first rows of the first held-out batch."""
    return held_out[0].rows(torch.arange(min(rows, len(held_out[0].key))))


def reconstructions(tokenizer: Tokenizer, held_out: Sequence[Batch]) -> Show:
    """A picture: a row of held-out frames above what `tokenizer` makes of them, for a few videos."""
    batch = first_rows(held_out)
    assert batch.frames is not None
    batch = batch.steps(0, min(SHOWN_FRAMES, batch.frames.shape[1]))
    return partial(_reconstructions, tokenizer, batch)


@torch.no_grad()
def _reconstructions(tokenizer: Tokenizer, batch: Batch) -> dict[str, np.ndarray]:
    batch = batch.to(tokenizer.mask_token.device)
    assert batch.frames is not None
    decoded = to_uint8(tokenizer.decode(tokenizer.encode(batch.frames, batch.segment), batch.segment))
    pair = torch.stack([batch.frames, decoded])
    return {"heldout/reconstruction": rearrange(pair, "two b t h w c -> (b two h) (t w) c").cpu().numpy()}


def rollouts(dynamics: Dynamics, tokenizer: Path, held_out: Sequence[Batch]) -> Show:
    """A film: held-out videos beside what `dynamics` makes of their first half and the true actions."""
    batch = first_rows(held_out)
    assert batch.latents is not None
    batch = batch.steps(0, min(ROLLOUT_FRAMES, batch.latents.shape[1]))
    return partial(_rollouts, dynamics, load_tokenizer(tokenizer, torch.device("cpu")), batch)


@torch.no_grad()
def _rollouts(dynamics: Dynamics, tokenizer: Tokenizer, batch: Batch) -> dict[str, np.ndarray]:
    device = dynamics.registers.device
    batch, tokenizer = batch.to(device), tokenizer.to(device)
    assert batch.latents is not None
    context = max(1, batch.latents.shape[1] // 2)
    past, future = batch.steps(0, context), batch.steps(context, batch.latents.shape[1])
    assert past.latents is not None
    made = generate(
        dynamics,
        past.latents,
        past.actions,
        past.action_mask,
        future.actions,
        future.action_mask,
        sampling_steps=min(SAMPLING_STEPS, dynamics.config.max_sampling_steps),
        generator=torch.Generator(device).manual_seed(0),
        segment=past.segment,
    )
    both = [batch.latents, torch.cat([past.latents, made], dim=1)]
    pair = torch.stack([to_uint8(tokenizer.decode(z, batch.segment)) for z in both])
    return {"heldout/rollout": rearrange(pair, "two b t h w c -> t (b h) (two w) c").cpu().numpy()}


def show_of(objective: nn.Module, held_out: Sequence[Batch], tokenizer: Path | None) -> Show | None:
    """What the model of `objective` can show of `held_out`; None where there is nothing to see.

    So it is of sharded weights, which one process alone cannot use.
    """
    model = objective.model
    if any(is_sharded(parameter) for parameter in objective.parameters()):
        return None
    if isinstance(model, Tokenizer):
        return partial(_uncompiled, reconstructions(model, held_out))
    if isinstance(model, Dynamics) and tokenizer is not None:
        return partial(_uncompiled, rollouts(model, tokenizer, held_out))
    return None


def _uncompiled(show: Show) -> Mapping[str, np.ndarray]:
    """What is shown has other sizes than a training step, for which compiling would not pay."""
    with torch.compiler.set_stance("force_eager"):
        return show()
