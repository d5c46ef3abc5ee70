"""A progress bar with rate and time left; plain, occasional lines when the output is not a terminal."""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from datetime import timedelta
from typing import TextIO, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

T = TypeVar("T")
PLAIN_INTERVAL = 15.0
"""Seconds between two lines when the output is a file or a pipe."""


class Meter:
    """Counts finished items of one activity and shows them. Use through `progress` or `meter`."""

    def __init__(
        self, description: str, total: int | None, start: int = 0, stream: TextIO | None = None
    ) -> None:
        self.description, self.total, self.done = description, total, start
        self._stream = stream or sys.stderr
        self._start, self._began = start, time.monotonic()
        self._printed = self._began
        self._bar = _rich_bar(self._stream) if self._stream.isatty() else None
        if self._bar is not None:
            self._task = self._bar.add_task(description, total=total, completed=start, note="")
            self._bar.start()

    @property
    def rate(self) -> float:
        """Items per second since the meter started."""
        return (self.done - self._start) / max(time.monotonic() - self._began, 1e-9)

    def update(self, steps: int = 1, note: str = "") -> None:
        """`steps` more items are finished; `note` stands behind the bar."""
        self.done += steps
        if self._bar is not None:
            self._bar.update(self._task, advance=steps, note=note)
        elif time.monotonic() - self._printed >= PLAIN_INTERVAL:
            self._printed = time.monotonic()
            self._print_line(note)

    def line(self, text: str) -> None:
        """Prints one lasting line above the bar."""
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False, soft_wrap=True)
        else:
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Stops drawing."""
        if self._bar is not None:
            self._bar.stop()

    def _print_line(self, note: str) -> None:
        of_total = f"/{self.total}" if self.total is not None else ""
        left = f", {_eta(self)} left" if self.total is not None and self.rate > 0 else ""
        tail = f"  {note}" if note else ""
        print(
            f"{self.description} {self.done}{of_total}  {_rate(self.rate)}{left}{tail}",
            file=self._stream,
            flush=True,
        )


@contextmanager
def meter(description: str, total: int | None = None, *, start: int = 0) -> Iterator[Meter]:
    """A `Meter` that is closed at the end of the block, also after an error."""
    shown = Meter(description, total, start)
    try:
        yield shown
    finally:
        shown.close()


def progress(items: Iterable[T], description: str) -> Iterator[T]:
    """Yields from `items` while showing count, rate and, where `items` has a length, the time left."""
    total = len(items) if isinstance(items, Sized) else None
    with meter(description, total) as shown:
        for item in items:
            yield item
            shown.update()


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(_rate(task.speed or 0.0), style="progress.data.speed")


def _rich_bar(stream: TextIO) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    return Progress(*columns, console=Console(file=stream), refresh_per_second=4)


def _rate(per_second: float) -> str:
    return f"{per_second:.1f}/s" if per_second >= 1 or per_second == 0 else f"{1 / per_second:.1f} s each"


def _eta(meter: Meter) -> str:
    assert meter.total is not None
    return str(timedelta(seconds=round((meter.total - meter.done) / meter.rate)))
