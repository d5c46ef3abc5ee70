"""Steps in several micro-batches: the gradient of a batch that does not fit into memory at once.

What holds: the rows are those of the whole batch, every n-th in each micro-batch, so that all have its mixture. The gradient is
the mean of the micro-batches' gradients, which for losses that are means over equal rows is that of the whole batch, up to
rounding. A mean over what counts (cloning: known actions, relevant rows) is a mean of the micro-batches' means. Loss normalisers
take one value a step in, the mean over all micro-batches and processes, and divide by the estimate of the steps before. Random
draws are others than those for the whole batch. Processes exchange gradients once a step, sharded ones in every micro-batch.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from reverie.data.batch import Batch
from reverie.data.errors import UserError
from reverie.nn.normalize import RunningRMS


def micro_batches(batch: Batch, count: int) -> list[Batch]:
    """The rows 0, count, 2 count, ..., then 1, count + 1, ...; each batch with as many."""
    return [batch] if count == 1 else [batch.rows(slice(first, None, count)) for first in range(count)]


@contextmanager
def one_step(objective: nn.Module, count: int) -> Iterator[None]:
    """Around the `count` passes of a step: loss normalisers take the whole of it in at the end."""
    normalisers = [module for module in objective.modules() if isinstance(module, RunningRMS)]
    for normaliser in normalisers:
        normaliser.collects = count > 1
    try:
        yield
        for normaliser in normalisers:
            normaliser.settle()
    finally:
        for normaliser in normalisers:
            normaliser.collects = False


def mean_metrics(parts: Sequence[Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
    """Means over the micro-batches that have a metric."""
    if len(parts) == 1:
        return parts[0]
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: torch.stack([part[name] for part in parts if name in part]).mean() for name in names}


def refuse_accumulation(count: int) -> None:
    """For stages whose steps are not sums over rows. Raises `UserError` unless `count` is 1."""
    if count > 1:
        raise UserError(
            f"--batches.accumulate {count}: this stage cannot; make --batches.batch_size smaller."
        )
