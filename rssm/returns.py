"""Lambda-returns and the normaliser of V3's advantages."""

import torch
from torch import Tensor, nn


def lambda_returns(reward: Tensor, discount: Tensor, value: Tensor, trace_decay: Tensor | float) -> Tensor:
    """R[t] = r[t] + d[t] ((1 - lambda[t]) v[t] + lambda[t] R[t+1]), with R[T] = v[T-1].

    The caller aligns: v[t] is the value of the state after step t, d[t] the discount towards it. r[t] is what arrives with that
    state in V3 and what arrived with the state before it in V1 and V2. A trace decay of 0 ends the sum at v[t].

    Args:
      reward, discount, value: (T, ...), time first.
      trace_decay: lambda, a number or (T, ...).

    Returns:
      (T, ...).
    """
    decay = torch.as_tensor(trace_decay, dtype=value.dtype, device=value.device).expand_as(value)
    one_step = reward + discount * (1 - decay) * value
    onward = discount * decay
    returns, following = [], value[-1]
    for t in reversed(range(len(value))):
        following = one_step[t] + onward[t] * following
        returns.append(following)
    return torch.stack(returns[::-1])


class ReturnRange(nn.Module):
    """Running 5th and 95th percentile of the returns (V3): averages from 0 at rate 0.01, not bias-corrected."""

    low: Tensor
    high: Tensor

    def __init__(self, rate: float = 0.01):
        super().__init__()
        self.rate = rate
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))

    @torch.no_grad()
    def update(self, returns: Tensor) -> None:
        """Takes a batch of returns in, which may be empty."""
        if returns.numel() == 0:
            return
        # quantile takes at most 16 million values.
        edges = returns.new_tensor([0.05, 0.95])
        low, high = returns.flatten()[: 1 << 24].float().quantile(edges)
        self.low.lerp_(low, self.rate)
        self.high.lerp_(high, self.rate)

    def scale(self) -> Tensor:
        """Scalar that advantages are divided by: high - low, at least 1."""
        return (self.high - self.low).clamp_min(1.0)
