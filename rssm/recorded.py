"""Returns of recorded sequences: V3's replay value targets, and the measure of over-estimation."""

import torch
from torch import Tensor

from reverie.data.batch import Batch
from reverie.rssm.returns import lambda_returns


def same_piece(batch: Batch) -> Tensor:
    """(B, T-1) bool: frames t and t+1 belong to one piece of one episode."""
    return (batch.segment[:, 1:] == batch.segment[:, :-1]) & ~batch.is_first[:, 1:]


def recorded_returns(
    batch: Batch, reward: Tensor, value: Tensor, discount: float, trace_decay: float
) -> tuple[Tensor, Tensor]:
    """R[t] = r[t+1] + gamma (1 - terminal[t+1]) ((1 - lambda) v[t+1] + lambda R[t+1]) along the data.

    The sum ends with v at the last frame of a recording, of a piece of video, and before unknown rewards.

    Args:
      reward: (B, T), received on arriving at each frame.
      value: (B, T), of each frame.

    Returns:
      Returns (B, T-1) and (B, T-1) bool, where they are known.
    """
    known = same_piece(batch) & batch.reward_mask[:, 1:] & ~batch.is_last[:, :-1]
    live = (~batch.is_terminal[:, 1:]).float() * discount
    goes_on = torch.cat([known[:, 1:], torch.zeros_like(known[:, :1])], dim=1)
    reward = torch.where(known, reward[:, 1:], 0.0)
    returns = lambda_returns(reward.T, live.T, value[:, 1:].T, trace_decay * goes_on.T.float())
    return returns.T, known
