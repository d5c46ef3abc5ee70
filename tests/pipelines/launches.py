"""Several launches of one command at once, all of which try for the folder before any of them goes on."""

import fcntl
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from reverie.evaluation import fvd as fvd_score
from reverie.pipelines.cli import main
from reverie.pipelines.scoring import fvd
from tests.processes import TIMEOUT, start

MEET_SECONDS = 30.0
"""How long a launch waits for the others to try; only one that never tries lets them wait so long."""
_CLOCK = ("train/steps_per_second", "speed/")


def launch(arguments: Sequence[str], said: Path, meeting: Any = None) -> BaseProcess:
    """Starts the command; what it prints goes to `said`. With a `meeting` (a barrier) it waits there once it tried for a lock."""
    return start(_launch, list(arguments), said, meeting)


def launch_together(arguments: Sequence[str], folder: Path, count: int = 3) -> tuple[list[int], list[str]]:
    """Exit codes and outputs of `count` launches; one that serves until it is stopped is stopped when the others have ended."""
    meeting = multiprocessing.get_context("forkserver").Barrier(count)
    texts = [folder / f"said-{number}" for number in range(count)]
    processes = [launch(arguments, text, meeting) for text in texts]
    if arguments[0] == "play":
        _stop_the_last(processes, texts)
    for process in processes:
        process.join(TIMEOUT)
    return [process.exitcode or 0 for process in processes], [text.read_text() for text in texts]


def contents(folder: Path) -> Mapping[str, bytes]:
    """Every file below `folder` by name, without clocks, commands and TensorBoard's own files."""
    return {
        str(path.relative_to(folder)): _timeless(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.parent.name != "tensorboard" and path.name != "done"
    }


def _timeless(path: Path) -> bytes:
    if path.name == "metrics.jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        kept = [{name: x for name, x in row.items() if not name.startswith(_CLOCK)} for row in rows]
        return json.dumps(kept).encode()
    if path.name == "provenance.json":
        found = json.loads(path.read_text())
        return json.dumps([found["identity"], len(found["launches"])]).encode()
    if path.name == "config.yaml":  # but for its own place
        return b"\n".join(x for x in path.read_bytes().splitlines() if not x.startswith(b"out:"))
    if path.name == "report.json":
        figures = json.loads(path.read_text())
        return json.dumps({k: v for k, v in figures.items() if k not in ("settings", "provenance")}).encode()
    return b"" if path.name == "report.html" else path.read_bytes()


def _stop_the_last(processes: list[BaseProcess], texts: list[Path]) -> None:
    """Once the others have ended and the last one serves, Ctrl-C."""
    deadline = time.monotonic() + TIMEOUT
    while sum(process.is_alive() for process in processes) > 1 or not any(
        text.is_file() and "Ctrl-C ends" in text.read_text() for text in texts
    ):
        assert time.monotonic() < deadline and any(process.is_alive() for process in processes)
        time.sleep(0.05)
    for process in processes:
        if process.is_alive() and process.pid is not None:
            os.kill(process.pid, signal.SIGINT)


def _launch(arguments: list[str], said: Path, meeting: Any) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for module in (fvd, fvd_score):
        module.MIN_CHUNKS = 4  # the corpus is small
    sys.stdout = sys.stderr = said.open("w", buffering=1)
    if meeting is not None:
        _meet_after_the_first_try(meeting)
    os._exit(main(arguments))


def _meet_after_the_first_try(meeting: Any) -> None:
    lockf, met = fcntl.lockf, []

    def trying(*arguments: Any) -> None:
        try:
            lockf(*arguments)
        finally:
            if not met:
                met.append(True)
                with suppress(threading.BrokenBarrierError):
                    meeting.wait(MEET_SECONDS)

    fcntl.lockf = trying
