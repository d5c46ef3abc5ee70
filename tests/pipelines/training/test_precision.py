"""`fabric.precision` reaches the products of the forward pass, and a loss is float32 in any precision."""

import pytest
import torch
from torch import nn

from reverie.agent.cloning import CloningObjective, CloningObjectiveConfig
from reverie.agent.model import Agent, AgentConfig
from reverie.dynamics.model import Dynamics, DynamicsConfig
from reverie.dynamics.objective import DynamicsObjective, DynamicsObjectiveConfig
from reverie.pipelines.training import loop as training
from reverie.rssm.model import DreamerObjective
from tests.batches import SPACE, latent_batch
from tests.rssm.models import GENERATIONS, known_batch, small_model

CPU = torch.device("cpu")


class Arithmetic(nn.Module):
    """Says in which type a product is computed."""

    def forward(self, batch):
        return torch.ones(2, 2) @ torch.ones(2, 2), {}


@pytest.mark.parametrize(
    ("precision", "preferred", "expected"),
    [
        ("auto", True, torch.bfloat16),
        ("auto", False, torch.float32),
        ("bf16-mixed", False, torch.bfloat16),
        ("32-true", True, torch.float32),
    ],
)
def test_the_forward_pass_follows(monkeypatch, precision, preferred, expected):
    monkeypatch.setattr("reverie.nn.precision.prefers_bfloat16", lambda device: preferred)
    out, _ = training.forward(Arithmetic(), latent_batch(), CPU, precision)
    assert out.dtype == expected


def _dynamics() -> Dynamics:
    torch.manual_seed(0)
    return Dynamics(DynamicsConfig(latent_shape=(4, 8), width=32, depth=4, context_length=4), SPACE)


def _objectives():
    agent = Agent(_dynamics(), AgentConfig(head_width=16, prediction_length=2), ["a", "b"])
    yield "dynamics", DynamicsObjective(_dynamics(), DynamicsObjectiveConfig()), latent_batch()
    yield "clone", CloningObjective(agent, CloningObjectiveConfig()), latent_batch()
    for generation in GENERATIONS:
        yield generation, DreamerObjective(small_model(generation)), known_batch()


@pytest.mark.parametrize("name", ["dynamics", "clone", *GENERATIONS])
def test_losses_and_gradients_are_float32_and_close_to_those_of_float32(name):
    objective, batch = next((o, b) for n, o, b in _objectives() if n == name)
    losses = {}
    for precision in ("32-true", "bf16-mixed"):
        torch.manual_seed(1)
        loss, metrics = training.forward(objective, batch, CPU, precision)
        losses[precision] = loss.detach()
        assert loss.dtype == torch.float32
        assert all(x.dtype == torch.float32 for k, x in metrics.items() if k.startswith("loss"))
    loss.backward()
    assert all(p.grad.dtype == torch.float32 for p in objective.parameters() if p.grad is not None)
    assert torch.allclose(losses["bf16-mixed"], losses["32-true"], rtol=0.05)
