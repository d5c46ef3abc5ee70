"""No training step asks its device anything: on a GPU every such question waits until all work before it is done."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from reverie.agent.cloning import CloningObjective, CloningObjectiveConfig
from reverie.agent.imagination import ImaginationConfig, ImaginationObjective, Rollout
from reverie.agent.model import Agent, AgentConfig
from reverie.dynamics.model import Dynamics, DynamicsConfig
from reverie.dynamics.objective import DynamicsObjective, DynamicsObjectiveConfig
from reverie.pipelines.training.averaging import WeightAverage
from reverie.pipelines.training.finite import FiniteSteps
from reverie.pipelines.training.metrics import Averages
from reverie.pipelines.training.optimization import OptimizerConfig, make_optimizer
from reverie.tokenizer.model import Tokenizer, TokenizerConfig
from reverie.tokenizer.objective import TokenizerObjective, TokenizerObjectiveConfig
from tests.batches import SPACE, frame_batch, latent_batch, random_actions

aten = torch.ops.aten
CONFIG = DynamicsConfig(latent_shape=(4, 8), width=32, depth=4, context_length=4)
WAITING = {
    aten._local_scalar_dense,
    aten.nonzero,
    aten.masked_select,
    aten._unique2,
    aten.is_nonzero,
    aten.equal,
}


class Refusing(TorchDispatchMode):
    """Raises where an operation's result would have to come to the host: its value, or how large it is.

    Tensors that this would concern on a GPU are those that derive from the batch and the model. What the host decides by
    itself (`relevant`) is asked for before the mode is entered.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.overloadpacket not in WAITING, func
        if func.overloadpacket in (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_):
            assert all(i is None or i.dtype != torch.bool for i in args[1]), f"{func} by a mask"
        return func(*args, **(kwargs or {}))


class OnHost(Tensor):
    """Leaves the mode alone: stands for what is on the host."""

    def nonzero(self) -> Tensor:  # type: ignore[override]
        return torch.tensor([[i] for i, chosen in enumerate(self.rows) if chosen])

    def __invert__(self) -> "OnHost":
        return on_host([not chosen for chosen in self.rows])


def on_host(rows: list[bool]) -> OnHost:
    made = torch.tensor(rows).as_subclass(OnHost)
    made.rows = rows
    return made


def tokenizer() -> tuple[nn.Module, Any]:
    config = TokenizerConfig(
        frame_size=(16, 16), patch_size=4, width=32, encoder_depth=4, decoder_depth=4, bottleneck_tokens=4
    )
    objective = TokenizerObjective(Tokenizer(config), TokenizerObjectiveConfig(lpips_weight=0.0), None)
    return objective, frame_batch(2, 3, 16, 16)


def dynamics(fraction: float) -> tuple[nn.Module, Any]:
    objective = DynamicsObjectiveConfig(bootstrap_fraction=fraction)
    return DynamicsObjective(Dynamics(CONFIG, SPACE), objective), latent_batch(4)


def agent() -> Agent:
    return Agent(Dynamics(CONFIG, SPACE), AgentConfig(head_width=16, prediction_length=3), ["a", "b"])


def cloning() -> tuple[nn.Module, Any]:
    batch = latent_batch(4)
    batch.relevant = on_host(batch.relevant.tolist())
    return CloningObjective(agent(), CloningObjectiveConfig(bootstrap_fraction=0.5)), batch


class Imagined(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.objective = ImaginationObjective(agent(), ImaginationConfig(horizon=5))
        self.model = self.objective.model

    def forward(self, rollout: Rollout) -> tuple[Tensor, dict[str, Tensor]]:
        return self.objective.loss(rollout, torch.tensor([True, False]))


def imagination() -> tuple[nn.Module, Any]:
    rollout = Rollout(
        states=torch.randn(2, 6, 32),
        actions=random_actions(2, 5),
        rewards=torch.randn(2, 5),
        continues=torch.rand(2, 5),
        latents=torch.zeros(2, 5, 4, 8),
    )
    return Imagined(), rollout


MAKE: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    "tokenizer": tokenizer,
    "dynamics": lambda: dynamics(1.0),
    "dynamics, few bootstrap rows": lambda: dynamics(0.3),
    "dynamics, no bootstrap rows": lambda: dynamics(0.0),
    "cloning": cloning,
    "imagination": imagination,
}


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_step_asks_its_device_nothing(name: str, optimizer: str) -> None:
    torch.manual_seed(0)
    objective, batch = MAKE[name]()
    updates = make_optimizer(objective, OptimizerConfig(name=optimizer))
    average = WeightAverage(objective, updates, 0.999)
    finite, averages = FiniteSteps(), Averages()
    refusing: AbstractContextManager[Any] = Refusing()
    with refusing:
        loss, metrics = objective(batch)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
        # AdamW counts its steps on the host unless it is fused, as it is on a GPU, where its step is an operation by itself.
        finite.add(1, metrics | {"gradient_norm": norm}, [""])
        averages.add(metrics)
        average.update(0)
    updates.step()


def test_questions_are_noticed() -> None:
    x = torch.randn(4)
    for ask in (lambda: bool(x.any()), lambda: x[x > 0], lambda: x.nonzero(), lambda: x.max().item()):
        with pytest.raises(AssertionError), Refusing():
            ask()
