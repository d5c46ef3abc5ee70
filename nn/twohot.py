"""Symexp two-hot regression: scalars as a categorical over exponentially spaced bins (Dreamer 3 and 4)."""

from functools import lru_cache

import torch
from torch import Tensor

NUM_BINS = 255


def symlog(x: Tensor) -> Tensor:
    """sign(x) ln(1 + |x|)."""
    return x.sign() * x.abs().log1p()


def symexp(x: Tensor) -> Tensor:
    """sign(x) (exp(|x|) - 1), the inverse of `symlog`."""
    return x.sign() * x.abs().expm1()


@lru_cache
def bins(device: torch.device) -> Tensor:
    """(255,) float32 bin values: antisymmetric, the middle one exactly 0, the outermost +-symexp(20)."""
    with torch.inference_mode(False):  # whoever asks first, losses use it, too
        half = symexp(torch.linspace(-20, 0, NUM_BINS // 2 + 1, dtype=torch.float64))
        return torch.cat([half, -half[:-1].flip(0)]).float().to(device)


def twohot(x: Tensor) -> Tensor:
    """(...) values -> (..., 255) weights on the two neighbouring bins, linear in raw space; clipped to the range."""
    values = bins(x.device)
    x = x.float().clamp(values[0], values[-1])
    above = torch.searchsorted(values, x.contiguous(), right=True).clamp(1, NUM_BINS - 1)
    low, high = values[above - 1], values[above]
    weight = ((x - low) / (high - low)).unsqueeze(-1)
    target = torch.zeros(*x.shape, NUM_BINS, device=x.device)
    target.scatter_(-1, (above - 1).unsqueeze(-1), 1 - weight)
    return target.scatter_(-1, above.unsqueeze(-1), weight)


def twohot_loss(logits: Tensor, x: Tensor) -> Tensor:
    """Cross-entropy of logits (..., 255) to the two-hot coding of x (...). Returns (...)."""
    return -(twohot(x) * logits.float().log_softmax(-1)).sum(-1)


def twohot_mean(logits: Tensor) -> Tensor:
    """Expected value (...) of logits (..., 255). Summed in mirrored pairs: uniform logits give exactly 0."""
    weighted = logits.float().softmax(-1) * bins(logits.device)
    middle = NUM_BINS // 2
    mirrored = weighted[..., middle + 1 :].flip(-1)
    return (weighted[..., :middle] + mirrored).sum(-1) + weighted[..., middle]
