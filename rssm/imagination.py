"""Rollouts of the world model under the policy, and the penalty of Offline-DV2 for states on which the priors disagree."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reverie.rssm.config import Penalty
from reverie.rssm.cores import Core
from reverie.rssm.latents import CategoricalLatent
from reverie.rssm.state import State, stack


@dataclass(frozen=True)
class Rollout:
    """Imagined trajectories, time first, so that the first steps of all are one piece of memory.

    states (H+1, N, ...), state 0 is the start. features (H+1, N, F) of them. actions (H, N, A), taken in states 0..H-1.
    """

    states: State
    features: Tensor
    actions: Tensor


def imagine(core: Core, act: Callable[[Tensor], Tensor], start: State, horizon: int) -> Rollout:
    """`horizon` steps from states (N, ...): actions from `act` (features (N, F), detached, to (N, A)), z from the prior."""
    linears = core.linears()
    states, features, actions = [start], [core.feature(start)], []
    for _ in range(horizon):
        actions.append(act(features[-1].detach()))
        states.append(core.step(linears, states[-1], actions[-1]))
        features.append(core.feature(states[-1]))
    return Rollout(stack(states, dim=0), torch.stack(features), torch.stack(actions))


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Inside, gradients flow through the modules but not to their parameters."""
    trained = [p for module in modules for p in module.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def disagreement(core: Core, states: State, penalty: Penalty) -> Tensor:
    """How far the K prior heads are apart in states (...). Returns (...), with gradient to h.

    meandis: mean over members of the Euclidean distance of their probabilities to the ensemble's mean.
    log_prob_ens: deviation over members of ln p_k(z), where z is given: the straight-through sample brings no gradient.
    mixstd: mean deviation of the ensemble's mixture over all one-hot dimensions.
    """
    latent = core.latent
    assert isinstance(latent, CategoricalLatent)
    parameters = core.all_priors(states.deter)
    if penalty == "log_prob_ens":
        return latent.log_prob(parameters, states.stoch.detach()).std(0, correction=0)
    probabilities = latent.probabilities(parameters).flatten(-2)
    mean = probabilities.mean(0)
    if penalty == "mixstd":
        # Above 0, where the root has no slope: a class that is certain in float32.
        variance = (mean * (1 - mean)).clamp_min(torch.finfo(mean.dtype).tiny)
        return variance.sqrt().mean(-1)
    return (probabilities - mean).norm(dim=-1).mean(0)
