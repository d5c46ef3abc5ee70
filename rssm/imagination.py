"""Rollouts of the world model under the policy, and the penalty of Offline-DV2 for states on which the priors disagree."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reverie.rssm.config import Penalty
from reverie.rssm.cores import Core
from reverie.rssm.latents import CategoricalLatent
from reverie.rssm.state import State, stack
from reverie.rssm.steps import Act, ImaginedStep, imagined_step


@dataclass(frozen=True)
class Rollout:
    """Imagined trajectories, time first, so that the first steps of all are one piece of memory.

    states (H+1, N, ...), state 0 is the start. features (H+1, N, F) of them. actions (H, N, A), taken in states 0..H-1.
    """

    states: State
    features: Tensor
    actions: Tensor


def imagine(
    core: Core, act: Act, start: State, horizon: int, *, step: ImaginedStep = imagined_step
) -> Rollout:
    """`horizon` steps from states (N, ...): actions from `act` (features (N, F), detached, to (N, A)), z from the prior.

    Args:
      step: `imagined_step`, or that compiled.
    """
    linears = core.linears()
    states, features, actions = [start], [core.feature(start)], []
    for _ in range(horizon):
        action, state, feature = step(core, linears, act, core.any_prior(), states[-1], features[-1])
        actions.append(action)
        states.append(state)
        features.append(feature)
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
