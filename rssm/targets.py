"""What critic and actor learn from in the three generations: the same recursion, aligned differently.

Actions lead s_0 -a_0-> s_1 -a_1-> ... s_H. In V1 and V2 the value of a state includes the reward received in it, in V3 only later
ones. V1 leaves the start state out.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from reverie.rssm.returns import lambda_returns


@dataclass(frozen=True)
class Imagined:
    """Predictions along H+1 imagined states, (H+1, N) each.

    reward on arriving at them, continues: gamma times the probability of going on after them, value.
    """

    reward: Tensor
    continues: Tensor
    value: Tensor


@dataclass(frozen=True)
class Targets:
    """What is learned from one rollout.

    first: the number of the first state that the critic learns; it learns L in a row.
    returns (L, N): the critic's targets. critic_weight (L, N).
    gains (M, N): the return that actions 0..M-1 brought. baseline (M, N): the value of the states they were taken in.
    actor_weight (M, N).
    """

    first: int
    returns: Tensor
    critic_weight: Tensor
    gains: Tensor
    baseline: Tensor
    actor_weight: Tensor


def targets_v1(imagined: Imagined, trace_decay: float) -> Targets:
    """R_t = r(s_t) + c(s_t) ((1 - lambda) v(s_t+1) + lambda R_t+1) for t = 1..H-1; weights start at 1 in s_1."""
    returns = lambda_returns(imagined.reward[1:-1], imagined.continues[1:-1], imagined.value[2:], trace_decay)
    weight = _shifted_product(imagined.continues[1:-1])
    return Targets(1, returns, weight, returns, imagined.value[:-2], weight)


def targets_v2(imagined: Imagined, trace_decay: float) -> Targets:
    """The same from t = 0; action a_t is credited with R_t+1, so that the last one has none. Weights start at 1 in s_0."""
    returns = lambda_returns(imagined.reward[:-1], imagined.continues[:-1], imagined.value[1:], trace_decay)
    weight = _shifted_product(imagined.continues[:-1])
    return Targets(0, returns, weight, returns[1:], imagined.value[:-2], weight[:-1])


def targets_v3(imagined: Imagined, trace_decay: float) -> Targets:
    """R_t = r(s_t+1) + c(s_t+1) ((1 - lambda) v(s_t+1) + lambda R_t+1) for t = 0..H-1; weights start at c(s_0)."""
    returns = lambda_returns(imagined.reward[1:], imagined.continues[1:], imagined.value[1:], trace_decay)
    weight = imagined.continues[:-1].cumprod(0).detach()
    return Targets(0, returns, weight, returns, imagined.value[:-1], weight)


def _shifted_product(continues: Tensor) -> Tensor:
    """(L, N) -> (L, N): 1, c_0, c_0 c_1, ... without gradient."""
    ones = torch.ones_like(continues[:1])
    return torch.cat([ones, continues[:-1]], dim=0).cumprod(0).detach()


TARGETS = {"v1": targets_v1, "v2": targets_v2, "v3": targets_v3}
