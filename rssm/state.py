"""The model state of an RSSM."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class State:
    """Deterministic and stochastic part of a model state.

    deter (..., D) h. stoch (..., S) z: Gaussian samples (v1) or flattened one-hot samples (v2, v3).
    """

    deter: Tensor
    stoch: Tensor

    def map(self, function: Callable[[Tensor], Tensor]) -> "State":
        """`function` of both parts."""
        return State(function(self.deter), function(self.stoch))

    def detach(self) -> "State":
        """Without gradients."""
        return self.map(Tensor.detach)

    def flatten(self) -> "State":
        """(B, T, ...) -> (B T, ...)."""
        return self.map(lambda x: x.flatten(0, 1))

    def keep(self, mask: Tensor) -> "State":
        """Zeros where `mask` (B,), 0 or 1, is 0."""
        return self.map(lambda x: x * mask.unsqueeze(-1).to(x.dtype))


def stack(states: Sequence[State], dim: int = 1) -> State:
    """Many states (B, ...) -> one (B, T, ...)."""
    return State(torch.stack([s.deter for s in states], dim), torch.stack([s.stoch for s in states], dim))
