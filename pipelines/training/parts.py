"""The parts of a training step, so that `reverie profile` can time them: data, forward, backward, optimizer.

Unless somebody watches, a part costs a microsecond and changes nothing.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # the pace of a run is measured by the parts of its steps, not the other way round
    from reverie.pipelines.training.pace import Gauge, StepCost


class Watch(Protocol):
    """Looks on while a stage trains."""

    def part(self, name: str) -> AbstractContextManager[None]:
        """Surrounds a part of a step."""

    def end_step(self, cost: "StepCost", gauge: "Gauge") -> None:
        """A step is done and counted; may raise to end the stage."""


_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)


@contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Inside the block `watch` looks on."""
    token = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(token)


@contextmanager
def part(name: str) -> Iterator[None]:
    """A part of a step: data, forward, backward or optimizer; several of one name add up."""
    watch = _watch.get()
    if watch is None:
        yield
        return
    with watch.part(name):
        yield


def end_step(cost: "StepCost", gauge: "Gauge") -> None:
    """Tells whoever watches that a step is done."""
    watch = _watch.get()
    if watch is not None:
        watch.end_step(cost, gauge)
