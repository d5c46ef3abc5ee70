"""Image encoders and decoders: strided convolutions (V1, V2); convolution and pooling at a fixed width of stages (V3)."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from reverie.rssm.config import NUM_BLOCKS
from reverie.rssm.layers import BlockLinear, ChannelNorm, glorot_, linear, truncated_normal_
from reverie.rssm.norm import NormSiLU
from reverie.rssm.state import State

_STAGES = (2, 3, 4, 4)
"""V3: channels of the four stages over the depth."""


class StridedEncoder(nn.Module):
    """V1 and V2: four 4 x 4 convolutions of stride 2 without padding, 64 -> 31 -> 14 -> 6 -> 2."""

    def __init__(self, channels: int, depth: int, activation: type[nn.Module], norm: bool = False):
        super().__init__()
        widths = [channels, depth, 2 * depth, 4 * depth, 8 * depth]
        parts: list[nn.Module] = []
        for a, b in zip(widths[:-1], widths[1:], strict=True):
            conv = nn.Conv2d(a, b, 4, stride=2)
            glorot_(conv)
            parts += [conv, *([ChannelNorm(b)] if norm else []), activation()]
        self.layers = nn.Sequential(*parts)
        self.size = 4 * widths[-1]

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, 64, 64) in [0, 1] -> (N, 32 depth)."""
        return self.layers(images - 0.5).flatten(1)


class StridedDecoder(nn.Module):
    """V1 and V2: a linear layer and four transposed convolutions of stride 2, 1 -> 5 -> 13 -> 30 -> 64."""

    def __init__(
        self, feature: int, channels: int, depth: int, activation: type[nn.Module], norm: bool = False
    ):
        super().__init__()
        self.inputs = nn.Linear(feature, 32 * depth)
        glorot_(self.inputs)
        widths = [32 * depth, 4 * depth, 2 * depth, depth]
        parts: list[nn.Module] = []
        for a, b, kernel in zip(widths[:-1], widths[1:], (5, 5, 6), strict=True):
            parts += [_transposed(a, b, kernel), *([ChannelNorm(b)] if norm else []), activation()]
        self.layers = nn.Sequential(*parts, _transposed(depth, channels, 6))

    def forward(self, feature: Tensor, state: State) -> Tensor:
        """Feature (N, F) -> mean images (N, C, 64, 64), around [0, 1]."""
        return self.layers(self.inputs(feature)[..., None, None]) + 0.5


def _transposed(inputs: int, outputs: int, kernel: int) -> nn.ConvTranspose2d:
    conv = nn.ConvTranspose2d(inputs, outputs, kernel, stride=2)
    glorot_(conv)
    return conv


class PoolingEncoder(nn.Module):
    """V3: four times 5 x 5 convolution, 2 x 2 maximum, RMSNorm over channels, SiLU."""

    def __init__(self, channels: int, depth: int, size: tuple[int, int]):
        super().__init__()
        widths = [channels, *[depth * k for k in _STAGES]]
        self.convs = nn.ModuleList(
            _conv5(nn.Conv2d, a, b) for a, b in zip(widths[:-1], widths[1:], strict=True)
        )
        self.norms = nn.ModuleList(NormSiLU(b) for b in widths[1:])
        self.size = widths[-1] * (size[0] // 16) * (size[1] // 16)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1] -> (N, 4 depth H W / 256)."""
        x = images - 0.5
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.max_pool2d(conv(x), 2)
            x = norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # channels last in memory all along
        return x.permute(0, 2, 3, 1).flatten(1)


class UpsamplingDecoder(nn.Module):
    """V3: h by blocks and z by an MLP to a small map, then four times (nearest x 2, 5 x 5 convolution)."""

    def __init__(self, deter: int, stoch: int, units: int, channels: int, depth: int, size: tuple[int, int]):
        super().__init__()
        self.rows, self.columns = size[0] // 16, size[1] // 16
        width = depth * _STAGES[-1]
        cells = self.rows * self.columns * width
        self.deter_in = BlockLinear(deter, cells, NUM_BLOCKS)
        self.stoch_in = nn.Sequential(linear(stoch, 2 * units), NormSiLU(2 * units), linear(2 * units, cells))
        self.norm_in = NormSiLU(width)
        widths = [width, *[depth * k for k in reversed(_STAGES[:-1])], channels]
        self.convs = nn.ModuleList(
            _conv5(UpsamplingConv, a, b) for a, b in zip(widths[:-1], widths[1:], strict=True)
        )
        self.norms = nn.ModuleList(NormSiLU(b) for b in widths[1:-1])

    def forward(self, feature: Tensor, state: State) -> Tensor:
        """States (N, ...) -> mean images (N, C, H, W) in [0, 1]."""
        shape = {"h": self.rows, "w": self.columns}
        x = rearrange(self.deter_in(state.deter), "n (g h w c) -> n h w (g c)", g=NUM_BLOCKS, **shape)
        x = self.norm_in(x + rearrange(self.stoch_in(state.stoch), "n (h w c) -> n h w c", **shape))
        for conv, norm in zip(self.convs[:-1], self.norms, strict=True):
            x = interleave(norm(conv(x)))
        return interleave(self.convs[-1](x)).permute(0, 3, 1, 2).sigmoid()


class UpsamplingConv(nn.Conv2d):
    """The 5 x 5 convolution, padded, of the nearest-neighbour doubling of its input, at 36 % of its cost.

    Each output sees 3 x 3 different inputs, so each of its four positions in a cell has a 3 x 3 kernel of sums of weights.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, I) -> (N, H, W, 2, 2, O): output row and column within each cell before the channel."""
        assert self.bias is not None
        merge = x.new_tensor(_MERGE)
        kernels = torch.einsum("pad,qbe,oide->pqoiab", merge, merge, self.weight).flatten(0, 2)
        out = F.conv2d(x.permute(0, 3, 1, 2), kernels, self.bias.repeat(4), padding=1)
        # The channel comes last before it is split: the gradient then has the layout that convolutions work in.
        return out.permute(0, 2, 3, 1).unflatten(-1, (2, 2, self.out_channels))


_MERGE = (
    ((1, 1, 0, 0, 0), (0, 0, 1, 1, 0), (0, 0, 0, 0, 1)),
    ((1, 0, 0, 0, 0), (0, 1, 1, 0, 0), (0, 0, 0, 1, 1)),
)
"""Output parity x input offset -1, 0, 1 x tap of the 5-kernel: which taps fall on the same input."""


def interleave(x: Tensor) -> Tensor:
    """(N, H, W, 2, 2, C) -> (N, 2 H, 2 W, C)."""
    return rearrange(x, "n h w p q c -> n (h p) (w q) c")


def _conv5(kind: type[nn.Conv2d], inputs: int, outputs: int) -> nn.Conv2d:
    conv = kind(inputs, outputs, 5, padding=2)
    truncated_normal_(conv.weight, inputs * 25)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv
