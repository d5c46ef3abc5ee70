"""Agent finetuning: which rows and steps carry which loss."""

from dataclasses import replace

import pytest
import torch

from reverie.agent.cloning import CloningObjective, CloningObjectiveConfig
from reverie.agent.model import Agent, AgentConfig
from reverie.data.errors import UserError
from reverie.dynamics.model import Dynamics, DynamicsConfig
from tests.batches import SPACE, latent_batch

CONFIG = DynamicsConfig(latent_shape=(4, 8), width=32, depth=4, context_length=4)


def make(length=3):
    torch.manual_seed(0)
    agent = Agent(Dynamics(CONFIG, SPACE), AgentConfig(head_width=16, prediction_length=length), ["a", "b"])
    return CloningObjective(agent, CloningObjectiveConfig(context_level_fraction=1.0))


def head_gradient(objective, batch, head):
    objective.zero_grad()
    torch.manual_seed(3)
    objective(batch)[0].backward()
    return sum(
        0.0 if p.grad is None else p.grad.abs().sum().item()
        for p in getattr(objective.model, head).parameters()
    )


def test_cloning_uses_the_relevant_rows_only():
    objective, batch = make(), latent_batch()
    batch.relevant[:] = False
    assert head_gradient(objective, batch, "policy") == 0
    batch.relevant[:] = True
    assert head_gradient(objective, batch, "policy") > 0


def test_video_loss_uses_the_uniform_rows_only():
    objective, batch = make(), latent_batch()
    assert "loss/video" in objective(batch)[1]
    batch.relevant[:] = True
    assert "loss/video" not in objective(batch)[1]


def test_masked_actions_and_rewards_carry_no_loss():
    objective, batch = make(), latent_batch()
    batch.action_mask[:], batch.reward_mask[:] = False, False
    metrics = objective(batch)[1]
    assert metrics["loss/policy"] == metrics["loss/reward"] == metrics["loss/continue"] == 0
    torch.testing.assert_close(metrics["loss"], metrics["loss/video"])  # the sum as it is, over no RMS


def test_targets_stop_at_segment_ends_and_are_the_right_ones():
    """A policy that always answers with the true next actions, read from the objective's own bookkeeping, has known loss."""
    objective, batch = make(length=2), latent_batch(b=2, t=6)
    batch.relevant[:], batch.action_mask[:] = True, True
    batch.segment = torch.tensor([[0, 0, 0, 1, 1, 1]] * 2)
    seen = []

    class Spy:
        def add(self, values, mask):
            seen.append((values.detach(), mask))

    parameters = torch.zeros(2, 6, 3 + 5 + 4)
    parameters[:, :, 3:8] = torch.nn.functional.one_hot(batch.actions["mouse"].roll(-1, 1), 5) * 100.0
    objective._add_policy_loss(Spy(), parameters, batch, 1)
    values, mask = seen[0]
    # frames 0, 1 | 3, 4 predict the next action of their own segment; frame 2 would cross, frame 5 has no next
    assert mask.tolist() == [[True, True, False, True, True]] * 2
    rest = 3 * torch.log(torch.tensor(2.0))  # three keys at even odds
    scaled = (batch.actions["arm"][:, 1:] + 2) / 2 - 1
    std = 0.9 * torch.sigmoid(torch.tensor(2.0)) + 0.1
    arm = -torch.distributions.Normal(0.0, std).log_prob(scaled).sum(-1)
    torch.testing.assert_close(values[mask], (rest + arm)[mask])


def test_reward_head_learns_at_every_distance():
    """After fitting one batch the reward head knows r[t] ... r[t+2] within a segment."""
    objective, batch = make(), latent_batch(b=2, t=8)
    batch.reward_mask[:] = True
    optimizer = torch.optim.Adam(objective.parameters(), 3e-3)
    for step in range(150):
        torch.manual_seed(step)
        optimizer.zero_grad()
        loss, metrics = objective(batch)
        loss.backward()
        optimizer.step()
    assert metrics["loss/reward"] < 0.7  # from ln 255 = 5.54


def test_unknown_task_is_named():
    with pytest.raises(UserError, match="--task c: this agent knows the tasks a, b"):
        make().model.task_index("c")


def test_no_task_has_an_embedding_of_its_own():
    agent = make().model
    tokens = agent.agent_tokens(torch.tensor([[0, 1, -1]]))
    assert torch.equal(tokens[0, 2, 0], agent.task_embedding[2])


def test_null_actions_may_be_left_out_of_the_policy_loss_only():
    objective, batch = make(length=1), latent_batch(b=4, t=8)
    batch.action_mask[:] = True
    for name, null in SPACE.null(4).items():
        batch.actions[name][:, 3] = null
        batch.actions[name][:, 6] = null
    batch.actions["mouse"][:, 6] = 1  # one component acts
    seen, losses = [], []

    class Spy:
        def add(self, values, mask):
            seen.append(mask)

    for mask_null in (False, True):
        objective.config = replace(objective.config, mask_null_actions=mask_null)
        objective._add_policy_loss(Spy(), torch.zeros(4, 8, 3 + 5 + 4), batch, 1)
        torch.manual_seed(1)
        losses.append(objective(batch)[1])
    # Column t - 1 carries the loss for the action that leads to frame t.
    assert (seen[0] != seen[1]).nonzero().tolist() == [[row, 2] for row in range(4) if batch.relevant[row]]
    assert losses[0]["loss/policy"] != losses[1]["loss/policy"]
    for name in ("loss/video", "loss/reward", "loss/continue"):
        assert losses[0][name] == losses[1][name]
