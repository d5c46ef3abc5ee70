"""Contestants side by side: in every repeat each runs once, so that a busy machine slows all of them alike."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.sizes import Row

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Contestant:
    """Who runs the rows.

    name: in the table. module: of `benchmarks.worker`. python: interpreter. source: folder with the package `reverie`.
    """

    name: str
    module: str
    python: str = sys.executable
    source: Path = ROOT / "src"


@dataclass
class Found:
    """Seconds of one call in every repeat, or why there are none."""

    row: str
    contestant: str
    seconds: list[float] = field(default_factory=list)
    problem: str | None = None

    def ratios(self, ours: "Found") -> list[float]:
        """This contestant's time over ours, repeat by repeat: above 1 ours is faster."""
        return [a / b for a, b in zip(self.seconds, ours.seconds, strict=False)]


class Process:
    """A worker that is asked one question at a time."""

    def __init__(self, contestant: Contestant, settings: dict[str, Any]) -> None:
        threads = str(settings["threads"])
        paths = os.pathsep.join([str(contestant.source), str(ROOT)])
        environment = os.environ | {
            "PYTHONPATH": paths,
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
        }
        command = [contestant.python, "-m", "benchmarks.worker", contestant.module, json.dumps(settings)]
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def ask(self, do: str, **named: Any) -> dict[str, Any]:
        """Its answer; a `problem` if it has died."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **named}).encode() + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = b""
        found: dict[str, Any] = json.loads(line) if line else {"problem": self._last_words()}
        return found

    def close(self) -> None:
        """Ends it."""
        self._process.kill()
        self._process.communicate()

    def _last_words(self) -> str:
        assert self._process.stderr is not None
        said = self._process.stderr.read().decode(errors="replace").strip().splitlines()
        return f"died ({said[-1][:160] if said else f'code {self._process.wait()}'})"


def compete(
    rows: Sequence[Row], contestants: Sequence[Contestant], settings: dict[str, Any], repeats: int
) -> list[Found]:
    """Every row by every contestant, with a line a row on the way."""
    results = []
    with ExitStack() as stack:
        processes = {x.name: Process(x, settings) for x in contestants}
        for process in processes.values():
            stack.callback(process.close)
        for row in rows:
            results += _compete_in(row, processes, settings, repeats)
            print(f"{row.name}: done", file=sys.stderr, flush=True)
    return results


def _compete_in(
    row: Row, processes: dict[str, Process], settings: dict[str, Any], repeats: int
) -> list[Found]:
    found = {name: Found(row.name, name) for name in processes}
    for name, process in processes.items():
        found[name].problem = process.ask("open", row=asdict(row)).get("problem")
    clock = "cpu" if settings["device"] == "cpu" else "wall"
    for _ in range(repeats):
        for name, process in processes.items():
            if found[name].problem is None:
                answer = process.ask("run")
                found[name].problem = answer.get("problem")
                found[name].seconds += [answer[clock]] if clock in answer else []
    for process in processes.values():
        process.ask("close")
    return list(found.values())
