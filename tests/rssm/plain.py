"""DreamerV2's actor loss in float64, written plainly from its formulas along draws that were recorded.

Sources: danijar/dreamerv2 (agent, distributions), conglu1997/v-d4rl (penalties), and for gradients the libraries these call:
one-hot ln p takes its event as given; the truncated Normal's samples have the gradient (1, z).
"""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from reverie.data.actions import Binary, Categorical
from reverie.data.batch import Batch
from reverie.rssm.imagination import Rollout, imagine
from reverie.rssm.model import Dreamer
from reverie.rssm.state import State

LAMBDA = 0.95


@dataclass(frozen=True)
class Draws:
    """What chance decided in a rollout: one-hot z (H+1, N, S), actions (H, N, A), which prior head drew each step."""

    stoch: Tensor
    actions: Tensor
    members: list[int]


def recorded(model: Dreamer, start: State, seed: int) -> Draws:
    """The draws of the rollout that `Behaviour.loss` makes under this seed."""
    torch.manual_seed(seed)
    with torch.no_grad(), _noting(model) as members:
        rollout: Rollout = imagine(
            model.world_model.core, model.behaviour.act, start, model.config.behaviour.horizon
        )
    return Draws(rollout.states.stoch.double().round(), rollout.actions.double(), members)


@contextmanager
def _noting(model: Dreamer) -> Iterator[list[int]]:
    members: list[int] = []
    handles = [
        head.register_forward_hook(lambda *_, k=k: members.append(k))
        for k, head in enumerate(model.world_model.core.priors)
    ]
    yield members
    for handle in handles:
        handle.remove()


def actor_gradient(model: Dreamer, start: State, draws: Draws, batch: Batch) -> Tensor:
    """The gradient of the actor's loss, flat; every step of the batch is a start."""
    model = copy.deepcopy(model).double()
    parameters = list(model.behaviour.actor.parameters())
    loss = actor_loss(model, start, draws, batch)
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])


def actor_loss(model: Dreamer, start: State, draws: Draws, batch: Batch) -> Tensor:
    """-mean of w_t (objective_t + eta entropy_t) over t = 0..H-2."""
    settings, horizon = model.config.behaviour, len(draws.actions)
    h, z, features, actions, states = start.deter.double(), draws.stoch[0], [], [], []
    for t in range(horizon + 1):
        states.append((h, z))
        features.append(torch.cat([z, h], -1))
        if t == horizon:
            break
        actions.append(_action(model, features[-1].detach(), draws.actions[t]))
        h = _recur(model.world_model.core, h, z, actions[-1])
        logits = model.world_model.core.priors[draws.members[t]](h)
        z = _straight(draws.stoch[t + 1], _probabilities(model, logits).flatten(-2))
    world = model.world_model
    reward = [world.reward_head.layers(f).squeeze(-1) - _penalty(model, s) for f, s in zip(features, states)]
    value = [model.behaviour.slow.critic.layers(f).squeeze(-1) for f in features]
    discount = [torch.sigmoid(world.continue_head.layers(f).squeeze(-1)) for f in features]
    discount[0] = world.config.discount * (~batch.is_terminal.flatten()).double()
    target, following = {}, value[horizon]
    for t in reversed(range(horizon)):
        following = reward[t] + discount[t] * ((1 - LAMBDA) * value[t + 1] + LAMBDA * following)
        target[t] = following
    weight, per_step = torch.ones_like(value[0]), []
    for t in range(horizon - 1):
        log_pi, entropy = _policy(model, features[t].detach(), actions[t])
        advantage = (target[t + 1] - value[t]).detach()
        rho = settings.dynamics_share
        objective = {
            "dynamics": target[t + 1],
            "reinforce": _policy(model, features[t].detach(), draws.actions[t])[0] * advantage,
            "both": rho * target[t + 1] + (1 - rho) * log_pi * advantage,
        }[settings.actor_gradient]
        per_step.append(-weight.detach() * (objective + settings.entropy_scale * entropy))
        weight = weight * discount[t]
    return torch.stack(per_step).mean()


def truncated_slopes(mean: Tensor, std: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """dx/dmean and dx/dstd of the truncated Normal's sample at a fixed level of its distribution function.

    With z = (x - m) / s between a and b and level F: phi(z) dz = (1 - F) phi(a) da + F phi(b) db.
    """
    z, a, b = (x - mean) / std, (-1 - mean) / std, (1 - mean) / std
    level = (_cdf(z) - _cdf(a)) / (_cdf(b) - _cdf(a))
    low = (1 - level) * torch.exp((z**2 - a**2) / 2)
    high = level * torch.exp((z**2 - b**2) / 2)
    return 1 - low - high, z - a * low - b * high


def _recur(core, h: Tensor, z: Tensor, a: Tensor) -> Tensor:
    x = F.elu(core.inputs(torch.cat([z, a], -1)))
    reset, candidate, update = core.gates_norm(core.gates(torch.cat([x, h], -1))).chunk(3, -1)
    u = torch.sigmoid(update - 1)
    return u * torch.tanh(torch.sigmoid(reset) * candidate) + (1 - u) * h


def _probabilities(model: Dreamer, logits: Tensor) -> Tensor:
    return logits.unflatten(-1, (-1, model.config.world_model.classes)).softmax(-1)


def _straight(drawn: Tensor, p: Tensor) -> Tensor:
    return drawn + p - p.detach()


def _penalty(model: Dreamer, state: tuple[Tensor, Tensor]) -> Tensor | float:
    settings, (h, z) = model.config.behaviour, state
    if settings.penalty == "none":
        return 0.0
    p = torch.stack([_probabilities(model, head(h)) for head in model.world_model.core.priors])
    mean = p.mean(0)
    if settings.penalty == "meandis":
        each = ((p - mean) ** 2).sum((-2, -1)).sqrt().mean(0)
    elif settings.penalty == "mixstd":
        each = ((p - p**2).mean(0) + ((p - mean) ** 2).mean(0)).sqrt().mean((-2, -1))
    else:
        log_p = (p.flatten(-2).log() * z.detach()).sum(-1)
        each = ((log_p - log_p.mean(0)) ** 2).mean(0).sqrt()
    return settings.penalty_scale * each


def _parts(model: Dreamer, parameters: Tensor, action: Tensor):
    """Component, parameters and action of each."""
    at = behind = 0
    for component in model.world_model.action_space.components.values():
        ranges = not isinstance(component, Binary | Categorical)
        size = component.n * (2 if ranges else 1)
        yield component, parameters[..., at : at + size], action[..., behind : behind + component.n]
        at, behind = at + size, behind + component.n


def _range(raw: Tensor) -> tuple[Tensor, Tensor]:
    mean, std = raw.chunk(2, -1)
    return torch.tanh(mean), 2 * torch.sigmoid(std / 2) + 0.1


def _action(model: Dreamer, feature: Tensor, drawn: Tensor) -> Tensor:
    """The drawn action with the gradient that its sampling has."""
    parts = []
    for component, raw, x in _parts(model, model.behaviour.actor(feature), drawn):
        if isinstance(component, Categorical):
            parts.append(_straight(x, raw.softmax(-1)))
        elif isinstance(component, Binary):
            parts.append(_straight(x, raw.sigmoid()))
        else:
            mean, std = _range(raw)
            slopes = [s.detach() for s in truncated_slopes(mean, std, x)]
            if model.config.behaviour.truncated_gradient == "released":
                slopes = [torch.ones_like(x), ((x - mean) / std).detach()]
            parts.append(_straight(x, slopes[0] * mean + slopes[1] * std))
    return torch.cat(parts, -1)


def _policy(model: Dreamer, feature: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """Ln pi(a) and the entropy, (N,) each."""
    log_pi, entropy = [], []
    for component, raw, x in _parts(model, model.behaviour.actor(feature), action):
        if isinstance(component, Categorical):
            log_p = raw.log_softmax(-1)
            log_pi.append((x.detach() * log_p).sum(-1))
            entropy.append(-(log_p.exp() * log_p).sum(-1))
        elif isinstance(component, Binary):
            p, x = raw.sigmoid(), x.detach()
            log_pi.append((x * p.log() + (1 - x) * (1 - p).log()).sum(-1))
            entropy.append(-(p * p.log() + (1 - p) * (1 - p).log()).sum(-1))
        else:
            log_p, each = _truncated(*_range(raw), x)
            log_pi.append(log_p.sum(-1))
            entropy.append(each.sum(-1))
    return torch.stack(log_pi).sum(0), torch.stack(entropy).sum(0)


def _truncated(mean: Tensor, std: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    a, b = (-1 - mean) / std, (1 - mean) / std
    log_mass = torch.log(_cdf(b) - _cdf(a))
    log_p = -0.5 * ((x - mean) / std) ** 2 - 0.5 * math.log(2 * math.pi) - std.log() - log_mass
    edges = (a * _pdf(a) - b * _pdf(b)) / (2 * log_mass.exp())
    return log_p, 0.5 * math.log(2 * math.pi * math.e) + std.log() + log_mass + edges


def _pdf(x: Tensor) -> Tensor:
    return torch.exp(-0.5 * x**2) / math.sqrt(2 * math.pi)


def _cdf(x: Tensor) -> Tensor:
    return 0.5 * torch.erfc(-x / math.sqrt(2))
