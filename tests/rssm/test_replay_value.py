"""V3's replay value loss against the original's formulas in float64, gradients included."""

import copy

import numpy as np
import pytest
import torch

from reverie.data.batch import Batch
from reverie.rssm.model import Dreamer
from reverie.rssm.state import State
from tests.rssm.models import known_batch, small_model

LAMBDA, GAMMA = 0.95, 1 - 1 / 333
HALF = np.expm1(np.linspace(20, 0, 128))
BINS = torch.tensor(np.concatenate([-HALF, HALF[:-1][::-1]]))


def critic_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross-entropy to the two bins around the target, by their distances."""
    above = torch.searchsorted(BINS, target.contiguous(), right=True).clamp(1, 254)
    low, high = BINS[above - 1], BINS[above]
    share = ((target - low) / (high - low)).unsqueeze(-1)
    log_p = logits.log_softmax(-1)
    below = log_p.gather(-1, above.unsqueeze(-1) - 1)
    return -((1 - share) * below + share * log_p.gather(-1, above.unsqueeze(-1))).squeeze(-1)


def returns(batch: Batch, boot: torch.Tensor) -> torch.Tensor:
    """(B, T-1): R[t] = r[t+1] + gamma live[t+1] ((1 - c[t+1]) boot[t+1] + c[t+1] R[t+1]), c = lambda (1 - last)."""
    live = GAMMA * (~batch.is_terminal).double()
    trace = LAMBDA * (~batch.is_last).double()
    found, following = [], boot[:, -1]
    for t in reversed(range(boot.shape[1] - 1)):
        mixed = (1 - trace[:, t + 1]) * boot[:, t + 1] + trace[:, t + 1] * following
        following = batch.reward[:, t + 1].double() + live[:, t + 1] * mixed
        found.append(following)
    return torch.stack(found[::-1], 1)


def formula(
    critic: torch.nn.Module, slow: torch.nn.Module, feature: torch.Tensor, batch: Batch, boot: torch.Tensor
) -> torch.Tensor:
    """Weight 1 - last, mean over B (T - 1). The critics are in float64."""
    logits = plain_logits(critic, feature)[:, :-1]
    slow_value = (plain_logits(slow, feature).softmax(-1) * BINS).sum(-1)[:, :-1].detach()
    each = critic_loss(logits, returns(batch, boot)) + critic_loss(logits, slow_value)
    weight = (~batch.is_last[:, :-1]).double()
    return (weight * each).sum() / weight.numel()


def plain_logits(head: torch.nn.Module, feature: torch.Tensor) -> torch.Tensor:
    x = feature.double()
    for layer in head.layers:
        if isinstance(layer, torch.nn.Linear):
            x = layer(x)
        else:
            x = torch.nn.functional.silu(torch.nn.functional.rms_norm(x, x.shape[-1:], layer.gain, 1e-4))
    return x


def episodes() -> Batch:
    """Rows with a terminal, a truncation and an episode that goes on."""
    batch = known_batch(4, 10)
    torch.manual_seed(1)
    batch.reward = torch.randn(4, 10)
    batch.is_last[0, 4] = batch.is_terminal[0, 4] = batch.is_first[0, 5] = True
    batch.is_last[1, 6] = batch.is_first[1, 7] = True
    batch.is_last[1, 2] = batch.is_terminal[1, 2] = batch.is_first[1, 3] = True
    batch.is_last[3, 9] = True
    batch.segment = batch.is_first.long().cumsum(1)
    batch.reward[batch.is_first] = 0
    return batch


@pytest.fixture
def model() -> Dreamer:
    model = small_model("v3").eval()
    for p in model.behaviour.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return model


def doubles(model: Dreamer) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Critic and slow critic in float64."""
    behaviour = model.behaviour
    return copy.deepcopy(behaviour.critic).double(), copy.deepcopy(behaviour.slow.critic).double()


def replay_loss(
    model: Dreamer, batch: Batch, boot: torch.Tensor, valid: torch.Tensor | None = None
) -> tuple[torch.Tensor, State]:
    """The loss, and the states it was computed from."""
    torch.manual_seed(0)
    states, everywhere = model.world_model.infer(batch)
    states = states.map(lambda x: x.detach().requires_grad_())
    valid = everywhere if valid is None else valid
    return model.behaviour._replay_value_loss(model.world_model, states, boot.float(), valid, batch), states


def test_loss_and_gradients_are_the_originals(model: Dreamer) -> None:
    """Of the critic and, through the features, of the world model: targets and slow values are given."""
    batch = episodes()
    boot = torch.randn(4, 10, dtype=torch.float64)
    loss, states = replay_loss(model, batch, boot)
    loss.backward()
    critic, slow = doubles(model)
    feature = torch.cat([states.deter, states.stoch], -1).detach().double().requires_grad_()
    expected = formula(critic, slow, feature, batch, boot)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    expected.backward()
    got = torch.cat([states.deter.grad, states.stoch.grad], -1)
    torch.testing.assert_close(got.double(), feature.grad, rtol=1e-3, atol=1e-6)
    for p, exact in zip(model.behaviour.critic.parameters(), critic.parameters(), strict=True):
        torch.testing.assert_close(p.grad.double(), exact.grad, rtol=1e-3, atol=1e-5)


def test_steps_that_the_original_does_not_know_do_not_count(model: Dreamer) -> None:
    """Unknown rewards, other pieces of video and burn-in: their share of a batch does not shrink the loss."""
    batch, boot = episodes(), torch.randn(4, 10, dtype=torch.float64)
    batch.reward_mask[2:] = False
    valid = torch.ones(4, 10, dtype=torch.bool)
    valid[1] = False
    alone, states = replay_loss(model, batch, boot, valid)
    feature = model.world_model.feature(states).detach()
    row = copy.copy(batch)
    for name in ("reward", "is_last", "is_terminal"):
        setattr(row, name, getattr(batch, name)[:1])
    expected = formula(*doubles(model), feature[:1], row, boot[:1])
    assert alone.item() == pytest.approx(expected.item(), rel=1e-5)
