"""Slots of this machine: each runs one command at a time, with its share of the cores, or a GPU of its own."""

import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from queue import Queue
from threading import Thread
from typing import Protocol

from reverie.nn.threads import available_cores
from reverie.pipelines.sweeps.plan import Run

GPUS = "CUDA_VISIBLE_DEVICES"
THREADS = "OMP_NUM_THREADS"

Start = Callable[[Run, Mapping[str, str]], "subprocess.Popen[bytes]"]
"""Starts a run as a process, with these environment variables beside those there are."""


class Engine(Protocol):
    """Where runs are worked on."""

    @property
    def free(self) -> bool:
        """Whether another run can be started."""

    def start(self, run: Run) -> None:
        """Begins a run."""

    def wait(self) -> tuple[Run, int]:
        """The next run that ends, and its exit code."""

    def stop(self) -> None:
        """Asks what runs to save and end, and returns when it has."""


class Slots:
    """The `Engine` of this machine.

    Args:
      count: how many run at a time.
      gpus: the devices they share, as CUDA_VISIBLE_DEVICES names them; none for CPUs alone.
      start: see `Start`.
    """

    def __init__(self, count: int, gpus: tuple[str, ...], start: Start) -> None:
        self._start, self._free = start, list(range(count))
        self._environments = [slot_environment(slot, count, gpus) for slot in range(count)]
        self._running: dict[str, tuple[int, subprocess.Popen[bytes]]] = {}
        self._ended: Queue[tuple[Run, int]] = Queue()

    @property
    def free(self) -> bool:
        """A slot is empty."""
        return bool(self._free)

    def start(self, run: Run) -> None:
        """In the first empty slot."""
        slot = self._free.pop(0)
        process = self._start(run, self._environments[slot])
        self._running[run.name] = slot, process
        Thread(target=lambda: self._ended.put((run, process.wait())), daemon=True).start()

    def wait(self) -> tuple[Run, int]:
        """Sleeps until a run ends."""
        run, code = self._ended.get()
        slot, _ = self._running.pop(run.name)
        self._free = sorted([*self._free, slot])
        return run, code

    def stop(self) -> None:
        """Ctrl-C to all; another Ctrl-C here is passed on, a third one ends them without saving."""
        for number in (signal.SIGINT, signal.SIGINT, signal.SIGKILL):
            for _, process in self._running.values():
                process.send_signal(number)
            try:
                while self._running:
                    self.wait()
                return
            except KeyboardInterrupt:
                continue


def slot_environment(slot: int, count: int, gpus: tuple[str, ...]) -> dict[str, str]:
    """The variables of one of `count` slots: an equal share of the cores, and one of the devices in turn.

    OMP_NUM_THREADS stays where somebody has set it.
    """
    threads = os.environ.get(THREADS, str(max(1, available_cores() // count)))
    return {THREADS: threads} | ({GPUS: gpus[slot % len(gpus)]} if gpus else {})


def visible_gpus() -> tuple[str, ...]:
    """The GPUs that this command may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    count = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get(GPUS, "").split(",") if name.strip()]
    return tuple(named[:count] if named else map(str, range(count)))


def default_slots(gpus: tuple[str, ...]) -> int:
    """One for each GPU, or else for each core."""
    return len(gpus) or available_cores()
