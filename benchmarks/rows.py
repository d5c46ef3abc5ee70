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


def measure(rows: list[Row], repeats: int) -> None:
    """Runs every row once a repeat and prints one line a row."""
    cpu: dict[str, list[float]] = {row.name: [] for row in rows}
    wall: dict[str, list[float]] = {row.name: [] for row in rows}
    for number in range(repeats + 1):
        for row in rows:
            run = row.open()
            c, w = time.process_time(), time.perf_counter()
            run()
            if number:  # the first round only warms up
                cpu[row.name].append(1000 * (time.process_time() - c) / row.frames)
                wall[row.name].append((time.perf_counter() - w) / row.frames)
    print(
        f"{'':48s} {'CPU-ms a frame: min, median, max':33s} | frames/s | times the plain loop: min, median, max"
    )
    for row in rows:
        rate = 1 / statistics.median(wall[row.name])
        line = f"{row.name:48s} {spread(cpu[row.name], '10.4f')} | {rate:8.0f} |"
        if row.reference is not None:
            ratios = [a / b for a, b in zip(cpu[row.name], cpu[row.reference], strict=True)]
            line += f" {spread(ratios, '6.3f')}"
        print(line, flush=True)


def spread(values: list[float], form: str) -> str:
    """Minimum, median and maximum."""
    return " ".join(f"{value:{form}}" for value in (min(values), statistics.median(values), max(values)))
