"""The moving average of a run's weights (EMA), which is the model that later stages load.

After step n (from 0) the average takes the new weights in: average <- d average + (1 - d) weights with the decay
d = min(decay, (1 + n) / (10 + n)), the warm-up of TensorFlow's `ExponentialMovingAverage`: it reaches back over a ninth of the
run at most, so a short run is not dominated by its start. What is not trained in a step (frozen parts, the other phase of a
baseline, buffers) is no average but what it is.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from reverie.pipelines.training.sharding import local_part, reshard


def decay_at(step: int, decay: float) -> float:
    """The decay of the update after step number `step` (from 0)."""
    return min(decay, (1 + step) / (10 + step))


class WeightAverage:
    """Averages of the parameters of `objective.model` that `optimizer` trains: float32, on their device, sharded as they are.

    Args:
      objective: not wrapped for several processes, but sharded, if it will be.
      decay: largest decay, in (0, 1).
    """

    def __init__(self, objective: nn.Module, optimizer: Optimizer, decay: float) -> None:
        trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
        model = objective.get_submodule("model")
        self._objective, self.decay = objective, decay
        self._parameters = {name: p for name, p in model.named_parameters() if id(p) in trained}
        self._averages = {name: p.detach().clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes the weights after step number `step` (from 0) in; asks the device nothing."""
        averages, weights = self._pairs()
        if averages:
            torch._foreach_lerp_(averages, weights, 1 - decay_at(step, self.decay))

    def applied(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`weights` of the model by name, with the averages in the place of what is being trained."""
        return {**weights, **{name: self._averages[name] for name in self._trained()}}

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """The model has the averages for weights inside the block, and its weights again, to the bit, after it."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Goes on from the averages of a checkpoint, sharded as the parameters are."""
        for name, average in self._averages.items():
            local_part(average).copy_(local_part(weights[name]))

    @torch.no_grad()
    def _swap(self) -> None:
        reshard(self._objective)  # or what was gathered from the other weights would be used on
        for average, weight in zip(*self._pairs(), strict=True):
            held = weight.clone()
            weight.copy_(average)
            average.copy_(held)

    def _trained(self) -> list[str]:
        return [name for name, parameter in self._parameters.items() if parameter.requires_grad]

    def _pairs(self) -> tuple[list[Tensor], list[Tensor]]:
        """What this process holds of the averages and of the weights that are being trained."""
        names = self._trained()
        averages = [local_part(self._averages[name]) for name in names]
        return averages, [local_part(self._parameters[name].detach()) for name in names]
