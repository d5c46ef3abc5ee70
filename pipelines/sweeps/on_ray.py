"""Runs as tasks of a Ray cluster, all of whose machines see the same folders."""

import os
import signal
from typing import Any

from reverie.pipelines.datasets.engines import connect_ray
from reverie.pipelines.sweeps.plan import Run
from reverie.pipelines.sweeps.slots import Start

LOST = 70
"""Exit code of a run whose machine was lost; the same command goes on with it."""


class RayEngine:
    """The `Engine` of a cluster: a task of one GPU a run where the cluster has GPUs, else of one core.

    Args:
      address: what `ray.init` takes: auto, local, or HOST:PORT.
      count: how many run at a time; None for as many as the cluster has GPUs, or else cores.
      start: as `Slots` takes it; must be picklable.

    Raises:
      UserError: Ray is missing, or no cluster answers.
    """

    def __init__(self, address: str, count: int | None, start: Start) -> None:
        self._ray = connect_ray(address)
        there = self._ray.cluster_resources()
        gpus, cores = int(there.get("GPU", 0)), int(there.get("CPU", 1))
        self.count = count or gpus or cores
        """Runs at a time."""
        # One try: a task that is done again elsewhere would meet the lock of the first; the sweep itself goes on.
        task = self._ray.remote(num_cpus=1, num_gpus=min(gpus, 1), max_retries=0)
        self._task, self._start = task(_run), self._ray.put(start)
        self._running: dict[Any, Run] = {}

    @property
    def free(self) -> bool:
        """Fewer runs are under way than are wanted at a time."""
        return len(self._running) < self.count

    def start(self, run: Run) -> None:
        """Hands a run to the cluster."""
        self._running[self._task.remote(self._start, run, os.getcwd())] = run

    def wait(self) -> tuple[Run, int]:
        """Sleeps until a task ends."""
        (ended,), _ = self._ray.wait(list(self._running), num_returns=1)
        run = self._running.pop(ended)
        try:
            return run, int(self._ray.get(ended))
        except self._ray.exceptions.RayError:
            return run, LOST

    def stop(self) -> None:
        """Ctrl-C in every task, which saves; another one here ends them at once."""
        for force in (False, True):
            for reference in self._running:
                self._ray.cancel(reference, force=force)
            try:
                while self._running:
                    self.wait()
                return
            except KeyboardInterrupt:
                continue


def _run(start: Start, run: Run, folder: str) -> int:
    """The exit code of a run, started on the machine of this task."""
    os.chdir(folder)  # relative paths mean what they mean to the command
    process = start(run, {})
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        return process.wait()
