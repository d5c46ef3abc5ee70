"""Small models of the three generations and batches of frames for their tests."""

from dataclasses import replace

import torch

from reverie.data.actions import ActionSpace
from reverie.data.batch import Batch
from reverie.rssm.config import DreamerConfig
from reverie.rssm.model import Dreamer
from reverie.rssm.presets import preset
from tests.batches import SPACE, frame_batch

GENERATIONS = ("v1", "v2", "v3")
_PRESETS = {"v1": "v1-atari", "v2": "v2-atari", "v3": "v3-1m"}


def small_config(
    generation: str,
    burn_in: int = 0,
    horizon: int = 4,
    prior_members: int = 1,
    layer_norm: bool = False,
    **behaviour: object,
) -> DreamerConfig:
    """The generation's losses at sizes that take milliseconds."""
    base = preset(_PRESETS[generation])
    sizes = dict(
        deter=32, hidden=16, stoch=4, depth=2, units=16, burn_in=burn_in, prior_members=prior_members
    )
    if generation != "v1":
        sizes["classes"] = 3
    return replace(
        base,
        world_model=replace(base.world_model, layer_norm=layer_norm, **sizes),
        behaviour=replace(base.behaviour, units=16, horizon=horizon, layer_norm=layer_norm, **behaviour),
    )


def small_model(
    generation: str, size: tuple[int, int] = (16, 16), space: ActionSpace = SPACE, **settings: object
) -> Dreamer:
    torch.manual_seed(0)
    return Dreamer(small_config(generation, **settings), (*size, 3), space)


def known_batch(b: int = 3, t: int = 8, size: int = 16, seed: int = 0) -> Batch:
    """One piece of one labelled episode a row."""
    batch = frame_batch(b, t, size, size, seed=seed)
    batch.segment.zero_()
    batch.is_last, batch.is_terminal = batch.is_last.clone(), batch.is_terminal.clone()
    batch.is_first[:, 0] = True
    batch.action_mask = ~batch.is_first
    batch.reward_mask = torch.ones_like(batch.is_first)
    return batch


def with_gradient(module: torch.nn.Module) -> set[str]:
    """Names of the parameters that a backward pass has reached."""
    return {
        name for name, p in module.named_parameters() if p.grad is not None and bool(p.grad.abs().max() > 0)
    }
