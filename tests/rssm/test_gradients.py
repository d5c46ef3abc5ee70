"""Gradients of V2's actor, online and offline, against its formulas in float64 (`tests.rssm.plain`)."""

import pytest
import torch

from reverie.rssm.cores import LayerNormCore
from reverie.rssm.imagination import disagreement
from reverie.rssm.model import Dreamer
from reverie.rssm.policies import TruncatedNormal
from reverie.rssm.state import State
from tests.rssm.models import known_batch, small_model
from tests.rssm.plain import actor_gradient, recorded, truncated_slopes

PENALTIES = ("meandis", "log_prob_ens", "mixstd")


def unsettled(**behaviour: object) -> Dreamer:
    """V2 with three prior heads that disagree, and heads and a policy with opinions."""
    model = small_model("v2", prior_members=3, **behaviour)
    world = model.world_model
    for module in (world.reward_head, world.continue_head, world.core.priors, model.behaviour):
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def gradients(model: Dreamer) -> tuple[torch.Tensor, torch.Tensor]:
    """The actor's gradient as the code has it, and as the formulas do, flat."""
    batch = known_batch()
    batch.is_terminal[1, -1] = True
    torch.manual_seed(0)
    states, valid = model.world_model.infer(batch)
    draws = recorded(model, states.detach().flatten(), seed=5)
    torch.manual_seed(5)
    model.behaviour.loss(model.world_model, states, valid, batch).loss.backward()
    got = torch.cat([p.grad.flatten() for p in model.behaviour.actor.parameters()]).double()
    return got, actor_gradient(model, states.detach().flatten(), draws, batch)


def assert_same_gradient(model: Dreamer) -> None:
    got, expected = gradients(model)
    assert torch.nn.functional.cosine_similarity(got, expected, dim=0) > 1 - 1e-6
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize("penalty", PENALTIES)
def test_the_actor_feels_the_penalty_through_the_dynamics(penalty: str) -> None:
    model = unsettled(actor_gradient="dynamics", penalty=penalty, penalty_scale=10.0)
    assert_same_gradient(model)
    assert all(p.grad is None for p in model.world_model.parameters())


def test_reinforce_pays_the_penalty_without_a_gradient_through_it() -> None:
    assert_same_gradient(unsettled(actor_gradient="reinforce", penalty="meandis", penalty_scale=10.0))


@pytest.mark.parametrize("share", [0.1, 0.9])
def test_the_mixture_takes_classes_and_keys_as_given_in_ln_pi(share: float) -> None:
    """Ranges are not: their sample's gradient enters ln pi, as released."""
    assert_same_gradient(unsettled(actor_gradient="both", dynamics_share=share))


@pytest.mark.parametrize("gradient", ["exact", "released"])
def test_dynamics_through_truncated_samples(gradient: str) -> None:
    assert_same_gradient(unsettled(actor_gradient="dynamics", truncated_gradient=gradient))


def test_gradients_of_truncated_samples() -> None:
    """Exact: at a fixed level of the distribution function; released: (1, z)."""
    for gradient in ("exact", "released"):
        torch.manual_seed(0)
        raw = torch.randn(500, 2, dtype=torch.float64, requires_grad=True)
        distribution = TruncatedNormal(raw, gradient)
        distribution.mean.retain_grad()
        distribution.std.retain_grad()
        x = distribution.sample()
        x.sum().backward()
        mean, std = distribution.mean.detach(), distribution.std.detach()
        slopes = truncated_slopes(mean, std, x.detach())
        if gradient == "released":
            slopes = torch.ones_like(x), ((x - mean) / std).detach()
        inside = x.abs() < 1 - 1e-5
        torch.testing.assert_close(distribution.std.grad[inside], slopes[1][inside], rtol=1e-4, atol=1e-6)
        if gradient == "released":
            torch.testing.assert_close(distribution.mean.grad, slopes[0])
        else:
            torch.testing.assert_close(
                distribution.mean.grad[inside], slopes[0][inside], rtol=1e-4, atol=1e-6
            )


def test_certain_and_equal_priors_have_finite_gradients() -> None:
    """Probabilities of exactly 0 and 1, and members without a difference, are corners of all three penalties."""
    core = unsettled().world_model.core
    assert isinstance(core, LayerNormCore)
    for head in core.priors:
        head[-1].weight.data.mul_(1e3)
        head.load_state_dict(core.priors[0].state_dict())
    for penalty in PENALTIES:
        h = torch.randn(5, 32, requires_grad=True)
        z = torch.nn.functional.one_hot(torch.zeros(5, 4, dtype=torch.int64), 3).float().flatten(1)
        disagreement(core, State(h, z), penalty).sum().backward()
        assert torch.isfinite(h.grad).all()
