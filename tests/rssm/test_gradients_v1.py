"""The gradient of V1's actor through Gaussian dynamics against its formulas (danijar/dreamer), in float64."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor

from reverie.data.batch import Batch
from reverie.rssm.imagination import Rollout, imagine
from reverie.rssm.model import Dreamer
from tests.rssm.models import known_batch, small_model
from tests.rssm.plain import LAMBDA


def given(drawn: Tensor, slope: Tensor) -> Tensor:
    """The value that was drawn, with the gradient of `slope`."""
    return drawn.detach() + slope - slope.detach()


def normal(drawn: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return given(drawn, mean + std * ((drawn - mean) / std).detach())


def action(model: Dreamer, feature: Tensor, drawn: Tensor) -> Tensor:
    """Three keys, one of five classes, two ranges."""
    keys, mouse, mean, std = model.behaviour.actor(feature).split([3, 5, 2, 2], -1)
    x = drawn.split([3, 5, 2], -1)
    mean, std = 5 * torch.tanh(mean / 5), F.softplus(std + torch.tensor(5.0).double().expm1().log()) + 1e-4
    arm = torch.tanh(normal(torch.atanh(x[2]), mean, std))
    return torch.cat([given(x[0], keys.sigmoid()), given(x[1], mouse.softmax(-1)), arm], -1)


def actor_loss(model: Dreamer, rollout: Rollout, batch: Batch) -> Tensor:
    """-mean of w_t R_t over t = 1..H-1, of starts that are not ends."""
    world, horizon = model.world_model, len(rollout.actions)
    drawn_z, drawn_a = rollout.states.stoch.double(), rollout.actions.double()
    h, z, features = rollout.states.deter[0].double(), drawn_z[0], []
    for t in range(horizon):
        a = action(model, torch.cat([z, h], -1).detach(), drawn_a[t])
        h = world.core.cell(F.elu(world.core.inputs(torch.cat([z, a], -1))), h)
        mean, std = world.core.priors[0](h).chunk(2, -1)
        z = normal(drawn_z[t + 1], mean, F.softplus(std) + 0.1)
        features.append(torch.cat([z, h], -1))
    reward, value, logits = (
        [head.layers(f).squeeze(-1) for f in features]
        for head in (world.reward_head, model.behaviour.critic, world.continue_head)
    )
    following, returns = value[-1], []
    for t in reversed(range(horizon - 1)):
        mixed = (1 - LAMBDA) * value[t + 1] + LAMBDA * following
        following = reward[t] + logits[t].sigmoid() * mixed
        returns.append(following)
    weight, weighted = torch.ones_like(value[0]), []
    for t, each in enumerate(reversed(returns)):
        weighted.append(weight.detach() * each)
        weight = weight * logits[t].sigmoid()
    return -torch.stack(weighted)[:, ~batch.is_terminal.flatten()].mean()


def test_the_actor_learns_through_gaussian_dynamics() -> None:
    model, batch = small_model("v1"), known_batch()
    batch.is_terminal[1, -1] = True
    for module in (model.world_model.reward_head, model.world_model.continue_head, model.behaviour):
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    model.behaviour.actor[-1].bias.data[-2:] = -6.0  # deviations at which tanh is not flat
    torch.manual_seed(0)
    states, valid = model.world_model.infer(batch)
    torch.manual_seed(5)
    with torch.no_grad():
        rollout = imagine(model.world_model.core, model.behaviour.act, states.flatten(), 4)
    torch.manual_seed(5)
    model.behaviour.loss(model.world_model, states, valid, batch).loss.backward()
    got = torch.cat([p.grad.flatten() for p in model.behaviour.actor.parameters()]).double()
    plain = copy.deepcopy(model).double()
    plain.zero_grad()
    actor_loss(plain, rollout, batch).backward()
    expected = torch.cat([p.grad.flatten() for p in plain.behaviour.actor.parameters()])
    assert F.cosine_similarity(got, expected, dim=0) > 1 - 1e-6
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())
