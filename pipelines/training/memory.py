"""What a training step keeps in memory, counted on tensors that have shapes but no memory.

The step's own code runs, forward, backward and update, on fake tensors (torch's FakeTensorMode), and every storage that it makes
is counted while it lives. Two things are not seen: what a kernel takes for itself, and that the kernels are those of the CPU (a
GPU's fused RMSNorm keeps less).
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from reverie.nn.precision import bfloat16

CPU = torch.device("cpu")


@dataclass(frozen=True)
class StepMemory:
    """Bytes of one forward and backward pass beside weights, gradients, optimiser state and the batch.

    kept  after the forward pass, for the backward pass
    peak  the most at any moment of both
    """

    kept: float
    peak: float


@dataclass(frozen=True)
class StateMemory:
    """Bytes that stay from step to step: weights (with buffers), gradients, optimiser state; and the most that an update adds."""

    weights: int
    gradients: int
    optimizer: int
    update: int


def step_memory(build: Callable[[], nn.Module], make_batch: Callable[[], Any], *, half: bool) -> StepMemory:
    """Memory of one step of the objective that `build` makes, on the batch that `make_batch` makes.

    Args:
      build: called with the default device set to meta; an objective with `forward(batch) -> (loss, metrics)`.
      make_batch: called where tensors take no memory.
      half: multiply matrices in bfloat16 (see `reverie.nn.precision`).
    """
    objective = on_meta(build)
    with _fake_tensors():
        _materialize(objective)
        return live_step(objective, make_batch(), half=half)


def state_memory(
    build: Callable[[], nn.Module], make_optimizer: Callable[[nn.Module], Optimizer]
) -> StateMemory:
    """Memory of the objective that `build` makes and of its optimiser, after one update."""
    objective = on_meta(build)
    tensors = [*objective.parameters(), *objective.buffers()]
    trained = [p for p in objective.parameters() if p.requires_grad]
    with _fake_tensors():
        _materialize(objective)
        optimizer = make_optimizer(objective)
        with LiveBytes() as live:
            optimizer.step()
        kept = sum(x.nbytes for x in tree_leaves(dict(optimizer.state)) if isinstance(x, Tensor))
    return StateMemory(
        weights=sum(x.nbytes for x in tensors),
        gradients=sum(p.nbytes for p in trained),
        optimizer=kept,
        update=live.most - kept,
    )


def on_meta(build: Callable[[], nn.Module]) -> nn.Module:
    """The module that `build` makes, without memory."""
    with torch.device("meta"):
        return build()


def live_step(objective: nn.Module, batch: Any, *, half: bool) -> StepMemory:
    """Counts a step of `objective` on `batch`, both on the CPU, fake or real; gradients are there already."""
    with LiveBytes() as live:
        with bfloat16(CPU, half):
            loss = objective(batch)[0]
        kept = live.now
        loss.backward()
    return StepMemory(kept, live.most)


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all storages that operations make while this is entered and that are still alive.

    What depends on values, which fake tensors do not have, is answered so that most is kept: a condition holds, a mask chooses
    every row, a number is 0.

    now   bytes alive at this moment
    most  the largest number so far
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs one operation."""
        out = _run(func, args, kwargs or {})
        made = [x.untyped_storage() for x in tree_leaves(out) if isinstance(x, Tensor)]
        if made:
            given = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
            for storage in made:
                if storage._cdata not in given:
                    self._add(storage)
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """One operation, in the worst case where it depends on values that are not there."""
    aten = torch.ops.aten
    if func is aten._local_scalar_dense.default and _is_fake(args[0]):
        return args[0].dtype is torch.bool or 0
    if func is aten.nonzero.default and _is_fake(args[0]):
        return torch.arange(args[0].numel())[:, None].expand(-1, args[0].dim())
    if func is aten.index.Tensor and _is_fake(args[0]):
        args = (args[0], [_every(index) for index in args[1]])
    return func(*args, **kwargs)


def _every(index: Tensor | None) -> Tensor | None:
    """All rows in place of a mask over rows."""
    if index is None or index.dtype is not torch.bool:
        return index
    assert index.dim() == 1, f"a mask over rows is expected, not over {index.dim()} dimensions"
    return torch.arange(len(index))


def _is_fake(x: Tensor) -> bool:
    from torch._subclasses.fake_tensor import FakeTensor

    return isinstance(x, FakeTensor)


def _fake_tensors() -> Any:
    """A context in which tensors have shapes but no memory."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    return FakeTensorMode(allow_non_fake_inputs=True)


def _materialize(objective: nn.Module) -> None:
    """From the meta device to the CPU; values are undefined. Gradients are there, as in the second of several micro-batches."""
    objective.to_empty(device=CPU)
    for parameter in objective.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.empty_like(parameter)
