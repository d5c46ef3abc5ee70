"""The most expensive operations of a trace in Chrome's format, as torch's profiler writes it.

On a processor each operation counts without those that it calls; on a GPU kernels count.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple


class Cost(NamedTuple):
    """One operation: how often it ran, and seconds of its own."""

    name: str
    calls: int
    seconds: float


def most_expensive(trace: Path, count: int) -> list[Cost]:
    """The `count` operations that took longest, by kernels where there are any."""
    events = [x for x in json.loads(trace.read_text())["traceEvents"] if x.get("ph") == "X"]
    kernels = [x for x in events if x.get("cat") == "kernel"]
    times = ((x["name"], x["dur"]) for x in kernels) if kernels else own_times(events)
    calls, total = defaultdict[str, int](int), defaultdict[str, float](float)
    for name, microseconds in times:
        calls[name] += 1
        total[name] += microseconds / 1e6
    return sorted((Cost(name, calls[name], total[name]) for name in total), key=lambda x: -x.seconds)[:count]


def own_times(events: Sequence[Any]) -> Iterator[tuple[str, float]]:
    """Name and microseconds of every processor operation, without those that ran inside it on its thread."""
    threads = defaultdict[Any, list[Any]](list)
    for event in events:
        if event.get("cat") == "cpu_op":
            threads[event["tid"]].append(event)
    for found in threads.values():
        yield from _own_times_of_thread(sorted(found, key=lambda x: (x["ts"], -x["dur"])))


def _own_times_of_thread(events: Iterable[Any]) -> Iterator[tuple[str, float]]:
    open_ones: list[list[Any]] = []  # name, end, own time so far

    def close(until: float) -> Iterator[tuple[str, float]]:
        while open_ones and open_ones[-1][1] <= until:
            name, _, own = open_ones.pop()
            yield name, own

    for event in events:
        yield from close(event["ts"])
        if open_ones:
            open_ones[-1][2] -= event["dur"]
        open_ones.append([event["name"], event["ts"] + event["dur"], event["dur"]])
    yield from close(float("inf"))
