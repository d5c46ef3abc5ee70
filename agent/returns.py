"""Returns and the PMPO objective as pure functions of tensors (Dreamer 4, Eq. 10 and 11)."""

import torch
from torch import Tensor

from reverie.nn.normalize import mean_of_all_rows


def lambda_returns(
    rewards: Tensor, continues: Tensor, values: Tensor, *, discount: float, lambda_: float
) -> Tensor:
    """R[t] = r[t+1] + gamma c[t+1] ((1 - lambda) v[t+1] + lambda R[t+1]), R[H] = v[H] (Eq. 10).

    Args:
      rewards: (B, H) r[1..H], received on arriving at states 1..H.
      continues: (B, H) c[1..H] in [0, 1], 0 where state t is terminal.
      values: (B, H + 1) v[0..H].

    Returns:
      (B, H) R[0..H-1].
    """
    assert values.shape[1] == rewards.shape[1] + 1 == continues.shape[1] + 1, (values.shape, rewards.shape)
    returns, following = [], values[:, -1]
    for t in reversed(range(rewards.shape[1])):
        mixed = (1 - lambda_) * values[:, t + 1] + lambda_ * following
        following = rewards[:, t] + discount * continues[:, t] * mixed
        returns.append(following)
    return torch.stack(returns[::-1], dim=1)


def pmpo_loss(
    log_prob: Tensor,
    advantage: Tensor,
    kl_to_prior: Tensor,
    weight: Tensor,
    *,
    positive_weight: float = 0.5,
    prior_scale: float = 0.3,
) -> Tensor:
    """(1-alpha)/|D-| sum_{D-} ln pi - alpha/|D+| sum_{D+} ln pi + beta/N sum KL[pi || prior] (Eq. 11).

    D+ holds the states with advantage >= 0, D- the others; only the sign counts. Empty sets contribute zero.

    Args:
      log_prob: (...) ln pi(a|s) of the imagined actions, with gradient.
      advantage: (...) A, no gradient.
      kl_to_prior: (...) KL[pi || prior], with gradient.
      weight: (...) how much each state counts in |D+|, |D-| and N (over all processes); 1, or the probability that the rollout
        still runs.
      positive_weight: alpha.
      prior_scale: beta.

    Returns:
      Scalar.
    """
    positive = weight * (advantage >= 0)
    negative = weight * (advantage < 0)
    push = (
        _weighted_mean(log_prob, negative) * (1 - positive_weight)
        - _weighted_mean(log_prob, positive) * positive_weight
    )
    return push + prior_scale * _weighted_mean(kl_to_prior, weight)


def _weighted_mean(x: Tensor, weight: Tensor) -> Tensor:
    return mean_of_all_rows((x * weight).sum(), weight.sum())
