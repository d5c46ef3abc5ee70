"""Lambda-returns and PMPO against published and hand-computed values."""

import math

import pytest
import torch

from reverie.agent.returns import lambda_returns, pmpo_loss


@pytest.mark.parametrize(
    "continues,expected",
    [([1.0, 1.0, 1.0], [33.274225, 36.695, 39.0]), ([1.0, 0.0, 1.0], [3.61, 2.0, 39.0])],
)
def test_lambda_returns_match_worked_values(continues, expected):
    """r = [1, 2, 3] on arriving, v = [10, 20, 30, 40], gamma .9, lambda .95; with and without an end at t = 2."""
    out = lambda_returns(
        torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64),
        torch.tensor([continues], dtype=torch.float64),
        torch.tensor([[10.0, 20.0, 30.0, 40.0]], dtype=torch.float64),
        discount=0.9,
        lambda_=0.95,
    )
    assert out[0].tolist() == pytest.approx(expected)


def test_lambda_one_is_the_discounted_sum_and_zero_one_step():
    rewards, values = torch.rand(3, 6), torch.rand(3, 7)
    ones = torch.ones(3, 6)
    full = lambda_returns(rewards, ones, values, discount=0.9, lambda_=1.0)
    powers = 0.9 ** torch.arange(6)
    torch.testing.assert_close(full[:, 0], (rewards * powers).sum(1) + 0.9**6 * values[:, -1])
    one = lambda_returns(rewards, ones, values, discount=0.9, lambda_=0.0)
    torch.testing.assert_close(one, rewards + 0.9 * values[:, 1:])


def test_pmpo_by_hand():
    """alpha .5, beta .3; D+ = {-1, -3}, D- = {-2}: .5 * -2 - .5 * -2 + .3 * mean(KL)."""
    log_prob = torch.tensor([-1.0, -2.0, -3.0])
    advantage = torch.tensor([0.5, -0.01, 0.0])
    kl = torch.tensor([0.1, 0.2, 0.6])
    loss = pmpo_loss(log_prob, advantage, kl, torch.ones(3))
    assert loss.item() == pytest.approx(0.5 * -2 - 0.5 * (-1 - 3) / 2 + 0.3 * 0.3)


def test_only_the_sign_of_the_advantage_counts():
    log_prob, kl, weight = torch.randn(5), torch.rand(5), torch.ones(5)
    advantage = torch.randn(5)
    small, large = (pmpo_loss(log_prob, advantage * s, kl, weight) for s in (1e-3, 1e3))
    assert torch.equal(small, large)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_empty_sets_contribute_zero(sign):
    log_prob = torch.tensor([-1.0, -2.0])
    loss = pmpo_loss(log_prob, torch.full((2,), sign), torch.zeros(2), torch.ones(2))
    assert loss.item() == pytest.approx(0.75 if sign > 0 else -0.75)


def test_states_of_zero_weight_do_not_count():
    a = pmpo_loss(
        torch.tensor([-1.0, -9.0]), torch.ones(2), torch.tensor([0.2, 9.0]), torch.tensor([1.0, 0.0])
    )
    b = pmpo_loss(torch.tensor([-1.0]), torch.ones(1), torch.tensor([0.2]), torch.ones(1))
    torch.testing.assert_close(a, b)


def test_pmpo_and_the_prior_pull_as_they_should():
    """On a bandit the optimum is a compromise between the advantage's sign and the prior."""
    logits = torch.zeros(3, requires_grad=True)
    prior = torch.log_softmax(torch.tensor([0.0, 0.0, 0.0]), 0)
    advantage = torch.tensor([1.0, -1.0, -1.0])
    optimizer = torch.optim.Adam([logits], 0.05)
    for _ in range(400):
        log_p = logits.log_softmax(0)
        kl = (log_p.exp() * (log_p - prior)).sum().expand(3)
        optimizer.zero_grad()
        pmpo_loss(log_p, advantage, kl, torch.ones(3)).backward()
        optimizer.step()
    p = logits.softmax(0)
    assert p[0] > 0.8 and math.isclose(p[1], p[2], abs_tol=1e-3)
