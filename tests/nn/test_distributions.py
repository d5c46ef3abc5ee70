"""Action distributions against torch.distributions and Monte Carlo, for every kind of component."""

import torch
from torch import distributions as td

from reverie.data.actions import ActionSpace, Binary, Categorical, Continuous
from reverie.nn.distributions import ActionDistribution, parameter_count

SPACE = ActionSpace({"keys": Binary(3), "mouse": Categorical(5), "arm": Continuous(2, -2.0, 4.0)})


def make(*leading, seed=0):
    torch.manual_seed(seed)
    return ActionDistribution(SPACE, torch.randn(*leading, parameter_count(SPACE)))


def factors(distribution):
    mean, raw = distribution.parameters["arm"].chunk(2, -1)
    return (
        td.Independent(td.Bernoulli(logits=distribution.parameters["keys"]), 1),
        td.Categorical(logits=distribution.parameters["mouse"]),
        td.Independent(td.Normal(mean.tanh(), 0.9 * torch.sigmoid(raw + 2) + 0.1), 1),
    )


def test_log_prob_entropy_and_kl_match_torch():
    p, q = make(7), make(7, seed=1)
    actions = p.sample()
    keys, mouse, arm = factors(p)
    scaled = (actions["arm"] + 2) / 3 - 1
    expected = (
        keys.log_prob(actions["keys"].float()) + mouse.log_prob(actions["mouse"]) + arm.log_prob(scaled)
    )
    torch.testing.assert_close(p.log_prob(actions), expected)
    torch.testing.assert_close(p.entropy(), sum(f.entropy() for f in factors(p)))
    expected_kl = sum(td.kl_divergence(a, b) for a, b in zip(factors(p), factors(q), strict=True))
    torch.testing.assert_close(p.kl(q), expected_kl)
    torch.testing.assert_close(p.kl(p), torch.zeros(7))


def test_sampling_frequencies():
    p = make(1)
    many = ActionDistribution(SPACE, torch.cat(list(p.parameters.values()), -1).expand(50_000, -1))
    actions = many.sample(torch.Generator().manual_seed(0))
    keys, mouse, arm = factors(p)
    torch.testing.assert_close(actions["keys"].float().mean(0), keys.mean[0], atol=0.01, rtol=0)
    frequency = torch.bincount(actions["mouse"], minlength=5) / 50_000
    torch.testing.assert_close(frequency, mouse.probs[0], atol=0.01, rtol=0)
    torch.testing.assert_close(((actions["arm"] + 2) / 3 - 1).mean(0), arm.mean[0], atol=0.02, rtol=0)


def test_mode_and_shapes():
    p = make(2, 3)
    mode = p.mode()
    assert mode["keys"].shape == (2, 3, 3) and mode["keys"].dtype == torch.bool
    assert torch.equal(mode["mouse"], p.parameters["mouse"].argmax(-1))
    assert mode["arm"].shape == (2, 3, 2) and mode["arm"].min() >= -2 and mode["arm"].max() <= 4
