"""Policies over mixtures of components, against independent formulas."""

import math

import numpy as np
import pytest
import torch

from reverie.data.actions import ActionSpace, Binary, Categorical, Continuous
from reverie.nn.distributions import ActionDistribution, parameter_count
from reverie.rssm.actions import code_size, decode_actions, encode_actions, explore
from reverie.rssm.policies import BoundedNormal, Keys, OneHot, Policy, TanhNormal, TruncatedNormal
from tests.batches import SPACE, random_actions
from tests.rssm.models import GENERATIONS

RANGES = (TanhNormal, TruncatedNormal, BoundedNormal)
SPACES = (
    ActionSpace({"action": Categorical(6)}),
    ActionSpace({"keys": Binary(4)}),
    ActionSpace({"arm": Continuous(3, -2, 5)}),
    SPACE,
)


def test_actions_survive_their_vectors():
    actions = random_actions(3, 4)
    code = encode_actions(SPACE, actions)
    assert code.shape == (3, 4, code_size(SPACE)) == (3, 4, 10)
    for name, x in decode_actions(SPACE, code).items():
        torch.testing.assert_close(x, actions[name])


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("space", SPACES, ids=lambda s: "+".join(s.components))
def test_every_space_has_samples_log_probs_and_entropies(generation, space):
    torch.manual_seed(0)
    parameters = torch.randn(5, 2, parameter_count(space), requires_grad=True)
    policy = Policy(generation, space, parameters)
    for code in (policy.sample(), policy.mode()):
        assert code.shape == (5, 2, code_size(space))
        actions = {name: x.detach().numpy() for name, x in decode_actions(space, code).items()}
        space.check({name: x.reshape(10, *x.shape[2:]) for name, x in actions.items()}, 10, "policy")
        assert policy.log_prob(code).shape == policy.entropy().shape == (5, 2)
    (gradient,) = torch.autograd.grad(policy.sample().square().sum() + policy.sample().sum(), parameters)
    assert gradient.abs().max() > 0  # samples are differentiable in all generations


def test_v3_agrees_with_the_distributions_of_dreamer_4():
    torch.manual_seed(0)
    parameters, actions = torch.randn(3, 4, parameter_count(SPACE)), random_actions(3, 4)
    ours, other = Policy("v3", SPACE, parameters), ActionDistribution(SPACE, parameters)
    torch.testing.assert_close(ours.log_prob(encode_actions(SPACE, actions)), other.log_prob(actions))
    torch.testing.assert_close(ours.entropy(), other.entropy())
    for name, x in decode_actions(SPACE, ours.mode()).items():
        torch.testing.assert_close(x, other.mode()[name])


@pytest.mark.parametrize("raw", [(0.0, 0.0), (0.7, -3.0), (-2.0, 1.0)])
def test_densities_on_the_interval_integrate_to_their_mass(raw):
    """All of it for V2; for V1, whose Normal is wide, what lies within the grid."""
    x = torch.tanh(torch.linspace(-7, 7, 200_001, dtype=torch.float64))
    parameters = torch.tensor([raw], dtype=torch.float64).expand(len(x), 2)
    tanh, cut = TanhNormal(parameters), TruncatedNormal(parameters)
    normal = torch.distributions.Normal(tanh.mean[0], tanh.std[0])
    inside = (normal.cdf(torch.tensor(7.0)) - normal.cdf(torch.tensor(-7.0))).item()
    for distribution, mass in ((tanh, inside), (cut, 1.0)):
        density = distribution.log_prob(x[:, None]).exp().numpy()
        assert np.trapezoid(density, x.numpy()) == pytest.approx(mass, abs=1e-3)


@pytest.mark.parametrize("family", RANGES)
def test_samples_follow_the_density(family):
    """The mean of ln p over samples is minus the entropy; V1 estimates its own, the others have formulas."""
    torch.manual_seed(0)
    one = torch.tensor([[0.4, -0.5]])
    many = family(one.expand(50_000, 2))
    estimate = -many.log_prob(many.sample()).mean().item()
    assert family(one).entropy().item() == pytest.approx(estimate, abs=0.4 if family is TanhNormal else 0.02)


def test_truncated_samples_have_a_gradient_that_raises_the_mean():
    torch.manual_seed(0)
    raw = torch.zeros(20_000, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(TruncatedNormal(raw).sample().sum() / 20_000, raw)
    shift = 1e-2
    torch.manual_seed(0)
    moved = TruncatedNormal(torch.tensor([[shift, 0.0]]).expand(20_000, 2)).sample().mean()
    torch.manual_seed(0)
    base = TruncatedNormal(torch.zeros(20_000, 2)).sample().mean()
    assert gradient[:, 0].sum().item() == pytest.approx(((moved - base) / shift).item(), rel=0.05)


def test_tanh_mode_is_likelier_than_samples():
    torch.manual_seed(0)
    distribution = TanhNormal(torch.tensor([[0.3, -6.0]]))
    mode = distribution.mode()
    likelier = [
        (distribution.log_prob(mode) >= distribution.log_prob(distribution.sample())) for _ in range(50)
    ]
    assert torch.stack(likelier).float().mean() > 0.9


def test_straight_through_gradients_of_classes_and_keys():
    torch.manual_seed(0)
    for factor, probability in ((OneHot, lambda x: x.softmax(-1)), (Keys, torch.sigmoid)):
        logits, weight = torch.randn(6, 3, requires_grad=True), torch.randn(6, 3)
        sample = factor(logits).sample()
        assert set(sample.detach().unique().tolist()) <= {0.0, 1.0}
        got = torch.autograd.grad((sample * weight).sum(), logits)
        torch.testing.assert_close(got, torch.autograd.grad((probability(logits) * weight).sum(), logits))


def test_frequencies_of_classes_and_keys():
    torch.manual_seed(0)
    logits = torch.tensor([[0.0, 1.0, -1.0]])
    many = logits.expand(20_000, 3)
    torch.testing.assert_close(OneHot(many).sample().mean(0), logits.softmax(-1)[0], atol=0.015, rtol=0)
    torch.testing.assert_close(Keys(many).sample().mean(0), logits.sigmoid()[0], atol=0.015, rtol=0)


def test_exploration_changes_its_share():
    torch.manual_seed(0)
    code = Policy("v1", SPACE, torch.zeros(4000, parameter_count(SPACE))).mode()
    assert explore(SPACE, code, 0.0) is code
    moved = explore(SPACE, code, 0.3)
    keys, mouse, arm = (moved - code).split([3, 5, 2], dim=-1)
    assert (keys != 0).float().mean().item() == pytest.approx(0.15, abs=0.02)
    assert (mouse != 0).any(-1).float().mean().item() == pytest.approx(0.3 * 4 / 5, abs=0.02)
    inside = (arm + code[:, 8:]).abs() < 1
    assert 0.1 < arm[inside].std().item() < 0.31
    assert math.isclose(moved.abs().max().item(), 1.0)


@pytest.mark.parametrize("family", [TruncatedNormal, BoundedNormal])
def test_the_mode_of_ranges_is_likelier_than_its_neighbours(family):
    one = family(torch.tensor([[0.4, -0.5]], dtype=torch.float64))
    nearby = [one.log_prob(one.mode() + shift) for shift in (-0.05, 0.05)]
    assert all(one.log_prob(one.mode()) > x for x in nearby)
