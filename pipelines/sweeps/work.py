"""Works off the runs of a plan: parents before children, as many at a time as there are free slots.

A failed run costs what needs it, and nothing else.
"""

import signal
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from statistics import mean

from reverie.pipelines.runs.stops import Stopped
from reverie.pipelines.sweeps.plan import Run
from reverie.pipelines.sweeps.slots import Engine

SHELL = "$ "
"""Before the command in a log; what follows is what this launch of it said."""


@dataclass
class Board:
    """Where a sweep stands.

    finished  names of the runs whose folders are whole
    failed    name -> why, one sentence
    kept      name -> the failed run that it would have needed
    seconds   command -> how long its runs of this launch took
    """

    runs: Mapping[str, Run]
    finished: set[str]
    failed: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    began: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)

    @property
    def ready(self) -> list[Run]:
        """Runs that can begin now, in the order of the plan."""
        return [run for run in self.waiting if all(parent in self.finished for parent in run.parents)]

    @property
    def waiting(self) -> list[Run]:
        """Runs that have not begun, and that nothing stands against."""
        out = {*self.finished, *self.failed, *self.kept, *self.began}
        return [run for run in self.runs.values() if run.name not in out]

    def begin(self, run: Run) -> None:
        """A run has been started."""
        self.began[run.name] = time.monotonic()

    def end(self, run: Run, problem: str) -> None:
        """A run has ended; `problem` is empty where its folder is whole."""
        took = time.monotonic() - self.began.pop(run.name)
        if not problem:
            self.finished.add(run.name)
            self.seconds.setdefault(run.command, []).append(took)
            return
        self.failed[run.name] = problem
        for other in self.runs.values():  # parents first, so that grandchildren are met as well
            lost = next((p for p in other.parents if p in self.failed or p in self.kept), None)
            if lost is not None and other.name not in self.finished:
                self.kept[other.name] = self.kept.get(lost, lost)

    def left(self, slots: int) -> str:
        """How long the rest takes, from what runs of this launch took; empty before the first one has ended."""
        if not self.seconds:
            return ""
        known = {command: mean(took) for command, took in self.seconds.items()}
        usual = mean(known.values())
        now = time.monotonic()
        rest = sum(known.get(run.command, usual) for run in self.waiting)
        for name, since in self.began.items():
            rest += max(0.0, known.get(self.runs[name].command, usual) - (now - since))
        return f", about {timedelta(seconds=round(rest / slots))} left"

    def line(self, slots: int) -> str:
        """Counts, for people."""
        parts = [f"{len(self.finished)} of {len(self.runs)} done", f"{len(self.began)} running"]
        parts += [f"{len(self.failed)} failed"] * bool(self.failed)
        parts += [f"{len(self.kept)} not begun for that"] * bool(self.kept)
        return ", ".join(parts) + self.left(slots)


def work_off(
    board: Board, engine: Engine, slots: int, problem: Callable[[Run, int], str], say: Callable[[str], None]
) -> None:
    """Runs what is not finished.

    Args:
      problem: why a run that ended with an exit code is not finished; empty where it is.
      say: takes a line for people.

    Raises:
      Stopped: after Ctrl-C or SIGTERM, when all that ran has saved.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        while board.began or board.ready:
            while engine.free and (ready := board.ready):
                board.begin(ready[0])
                engine.start(ready[0])
                say(f"{ready[0].name}: begins; {board.line(slots)}")
            run, code = engine.wait()
            board.end(run, problem(run, code))
            verdict = f"failed: {board.failed[run.name]}" if run.name in board.failed else "is done"
            say(f"{run.name}: {verdict}; {board.line(slots)}")
    except KeyboardInterrupt:
        say(f"stopping; {len(board.began)} runs save first, a second Ctrl-C does not wait for that")
        engine.stop()
        raise Stopped(
            f"Stopped with {len(board.finished)} of {len(board.runs)} runs done; the same command continues from here."
        ) from None


def why(log: Path, code: int) -> str:
    """Why a command failed: the last thing it said in its latest launch, or the signal that ended it."""
    if code < 0:
        name = signal.Signals(-code).name
        return f"ended by {name}" + (", mostly because memory ran out" if name == "SIGKILL" else "")
    said = list(_said(log))
    told = [line for line in said if line.startswith("reverie: ")] or said or [f"code {code}, without a word"]
    return told[-1].removeprefix("reverie: ")


def _said(log: Path) -> Iterable[str]:
    try:
        text = log.read_text(errors="replace")
    except OSError:
        return []
    latest = text.rpartition(f"\n{SHELL}")[2]
    return [line.strip() for line in latest.splitlines()[1:] if line.strip()]


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
