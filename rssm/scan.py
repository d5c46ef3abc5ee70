"""Linear layers inside a recurrence: taken apart once, their weights' gradients gathered into one product.

Autograd would add a whole weight-sized outer product per step. With few sequences and wide states that is most of the backward
pass: for V3's 12M at 4 x 16 the recurrence moves 20 MB of weights a step.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class StepLinear:
    """x -> x W + b for every step of one pass over time; W (I, O) and x (N, I), or for G blocks W (G, I, O) and x (G, N, I).

    Make it before the scan, use it in all steps, and do not keep it: its inputs and their gradients are collected while the
    backward pass runs, and the gradients of W and b are computed from all of them after the last.

    Args:
      weight: (I, O) or (G, I, O).
      bias: (O,) or (G, 1, O), or None for 0.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None):
        weight = _as_autocast(weight)
        bias = weight.new_zeros(1) if bias is None else _as_autocast(bias)
        self.inputs: list[Tensor] = []
        self.gradients: list[Tensor] = []
        self.trains = torch.is_grad_enabled() and weight.requires_grad
        self.weight: Tensor
        self.bias: Tensor
        self.weight, self.bias = _Gather.apply(weight, bias, self) if self.trains else (weight, bias)

    def __call__(self, x: Tensor) -> Tensor:
        """(N, I) -> (N, O), or (G, N, I) -> (G, N, O)."""
        if self.trains and not torch.compiler.is_compiling():  # there autograd derives it, step by step
            out: Tensor = _Step.apply(_as_autocast(x), self.weight, self.bias, self)
            return out
        return _linear(x, self.weight, self.bias)


def split_blocks(x: Tensor, blocks: int) -> Tensor:
    """(N, G I) -> (G, N, I)."""
    return x.unflatten(-1, (blocks, -1)).transpose(0, 1)


def merge_blocks(x: Tensor) -> Tensor:
    """(G, N, O) -> (N, G O)."""
    return x.transpose(0, 1).flatten(1)


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.addmm(bias, x, weight) if weight.dim() == 2 else torch.baddbmm(bias, x, weight)


def _as_autocast(x: Tensor) -> Tensor:
    """In autocast's type: its own casts do not reach into derivatives written by hand."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


class _Gather(torch.autograd.Function):
    """Weight and bias, with the gradient of all steps at once. Runs backward after the steps.

    Their own gradient is None, unless they are compiled.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor, scan: StepLinear) -> tuple[Tensor, Tensor]:
        ctx.scan, ctx.bias_shape = scan, bias.shape
        ctx.set_materialize_grads(False)
        return weight.view_as(weight), bias.view_as(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, Tensor | None, None]:
        scan: StepLinear = ctx.scan
        if not scan.inputs:  # nothing was used, or by compiled steps, whose gradients arrive here
            weight_grad, bias_grad = grads
            return weight_grad, bias_grad, None
        x, g = torch.cat(scan.inputs, dim=-2), torch.cat(scan.gradients, dim=-2)
        scan.inputs.clear()
        scan.gradients.clear()
        return x.mT @ g, g.sum_to_size(ctx.bias_shape) if ctx.needs_input_grad[1] else None, None


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, scan: StepLinear) -> Tensor:
        ctx.scan = scan
        ctx.save_for_backward(x, weight)
        return _linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        x, weight = ctx.saved_tensors
        ctx.scan.inputs.append(x)
        ctx.scan.gradients.append(grad)
        return grad @ weight.mT, None, None, None
