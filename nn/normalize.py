"""Running-RMS loss normalisation (Dreamer 4, "Loss normalization"), and means over the rows of all processes.

Gradients of several processes are averaged (DDP, FSDP). What each contributes is therefore chosen so that the average is what one
process would compute that had all rows.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn


def mean_over_processes(x: Tensor) -> Tensor:
    """`x` (any shape) averaged over the processes of a run, detached; every process must call this, alone it is `x`."""
    x = x.detach().clone()
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(x)
        x /= dist.get_world_size()
    return x


def in_any_process(here: bool, device: torch.device) -> bool:
    """Whether `here` holds in any process of a run; every process must call this."""
    if not (dist.is_available() and dist.is_initialized()):
        return here
    return bool(mean_over_processes(torch.tensor(float(here), device=device)))


def mean_of_all_rows(total: Tensor, count: Tensor, least: float = 1e-8) -> Tensor:
    """This process's share of sum / count over all processes: the average of the shares is that mean; 0 where nothing counts.

    Args:
      total: scalar, the sum over the rows of this process, with gradient.
      count: scalar, how much they count.
      least: what the counts of all processes add up to, at least.
    """
    shared = mean_over_processes(count.to(total.dtype))
    return total / shared.clamp_min(least)


class RunningRMS(nn.Module):
    """Divides a loss term by a running root-mean-square of its own value, so that terms add up without tuning.

    The estimate is an exponential average of the squared value, bias-corrected, gradient stopped, saved with the model. The
    floor keeps a vanishing loss from blowing its gradient up.
    """

    mean_square: Tensor
    count: Tensor

    def __init__(self, decay: float = 0.99, floor: float = 1e-4):
        super().__init__()
        self.decay, self.floor = decay, floor
        self.register_buffer("mean_square", torch.zeros((), dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.collects = False
        """Whether a step is made of several calls, which `settle` ends."""
        self._collected: list[Tensor] = []

    def forward(self, loss: Tensor) -> Tensor:
        """Scalar loss -> loss / max(RMS, floor). In training mode the estimate first takes the mean over the processes in.

        While it `collects`, the estimate is that of the steps before, and in the first step the magnitude of `loss` itself.
        """
        if self.training and self.collects:
            mean = mean_over_processes(loss.double())
            self._collected.append(mean)
            scale = torch.where(self.count > 0, self.value(), mean.abs().clamp_min(self.floor))
            return loss / scale.to(loss.dtype)
        if self.training:
            self._take(mean_over_processes(loss.double()))
        return loss / self.value().to(loss.dtype)

    def settle(self) -> None:
        """Takes the mean of what was collected in, as one value."""
        if self._collected:
            self._take(torch.stack(self._collected).mean())
        self._collected = []

    def _take(self, mean: Tensor) -> None:
        self.mean_square.lerp_(mean.square(), 1 - self.decay)
        self.count += 1

    def value(self) -> Tensor:
        """The current estimate, at least the floor; 1 before the first value."""
        corrected = self.mean_square / (1 - self.decay ** self.count.double()).clamp_min(1e-12)
        return torch.where(self.count > 0, corrected.sqrt().clamp_min(self.floor), 1.0)
