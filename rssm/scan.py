"""Weights that a recurrence multiplies by at every step: taken apart once, their gradients gathered into one product.

Autograd would add a whole weight-sized outer product per step. With few sequences and wide states that is most of the backward
pass: for V3's 12M at 4 x 16 the recurrence moves 20 MB of weights a step.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class StepProduct:
    """x -> x W for every step of one pass over time, W (I, O), or block by block for W (G, I, O) and x (N, G I).

    Make it before the scan, use it in all steps, and do not keep it: its inputs' gradients are collected while the backward pass
    runs, and W's gradient is computed from all of them after the last.
    """

    def __init__(self, weight: Tensor):
        self.inputs: list[Tensor] = []
        self.gradients: list[Tensor] = []
        weight = _as_autocast(weight)
        self.trains = torch.is_grad_enabled() and weight.requires_grad
        self.weight: Tensor = _Gather.apply(weight, self) if self.trains else weight

    def __call__(self, x: Tensor) -> Tensor:
        """(N, I) -> (N, O), or (N, G I) -> (N, G O)."""
        if self.trains:
            out: Tensor = _Step.apply(_as_autocast(x), self.weight, self)
            return out
        return product(x, self.weight)


def product(x: Tensor, weight: Tensor) -> Tensor:
    """X W, or block by block; see `StepProduct`."""
    if weight.dim() == 2:
        return x @ weight
    return _merge(torch.bmm(_split(x, len(weight)), weight))


def _as_autocast(x: Tensor) -> Tensor:
    """In autocast's type: its own casts do not reach into derivatives written by hand."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def _split(x: Tensor, blocks: int) -> Tensor:
    """(N, G I) -> (G, N, I)."""
    return x.unflatten(-1, (blocks, -1)).transpose(0, 1)


def _merge(x: Tensor) -> Tensor:
    """(G, N, O) -> (N, G O)."""
    return x.transpose(0, 1).flatten(1)


class _Gather(torch.autograd.Function):
    """The weight, with the gradient of all steps at once. Runs backward after the steps, whose own gradient for it is None."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, scan: StepProduct) -> Tensor:
        ctx.scan, ctx.shape = scan, weight.shape
        ctx.set_materialize_grads(False)
        return weight.view_as(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, None]:
        scan = ctx.scan
        if not scan.inputs:
            return None, None
        x, g = torch.cat(scan.inputs), torch.cat(scan.gradients)
        scan.inputs.clear()
        scan.gradients.clear()
        if len(ctx.shape) == 2:
            return x.mT @ g, None
        return torch.bmm(_split(x, ctx.shape[0]).mT, _split(g, ctx.shape[0])), None


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, scan: StepProduct) -> Tensor:
        ctx.scan = scan
        ctx.save_for_backward(x, weight)
        return product(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        x, weight = ctx.saved_tensors
        ctx.scan.inputs.append(x)
        ctx.scan.gradients.append(grad)
        return product(grad, weight.mT), None, None
