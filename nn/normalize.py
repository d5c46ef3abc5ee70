"""Running-RMS loss normalisation (Dreamer 4, "Loss normalization")."""

import torch
from torch import Tensor, nn


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

    def forward(self, loss: Tensor) -> Tensor:
        """Scalar loss -> loss / max(RMS, floor). In training mode the estimate first takes the value in."""
        if self.training:
            self.mean_square.lerp_(loss.detach().double().square(), 1 - self.decay)
            self.count += 1
        return loss / self.value().to(loss.dtype)

    def value(self) -> Tensor:
        """The current estimate, at least the floor; 1 before the first value."""
        corrected = self.mean_square / (1 - self.decay ** self.count.double()).clamp_min(1e-12)
        return torch.where(self.count > 0, corrected.sqrt().clamp_min(self.floor), 1.0)
