"""Layers of the three generations: Keras-initialised ELU layers (V1, V2), normalised SiLU layers (V3)."""

import math

import torch
from torch import Tensor, nn

from reverie.nn.precision import Float32Linear
from reverie.rssm.norm import NormSiLU
from reverie.rssm.scan import merge_blocks, split_blocks


def glorot_(module: nn.Linear | nn.Conv2d | nn.ConvTranspose2d) -> None:
    """Keras' default: Glorot-uniform kernel, bias 0."""
    nn.init.xavier_uniform_(module.weight)
    assert module.bias is not None
    nn.init.zeros_(module.bias)


def truncated_normal_(weight: Tensor, fan_in: int, scale: float = 1.0) -> None:
    """V3's default: normal cut at two deviations, whose variance is then 1 / fan_in, times `scale`; 0 gives zeros."""
    std = 1.1368 * math.sqrt(1 / fan_in)
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)
    with torch.no_grad():
        weight.mul_(scale)


def dense(inputs: int, outputs: int, kind: type[nn.Linear] = nn.Linear) -> nn.Linear:
    """Linear layer of V1 and V2."""
    layer = kind(inputs, outputs)
    glorot_(layer)
    return layer


def linear(inputs: int, outputs: int, scale: float = 1.0, kind: type[nn.Linear] = nn.Linear) -> nn.Linear:
    """Linear layer of V3."""
    layer = kind(inputs, outputs)
    truncated_normal_(layer.weight, inputs, scale)
    nn.init.zeros_(layer.bias)
    return layer


def layer_norm(width: int, wanted: bool = True) -> nn.Module:
    """Keras' LayerNorm over the last axis, or nothing."""
    return nn.LayerNorm(width, eps=1e-3) if wanted else nn.Identity()


class ChannelNorm(nn.LayerNorm):
    """The same over the channels of images (N, C, H, W)."""

    def __init__(self, channels: int):
        super().__init__(channels, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def elu_mlp(inputs: int, hidden: int, layers: int, outputs: int, norm: bool = False) -> nn.Sequential:
    """`layers` x (dense, LayerNorm if `norm`, ELU), then dense: every head of V1 and V2."""
    widths = [inputs, *[hidden] * layers]
    parts: list[nn.Module] = []
    for a, b in zip(widths[:-1], widths[1:], strict=True):
        parts += [dense(a, b), *([layer_norm(b)] if norm else []), nn.ELU()]
    return nn.Sequential(*parts, dense(widths[-1], outputs, Float32Linear))


def norm_mlp(inputs: int, hidden: int, layers: int, outputs: int, scale: float = 1.0) -> nn.Sequential:
    """`layers` x (linear, RMSNorm, SiLU), then linear with its kernel times `scale`: every head of V3."""
    widths = [inputs, *[hidden] * layers]
    parts: list[nn.Module] = []
    for a, b in zip(widths[:-1], widths[1:], strict=True):
        parts += [linear(a, b), NormSiLU(b)]
    return nn.Sequential(*parts, linear(widths[-1], outputs, scale, Float32Linear))


class BlockLinear(nn.Module):
    """`blocks` linear layers side by side: block g of the inputs makes block g of the outputs.

    The published initialisation takes the fan-in of all blocks together.
    """

    def __init__(self, inputs: int, outputs: int, blocks: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(blocks, inputs // blocks, outputs // blocks))
        self.bias = nn.Parameter(torch.zeros(outputs))
        truncated_normal_(self.weight, inputs)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs) -> (N, outputs)."""
        blocks = len(self.weight)
        return merge_blocks(torch.bmm(split_blocks(x, blocks), self.weight)) + self.bias
