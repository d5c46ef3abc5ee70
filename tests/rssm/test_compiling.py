"""Compiled recurrences: whole graphs, as many for a long run as for its first steps, the same samples, losses and gradients."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from reverie.nn.compilation import cannot_compile
from reverie.rssm.compiling import compile_steps
from reverie.rssm.model import DreamerObjective, Phase
from tests.graphs import num_graphs
from tests.rssm.models import known_batch, small_model

ACTORS = {"v1": "dynamics", "v2": "both", "v3": "reinforce"}


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def learned(
    generation: str, backend: str | None, phase: Phase = "joint", members: int = 1, steps: int = 3
) -> tuple[list[Tensor], list[int]]:
    """Losses and gradients of every step, and the graphs that there were after each."""
    model = small_model(generation, actor_gradient=ACTORS[generation], prior_members=members)
    if backend is not None:
        compile_steps(model, required=True, backend=backend)
    objective, results, graphs = DreamerObjective(model, phase), [], []
    for step in range(steps):
        batch = known_batch(seed=step)
        torch.manual_seed(step)
        objective.zero_grad()
        loss, _ = objective(batch)
        loss.backward()
        results.append(loss.detach())
        results += [p.grad.clone() for p in objective.parameters() if p.grad is not None]
        graphs.append(num_graphs())
    return results, graphs


@pytest.mark.parametrize(
    ("generation", "phase", "members"),
    [
        ("v3", "joint", 1),
        pytest.param("v1", "joint", 1, marks=pytest.mark.slow),
        pytest.param("v2", "joint", 1, marks=pytest.mark.slow),
        pytest.param("v2", "behaviour", 3, marks=pytest.mark.slow),
    ],
)
def test_steps_are_whole_graphs_that_serve_a_run(generation: str, phase: Phase, members: int) -> None:
    """Of an ensemble of priors, one graph serves all members."""
    plain, _ = learned(generation, None, phase, members)
    before = num_graphs()
    compiled, graphs = learned(generation, "eager", phase, members)
    assert len(plain) == len(compiled)
    for a, b in zip(plain, compiled, strict=True):
        torch.testing.assert_close(b, a, atol=1e-5, rtol=1e-4)
    assert graphs[0] == graphs[-1] and 2 <= graphs[0] - before <= 4


@pytest.mark.slow
@pytest.mark.parametrize("generation", ["v1", "v2", "v3"])
def test_generated_code_draws_and_learns_the_same(generation: str) -> None:
    if reason := cannot_compile(torch.device("cpu")):
        pytest.skip(reason)
    plain, compiled = learned(generation, None)[0], learned(generation, "inductor")[0]
    for a, b in zip(plain, compiled, strict=True):
        assert (a - b).abs().max() <= 1e-3 * a.abs().max().clamp_min(1e-6)


def test_a_player_takes_single_frames_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """One row more or less would be another graph, and seconds."""
    model = small_model("v3")
    monkeypatch.setattr(model.world_model.core, "observed_step", None)
    batch = known_batch(t=1)
    assert batch.frames is not None
    with torch.no_grad():
        states, _ = model.world_model.infer(batch)
    assert states.deter.shape[:2] == (3, 1)
