"""Scalar heads: a Normal of deviation 1 (V1, V2) and the symexp two-hot distribution (V3)."""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from reverie.nn.twohot import NUM_BINS, twohot_loss, twohot_mean
from reverie.rssm.config import Generation
from reverie.rssm.layers import elu_mlp, norm_mlp

HALF_LN_2PI = 0.5 * math.log(2 * math.pi)


class NormalHead(nn.Module):
    """V1 and V2: the mean of Normal(., 1)."""

    def __init__(self, feature: int, units: int, layers: int, norm: bool = False):
        super().__init__()
        self.layers = elu_mlp(feature, units, layers, 1, norm)

    def forward(self, feature: Tensor) -> Tensor:
        """(..., F) -> outputs (..., 1)."""
        return self.layers(feature).float()

    def mean(self, out: Tensor) -> Tensor:
        """Prediction (...) of the outputs."""
        return out.squeeze(-1)

    def loss(self, out: Tensor, target: Tensor) -> Tensor:
        """-ln N(target; mean, 1), (...)."""
        return normal_nll(out.squeeze(-1), target)


class TwoHotHead(nn.Module):
    """V3: logits of 255 bins, first all 0, so that it predicts exactly 0."""

    def __init__(self, feature: int, units: int, layers: int):
        super().__init__()
        self.layers = norm_mlp(feature, units, layers, NUM_BINS, scale=0.0)

    def forward(self, feature: Tensor) -> Tensor:
        """(..., F) -> logits (..., 255)."""
        return self.layers(feature).float()

    def mean(self, out: Tensor) -> Tensor:
        """Prediction (...) of the logits."""
        return twohot_mean(out)

    def loss(self, out: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy (...) to the two-hot coding of the target."""
        return twohot_loss(out, target)


class ContinueHead(nn.Module):
    """Bernoulli: the probability that the episode goes on, times gamma."""

    def __init__(self, generation: Generation, feature: int, units: int, layers: int, norm: bool = False):
        super().__init__()
        if generation == "v3":
            self.layers = norm_mlp(feature, units, layers, 1)
        else:
            self.layers = elu_mlp(feature, units, layers, 1, norm)

    def forward(self, feature: Tensor) -> Tensor:
        """(..., F) -> logits (...)."""
        return self.layers(feature).float().squeeze(-1)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy (...) to a target in [0, 1]."""
        return F.binary_cross_entropy_with_logits(logits, target, reduction="none")


ScalarHead = NormalHead | TwoHotHead


def scalar_head(
    generation: Generation, feature: int, units: int, layers: int, norm: bool = False
) -> ScalarHead:
    """The generation's head for rewards and values; `norm`: with LayerNorm, V1 and V2 alone."""
    if generation == "v3":
        return TwoHotHead(feature, units, layers)
    return NormalHead(feature, units, layers, norm)


def normal_nll(mean: Tensor, target: Tensor) -> Tensor:
    """-ln N(target; mean, 1), elementwise."""
    return 0.5 * (target - mean).square() + HALF_LN_2PI
