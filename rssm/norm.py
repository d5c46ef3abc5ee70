"""SiLU(RMSNorm(x)): what follows every linear layer and convolution of V3, with its derivative in few passes over memory.

On a CPU these layers cost as much as the convolutions when channels are few; plain operations need twice the passes.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

EPSILON = 1e-4


class NormSiLU(nn.Module):
    """SiLU(gain x / sqrt(mean(x^2) + 1e-4)) over the last axis, in float32."""

    def __init__(self, width: int):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        if torch.compiler.is_compiling():  # which makes few passes of plain operations
            y = x.float()
            scale = y.square().mean(-1, keepdim=True).add(EPSILON).rsqrt()
            return F.silu(y * scale * self.gain).to(x.dtype)
        out: Tensor = _NormSiLU.apply(x, self.gain)
        return out


class _NormSiLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        inverse = norm.square_().div_(x.shape[-1]).add_(EPSILON).rsqrt_()
        normed = x * inverse
        out = normed * gain
        ctx.save_for_backward(normed, inverse, gain)
        return F.silu(out, inplace=True).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        normed, inverse, gain = ctx.saved_tensors
        # Contiguous first, or every step below would take over the strides of the gradient and copy for the next.
        grad = torch.ops.aten.silu_backward(grad.float().contiguous(), normed * gain)
        product = grad * normed
        along = product @ gain.div(gain.shape[0])  # mean over the axis of grad gain normed
        grad_gain = product.flatten(0, -2).sum(0)
        # inverse (grad gain - normed mean(grad gain normed))
        grad = grad.mul_(gain).addcmul_(normed, along.unsqueeze(-1), value=-1).mul_(inverse)
        return grad, grad_gain
