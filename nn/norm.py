"""RMSNorm as a function."""

import torch.nn.functional as F
from torch import Tensor


def rms_norm(x: Tensor, gain: Tensor | None = None) -> Tensor:
    """x / sqrt(mean(x^2) + 1e-6) over the last axis, times `gain` (D,) if given, in x's type.

    Layers pass no gain: a bias-free linear layer follows and absorbs it, the same family of functions for two thirds of the time
    on a CPU. Under autocast a float32 gain on bfloat16 inputs would leave the fused kernel, hence the cast.
    """
    return F.rms_norm(x, (x.shape[-1],), None if gain is None else gain.to(x.dtype), 1e-6)
