"""Muon (Jordan 2024): momentum whose matrices are made nearly orthogonal before they become updates.

The same update as `torch.optim.Muon` with `match_rms_adamw`. That one always orthogonalises in bfloat16, matrix by matrix, which
takes longer than a whole training step of a small model on CPUs without bfloat16 arithmetic; here matrices of one
shape go through the iteration together, in float32 on CPUs and in bfloat16 on GPUs.
"""

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from reverie.nn.precision import prefers_bfloat16
from reverie.pipelines.training.sharding import is_sharded, local_part, on_whole_matrices

MOMENTUM = 0.95
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


class Muon(Optimizer):
    """Nesterov momentum 0.95, orthogonalised, scaled to the usual size of AdamW's updates.

    Args:
      matrices: parameters of two dimensions.
      lr: learning rate.
      weight_decay: decoupled.
    """

    def __init__(self, matrices: Sequence[nn.Parameter], *, lr: float, weight_decay: float) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every matrix that has a gradient."""
        for group in self.param_groups:
            alike: defaultdict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike[parameter.shape].append(parameter)
            for shape, parameters in alike.items():
                updates = _orthogonal([self._direction(p) for p in parameters])
                rate = group["lr"] * 0.2 * max(shape) ** 0.5
                for parameter, update in zip(parameters, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    local_part(parameter).add_(update, alpha=-rate)

    def _direction(self, parameter: nn.Parameter) -> Tensor:
        """The gradient pushed along its momentum (Nesterov)."""
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        momentum: Tensor = state["momentum_buffer"].lerp_(gradient, 1 - MOMENTUM)
        return gradient.lerp(momentum, MOMENTUM)


def _orthogonal(matrices: Sequence[Tensor]) -> Sequence[Tensor]:
    """`orthogonalize` of matrices of one shape; of sharded ones (FSDP) this process's rows."""
    if is_sharded(matrices[0]):
        return on_whole_matrices(orthogonalize, matrices)
    return orthogonalize(torch.stack(list(matrices))).unbind()


def orthogonalize(matrices: Tensor) -> Tensor:
    """U S' V^T of matrices U S V^T with S' of about 0.7 to 1.2, by five Newton-Schulz iterations. (N, rows, columns) -> same."""
    wide = matrices.shape[-2] <= matrices.shape[-1]
    x = matrices if wide else matrices.mT
    x = x.to(torch.bfloat16 if prefers_bfloat16(x.device) else torch.float32)
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-7)
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x if wide else x.mT).to(matrices.dtype)
