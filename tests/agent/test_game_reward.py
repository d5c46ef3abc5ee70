"""A game's own reward: of any size and sign, in episodes that end for good or are cut."""

import pytest
import torch

from reverie.agent.cloning import CloningObjective, CloningObjectiveConfig
from reverie.agent.imagination import ImaginationConfig, ImaginationObjective, Rollout, discount_for
from reverie.agent.model import Agent, AgentConfig
from reverie.data.batch import RETURN
from reverie.dynamics.model import Dynamics, DynamicsConfig
from reverie.nn.twohot import twohot_mean
from tests.batches import SPACE, latent_batch

CONFIG = DynamicsConfig(latent_shape=(4, 8), width=32, depth=4, context_length=4)


def make(tasks: list[str] | None = None) -> Agent:
    torch.manual_seed(0)
    return Agent(Dynamics(CONFIG, SPACE), AgentConfig(head_width=16, prediction_length=3), tasks or [RETURN])


@pytest.mark.parametrize("scale", [1e-2, -1.0, -60.0, 1e3])
def test_the_critic_learns_returns_of_any_size_and_sign(scale: float) -> None:
    """Two kinds of states, of which one pays `scale` a step and the other twice that, without end: v = r / (1 - gamma)."""
    agent = make()
    objective = ImaginationObjective(agent, ImaginationConfig(horizon=12, discount=0.97))
    optimizer = torch.optim.Adam(agent.value_head.parameters(), 6e-3)
    kind = torch.arange(2)
    states = torch.randn(2, 32)[kind, None].expand(-1, 13, -1)
    rewards = (scale * (1.0 + kind.float()))[:, None].expand(-1, 12)
    with torch.no_grad():
        actions = agent.act(states[:, :-1]).sample()
    rollout = Rollout(states, actions, rewards, torch.ones(2, 12), torch.zeros(0))
    for _ in range(400):
        loss = objective.loss(rollout, torch.ones(2, dtype=torch.bool))[0]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = twohot_mean(agent.value_head.nearest(states[:2, 0]))
    torch.testing.assert_close(found, scale / 0.03 * torch.tensor([1.0, 2.0]), rtol=0.15, atol=0)


def continue_loss(**flags: bool) -> float:
    """Loss of the continue head of an agent that is sure that all goes on, with the flags at the last frame."""
    agent = make()
    torch.nn.init.constant_(agent.continue_head.out.bias, 5.0)
    batch = latent_batch(t=6)
    batch.task[:], batch.segment[:], batch.reward_mask[:] = 0, 0, True
    for name, value in flags.items():
        flag = torch.zeros_like(batch.segment, dtype=torch.bool)
        flag[:, -1] = value
        setattr(batch, name, flag)
    torch.manual_seed(1)
    return CloningObjective(agent, CloningObjectiveConfig())(batch)[1]["loss/continue"].item()


def test_an_episode_that_was_cut_goes_on_for_the_continue_head() -> None:
    assert continue_loss(is_last=True) == pytest.approx(0.0067, abs=1e-3)
    assert continue_loss(is_last=True, is_terminal=True) > 0.5


def test_an_episode_that_was_cut_is_imagined_on_and_one_that_ended_is_not() -> None:
    agent, context = make(), latent_batch()
    objective = ImaginationObjective(agent, ImaginationConfig(horizon=4))
    states = torch.randn(4, 5, 32)
    with torch.no_grad():
        actions = agent.act(states[:, :-1]).sample()
    rollout = Rollout(states, actions, torch.full((4, 4), -7.0), torch.ones(4, 4), torch.zeros(0))
    context.task[:] = 0
    running = objective(context, rollout)[1]
    context.is_last, context.is_terminal = context.is_last.clone(), context.is_terminal.clone()
    context.is_last[:, -1] = True
    torch.testing.assert_close(objective(context, rollout)[1], running)
    context.is_terminal[:, -1] = True
    assert objective(context, rollout)[1]["loss/value"] == 0 != running["loss/value"]


@pytest.mark.parametrize(
    ("frames", "discount"), [(1, 0.97), (20, 0.97), (50, 0.98), (200, 0.995), (18_000, 0.997)]
)
def test_the_discount_follows_from_the_length_of_the_episodes(frames: float, discount: float) -> None:
    assert discount_for(frames) == pytest.approx(discount)


def test_an_agent_plays_for_its_last_task_and_for_the_return_where_it_has_no_other() -> None:
    assert make(["door", "goal", RETURN]).default_task == "goal"
    assert make([RETURN]).default_task == RETURN
    assert make([RETURN]).task_index(RETURN) == 0
