"""One contestant in a process of its own: opens, runs and closes rows as the lines on its standard input say.

    python -m benchmarks.worker ours|compiled|reference|dreamer4 '{"threads": 1, "bf16": false, "device": "cpu", "tiny": false}'

Every answer is one line of JSON on standard output: the seconds of one call, or why a row cannot be had.
"""

import json
import os
import sys
import time
from importlib import import_module
from typing import Any

import torch

from benchmarks.loops import CannotRun, Place
from benchmarks.sizes import SIZES, TINY, Row

MODULES = {
    "ours": "benchmarks.ours",
    "compiled": "benchmarks.ours",
    "reference": "benchmarks.reference",
    "dreamer4": "benchmarks.public",
}


ENOUGH = 1.0
"""Seconds; a call that takes longer is one measurement."""


class Worker:
    """Holds the open row."""

    def __init__(self, contestant: str, settings: dict[str, Any]) -> None:
        torch.set_num_threads(settings["threads"])
        self.place = Place(torch.device(settings["device"]), settings["bf16"], contestant == "compiled")
        self.sizes = TINY if settings["tiny"] else SIZES
        self._contestant, self._calls, self._loop = contestant, 1, None  # type: tuple[str, int, Loop | None]

    def open(self, row: dict[str, Any]) -> dict[str, Any]:
        """Makes the row's loop and calls it once."""
        torch.manual_seed(0)
        found = Row(**row)
        self._loop = import_module(MODULES[self._contestant]).open_row(found, self.sizes, self.place)
        begun = time.perf_counter()
        self._loop()
        # What takes long needs no second call to be timed well.
        self._calls = found.calls if time.perf_counter() - begun < ENOUGH else 1
        return {}

    def run(self) -> dict[str, Any]:
        """Seconds of one call: of all threads together on the processor, and by the clock."""
        assert self._loop is not None
        self._wait()
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(self._calls):
            self._loop()
        self._wait()
        return {
            "cpu": (time.process_time() - cpu) / self._calls,
            "wall": (time.perf_counter() - wall) / self._calls,
        }

    def close(self) -> dict[str, Any]:
        """Lets go of the row."""
        self._loop = None
        return {}

    def _wait(self) -> None:
        if self.place.device.type == "cuda":
            torch.cuda.synchronize(self.place.device)


def main() -> None:
    """Answers until its input ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a package prints is no answer
    worker = Worker(sys.argv[1], json.loads(sys.argv[2]))
    for line in sys.stdin:
        question = json.loads(line)
        try:
            answer = getattr(worker, question.pop("do"))(**question)
        except CannotRun as reason:
            answer = {"problem": str(reason)}
        except Exception as error:  # of any contestant: the other rows go on
            answer = {"problem": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
