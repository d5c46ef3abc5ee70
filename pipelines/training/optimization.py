"""AdamW or Muon with warm-up and decay, the same for every stage."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from reverie.nn.transformer import Layer
from reverie.pipelines.training.muon import Muon


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimiser and its learning rate over time."""

    name: Literal["adamw", "muon"] = "adamw"
    """adamw, or muon: Muon (orthogonalised momentum, Jordan 2024) for the transformer layers' matrices and AdamW for all else.
    Muon learns more per step."""
    lr: float = 3e-4
    """Peak learning rate."""
    warmup_steps: int = 100
    """Steps over which the learning rate rises linearly from 0."""
    decay: Literal["constant", "linear", "cosine"] = "cosine"
    """How the learning rate falls from its peak to `final_lr_fraction` at the last step."""
    final_lr_fraction: float = 0.1
    """Learning rate at the end over the peak."""
    weight_decay: float = 0.01
    """Decoupled weight decay of the matrices of linear layers; embeddings, gains and tokens have none."""
    beta1: float = 0.9
    """Decay of the gradient's average."""
    beta2: float = 0.95
    """Decay of the squared gradient's average."""
    clip_norm: float = 1.0
    """Gradients are scaled down to this global norm."""

    def __post_init__(self) -> None:
        if self.lr <= 0 or self.clip_norm <= 0:
            raise ValueError(
                f"optimizer.lr {self.lr} and optimizer.clip_norm {self.clip_norm} must be positive"
            )
        if not 0 <= self.final_lr_fraction <= 1:
            raise ValueError(f"optimizer.final_lr_fraction must lie in [0, 1], got {self.final_lr_fraction}")


class MuonAdamW(Optimizer):
    """Muon for `matrices` and AdamW for the other groups, with one list of groups and one state."""

    def __init__(
        self, matrices: list[nn.Parameter], groups: list[dict[str, Any]], config: OptimizerConfig
    ) -> None:
        # Both scale updates to AdamW's usual size and so share one learning rate.
        self._muon = Muon(matrices, lr=config.lr, weight_decay=config.weight_decay)
        self._adamw = AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), fused=True)
        super().__init__(self._muon.param_groups + self._adamw.param_groups, {})
        self._muon.state = self._adamw.state = self.state

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of all parameters."""
        self._muon.step()
        self._adamw.step()


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> Optimizer:
    """The optimiser over the parameters of `model` that want gradients."""
    trained = [p for p in model.parameters() if p.requires_grad]
    if config.name == "muon":
        hidden = _hidden_matrices(model)
        if hidden:
            chosen = {id(p) for p in hidden}
            rest = [p for p in trained if id(p) not in chosen]
            return MuonAdamW(hidden, _adamw_groups(model, rest, config), config)
    groups = _adamw_groups(model, trained, config)
    return AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), fused=True)


def _adamw_groups(
    model: nn.Module, parameters: list[nn.Parameter], config: OptimizerConfig
) -> list[dict[str, Any]]:
    """`parameters` with weight decay if they are a linear layer's matrix, without it else."""
    matrices = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    groups = [
        {"params": [p for p in parameters if id(p) in matrices], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if id(p) not in matrices], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    layers = (m for m in model.modules() if isinstance(m, Layer))
    return [p for layer in layers for p in layer.parameters() if p.dim() == 2 and p.requires_grad]


def learning_rate(step: int, steps: int, config: OptimizerConfig) -> float:
    """The rate of step number `step` (from 0) out of `steps`: a pure function, so that nothing has to be saved."""
    warm = min(1.0, (step + 1) / max(config.warmup_steps, 1))
    done = min(max((step - config.warmup_steps) / max(steps - config.warmup_steps, 1), 0.0), 1.0)
    shape = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[config.decay]
    return config.lr * warm * (config.final_lr_fraction + (1 - config.final_lr_fraction) * shape)


def set_learning_rate(optimizer: Optimizer, value: float) -> None:
    """Sets the rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = value
