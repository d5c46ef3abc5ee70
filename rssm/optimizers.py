"""The generations' optimisers: one Adam with its own clipping per part (V1, V2), LaProp behind adaptive clipping (V3)."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from reverie.rssm.config import OptimizerConfig
from reverie.rssm.model import Dreamer

_SMALLEST_NORM = 1e-3
"""Norm that an all but zero tensor counts as in adaptive clipping."""


class ClippedAdam(AdamW):
    """Adam whose parameter groups are clipped to the global norm `clip` each."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every group."""
        for group in self.param_groups:
            nn.utils.clip_grad_norm_(group["params"], group["clip"])
        super().step()


class LaProp(Optimizer):
    """RMS scaling, then momentum, both bias-corrected (Ziyin et al. 2020), behind adaptive gradient clipping per tensor."""

    def __init__(
        self,
        groups: list[dict[str, Any]],
        *,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-20,
        clip: float = 0.3,
    ) -> None:
        super().__init__(
            groups, {"lr": 0.0, "beta1": beta1, "beta2": beta2, "epsilon": epsilon, "clip": clip}
        )

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            parameters: list[Tensor] = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self._update(parameters, group)

    def _update(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        states = [self.state[p] for p in parameters]
        for parameter, state in zip(parameters, states, strict=True):
            if not state:
                state["step"] = torch.zeros(())
                state["square"], state["momentum"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
            state["step"] += 1
        squares, momenta = [s["square"] for s in states], [s["momentum"] for s in states]
        counts = [int(s["step"]) for s in states]
        gradients = [p.grad for p in parameters if p.grad is not None]
        clip_adaptively_(parameters, gradients, group["clip"])
        torch._foreach_mul_(squares, group["beta2"])
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - group["beta2"])
        scales = list(torch._foreach_div(squares, [1 - group["beta2"] ** n for n in counts]))
        torch._foreach_sqrt_(scales)
        torch._foreach_add_(scales, group["epsilon"])
        torch._foreach_mul_(momenta, group["beta1"])
        torch._foreach_addcdiv_(momenta, gradients, scales, 1 - group["beta1"])
        rates = [-group["lr"] / (1 - group["beta1"] ** n) for n in counts]
        torch._foreach_add_(parameters, list(torch._foreach_mul(momenta, rates)))


def clip_adaptively_(parameters: list[Tensor], gradients: list[Tensor], clip: float) -> None:
    """Scales gradients in place to norms of at most `clip` times those of their tensors, which count as at least 1e-3 (AGC)."""
    norms = torch._foreach_norm(gradients)
    limits = torch._foreach_norm(parameters)
    torch._foreach_clamp_min_(limits, _SMALLEST_NORM)
    torch._foreach_mul_(limits, clip)
    torch._foreach_div_(norms, limits)
    torch._foreach_clamp_min_(norms, 1.0)
    torch._foreach_div_(gradients, norms)


def make_optimizer(model: Dreamer, config: OptimizerConfig) -> Optimizer:
    """The optimiser over the parameters of `model` that want gradients, in groups named model, actor and critic.

    Call `set_learning_rates` before each step.
    """
    parts: dict[str, tuple[nn.Module, float]] = {
        "model": (model.world_model, config.model_lr),
        "actor": (model.behaviour.actor, config.actor_lr),
        "critic": (model.behaviour.critic, config.critic_lr),
    }
    groups: list[dict[str, Any]] = []
    for name, (module, rate) in parts.items():
        parameters = [p for p in module.parameters() if p.requires_grad]
        if parameters:
            groups.append({"params": parameters, "name": name, "lr": rate, "peak_lr": rate})
    if config.name == "laprop":
        return LaProp(groups, epsilon=config.epsilon, clip=config.clip)
    for group in groups:
        # AdamW multiplies weights by 1 - lr decay; the original's decay does not depend on the rate.
        group |= {"clip": config.clip, "weight_decay": config.weight_decay / group["lr"]}
    return ClippedAdam(groups, eps=config.epsilon)


def set_learning_rates(optimizer: Optimizer, config: OptimizerConfig, step: int) -> None:
    """The rates of update number `step` (from 0): linear warm-up from 0, then constant."""
    warm = min(1.0, step / config.warmup_steps) if config.warmup_steps else 1.0
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * warm
