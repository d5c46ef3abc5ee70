"""How many CPU threads share the operations of a model.

An operation of a small model takes microseconds, as long as two threads take to meet. Where another program holds a core, they
wait for each other at every operation: a training step of `nano` on two busy cores took 2 to 70 times as long on two threads as
on one (docs/performance.md). So small models get one thread, and the command line lets threads that wait sleep (OMP_WAIT_POLICY).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

ELEMENTS_PER_THREAD = 500_000
"""Elements of an activation (rows x frames x tokens x width) from which another thread is added. `nano`'s 126,000 gained nothing
by a second one; the limit above that is a guess, not measured on an idle machine."""


def threads_for(elements: int, available: int) -> int:
    """How many of the `available` threads pay for activations of `elements` numbers; at least 1."""
    return min(max(elements // ELEMENTS_PER_THREAD, 1), max(available, 1))


def available_cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def shared_out(elements: int | None) -> Iterator[None]:
    """CPU operations take the threads that pay for activations of `elements` numbers.

    All there are for None, and OMP_NUM_THREADS where it is set.
    """
    before = torch.get_num_threads()
    if elements is not None and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(threads_for(elements, before))
    try:
        yield
    finally:
        torch.set_num_threads(before)
