"""Loops that are measured beside each other: every repeat runs each once, so that a busy machine slows all of them alike."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One measured loop over `frames` frames; `reference` is the row it is compared with.

    `open` is called in every repeat before the clock runs and returns what is measured.
    """

    name: str
    frames: int
    open: Callable[[], Callable[[], object]]
    reference: str | None = None


@dataclass
class Times:
    """Seconds a frame of a row in every repeat, on the processor and by the clock."""

    row: Row
    cpu: list[float]
    wall: list[float]


def measure(rows: list[Row], repeats: int) -> list[Times]:
    """Runs every row once a repeat."""
    found = [Times(row, [], []) for row in rows]
    for number in range(repeats + 1):
        for times in found:
            run = times.row.open()
            cpu, wall = time.process_time(), time.perf_counter()
            run()
            if number:  # the first round only warms up
                times.cpu.append((time.process_time() - cpu) / times.row.frames)
                times.wall.append((time.perf_counter() - wall) / times.row.frames)
    return found


def show(found: list[Times]) -> None:
    """Prints one line a row."""
    print(
        f"{'':48s} {'CPU-ms a frame: min, median, max':33s} | frames/s | times the plain loop: min, median, max"
    )
    by_name = {times.row.name: times for times in found}
    for times in found:
        row, rate = times.row, 1 / statistics.median(times.wall)
        line = f"{row.name:48s} {spread([1000 * x for x in times.cpu], '10.4f')} | {rate:8.0f} |"
        if row.reference is not None:
            ratios = [a / b for a, b in zip(times.cpu, by_name[row.reference].cpu, strict=True)]
            line += f" {spread(ratios, '6.3f')}"
        print(line, flush=True)


def spread(values: list[float], form: str) -> str:
    """Minimum, median and maximum."""
    return " ".join(f"{value:{form}}" for value in (min(values), statistics.median(values), max(values)))
