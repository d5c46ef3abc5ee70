"""Prediction heads: small MLPs with one output layer per distance (multi-token prediction)."""

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from reverie.nn.attention import init_linear
from reverie.nn.norm import rms_norm
from reverie.nn.precision import Float32Linear


class Head(nn.Module):
    """RMSNorm, one hidden SiLU layer, and `distances` output layers of `size` outputs each.

    `out_scale` scales the output layers' initial weights; 0 makes the first predictions exactly neutral.
    """

    def __init__(self, width: int, hidden: int, size: int, *, distances: int = 1, out_scale: float = 1.0):
        super().__init__()
        self.distances = distances
        self.hidden = nn.Linear(width, hidden)
        self.out = Float32Linear(hidden, distances * size)
        init_linear(self.hidden)
        nn.init.zeros_(self.hidden.bias)
        nn.init.zeros_(self.out.bias)
        if out_scale > 0:
            init_linear(self.out, out_scale)
        else:
            nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., distances, size) float32."""
        out = self.out(F.silu(self.hidden(rms_norm(x))))
        return rearrange(out, "... (l p) -> ... l p", l=self.distances)

    def nearest(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., size): the first distance alone."""
        return self(x)[..., 0, :]
