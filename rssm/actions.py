"""Actions as the vectors that enter an RSSM, and back: one-hot classes, keys as 0 and 1, ranges scaled to [-1, 1].

An unknown action, and the one before an episode's first frame, is all zeros: no class, no key, the middle of the range.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from reverie.data.actions import ActionSpace, Binary, Categorical, Component, Continuous
from reverie.nn.distributions import scale_continuous, unscale_continuous


def code_size(space: ActionSpace) -> int:
    """A, the length of an action's vector."""
    return sum(component.n for component in space.components.values())


def encode_actions(space: ActionSpace, actions: Mapping[str, Tensor]) -> Tensor:
    """Component -> (..., *shape) to (..., A) float32."""
    return torch.cat([_encode(c, actions[name]) for name, c in space.components.items()], dim=-1)


def decode_actions(space: ActionSpace, code: Tensor) -> dict[str, Tensor]:
    """(..., A) to component -> (..., *shape); continuous values are clipped to their range."""
    parts = code.split([c.n for c in space.components.values()], dim=-1)
    return {name: _decode(c, x) for (name, c), x in zip(space.components.items(), parts, strict=True)}


def _encode(component: Component, action: Tensor) -> Tensor:
    if isinstance(component, Categorical):
        return F.one_hot(action, component.n).float()
    return scale_continuous(action, component) if isinstance(component, Continuous) else action.float()


def _decode(component: Component, code: Tensor) -> Tensor:
    if isinstance(component, Categorical):
        return code.argmax(-1)
    if isinstance(component, Binary):
        return code > 0.5
    return unscale_continuous(code.clamp(-1, 1), component)


def explore(space: ActionSpace, code: Tensor, noise: float) -> Tensor:
    """V1's exploration: (..., A) with `noise` x N(0, 1) added to ranges and that share of classes and keys drawn anew."""
    if noise == 0:
        return code
    parts = code.split([c.n for c in space.components.values()], dim=-1)
    return torch.cat(
        [_explore(c, x, noise) for c, x in zip(space.components.values(), parts, strict=True)], dim=-1
    )


def _explore(component: Component, code: Tensor, noise: float) -> Tensor:
    if isinstance(component, Continuous):
        return (code + noise * torch.randn_like(code)).clamp(-1, 1)
    if isinstance(component, Binary):
        return torch.where(torch.rand_like(code) < noise, torch.rand_like(code).round(), code)
    drawn = torch.randint(component.n, code.shape[:-1], device=code.device)
    anew = torch.rand(code.shape[:-1], device=code.device) < noise
    return torch.where(anew[..., None], F.one_hot(drawn, component.n).to(code.dtype), code)
