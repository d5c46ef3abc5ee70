"""`reverie play` from outside: seconds to the first frame, key to picture, several visitors, memory, clients that mean no good.

    python -m benchmarks.play [--world minigrid crafter] [--frames 300] [--visitors 8] [--rate 10] [--hostile 2000]
                              [--out table.md]

The server is a process of its own, as people start it; visitors are threads with real sockets. A key is sent, and the clock
stops when the picture it led to is decoded. CPU-ms a frame are what the server spent: they hold on a busy machine, too.
"""

import argparse
import os
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.play_client import Server, Visitor, serving
from benchmarks.play_hostile import assault

SHOWN = (
    "world",
    "visitors",
    "ready, s",
    "first frame, s",
    "key to picture, ms: median, 95 %",
    "frames/s each",
)
ALSO = ("CPU-ms a frame", "frames", "memory at the start, in the middle, at the end, MB")


@dataclass(frozen=True)
class Played:
    """What one load of one server came to. Milliseconds of every key; seconds, and CPU-seconds; bytes."""

    world: str
    visitors: int
    ready: tuple[float, float]
    first: float
    waits: list[float]
    rate: float
    cpu: float
    frames: int
    memory: tuple[int, int, int]

    def cells(self) -> list[str]:
        """A row of the table."""
        return [
            *(
                self.world,
                str(self.visitors),
                f"{self.ready[0]:.1f} ({self.ready[1]:.1f})",
                f"{self.first:.1f}",
            ),
            f"{statistics.median(self.waits):.0f}, {quantile(self.waits, 0.95):.0f}",
            f"{self.rate:.1f}",
            f"{self.cpu:.1f}",
            str(self.frames),
            ", ".join(f"{held / 1e6:.0f}" for held in self.memory),
        ]


def play(server: Server, world: str, visitors: int, frames: int, rate: float) -> Played:
    """`visitors` people press keys for `frames` frames each, at most `rate` a second; a tenth before is not counted.

    A dream keeps what it needs to go back (`--history`, 300 frames): memory grows until then, and not in a longer half.
    """
    pages = [Visitor(server.address) for _ in range(visitors)]
    _all([lambda page=page: page.act(max(2, frames // 10), rate) for page in pages])  # type: ignore[misc]
    for page in pages:
        page.waits.clear()
    first = server.line("first frame after").split()[3]
    memory, cpu, clock = [server.memory()], server.cpu(), time.perf_counter()
    for part in (frames // 2, frames - frames // 2):
        _all([lambda page=page, part=part: page.act(part, rate) for page in pages])  # type: ignore[misc]
        memory.append(server.memory())
    wall = time.perf_counter() - clock
    waits = [1000 * wait for page in pages for wait in page.waits]
    found = Played(
        world=world,
        visitors=visitors,
        ready=(server.ready, server.ready_cpu),
        first=float(first),
        waits=waits,
        rate=frames / wall,
        cpu=1000 * (server.cpu() - cpu) / len(waits),
        frames=len(waits),
        memory=(memory[0], memory[1], memory[2]),
    )
    for page in pages:
        page.close()
    return found


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of `values` lie, the nearest one."""
    return sorted(values)[min(len(values) - 1, round(share * (len(values) - 1)))]


def _all(works: list) -> None:  # type: ignore[type-arg]
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def table(rows: list[Played]) -> str:
    """Markdown."""
    lines = [[*SHOWN, *ALSO], ["---"] * len((*SHOWN, *ALSO)), *(row.cells() for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def main(arguments: list[str] | None = None) -> list[Played]:
    """Measures one visitor and several in each world, prints the table, and what hostile clients came to."""
    args = _arguments(arguments)
    rows: list[Played] = []
    for world in args.world:
        for visitors in dict.fromkeys((1, args.visitors)):
            with serving(world, max(1, visitors)) as server:
                rows.append(play(server, world, visitors, args.frames, args.rate if visitors == 1 else 0.0))
            print(table(rows[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
    text = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} when it ended\n\n{table(rows)}"
    if args.hostile:
        with serving(args.world[0], 2) as server:
            text += f"\n{assault(server, args.hostile)}\n"
    print(text)
    if args.out is not None:
        args.out.write_text(text)
    return rows


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.play",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--world", nargs="+", default=["minigrid", "crafter"])
    parser.add_argument("--frames", type=int, default=300, help="of each visitor")
    parser.add_argument("--visitors", type=int, default=8)
    parser.add_argument(
        "--rate", type=float, default=10.0, help="keys a second of one visitor; 0 without a pause"
    )
    parser.add_argument("--hostile", type=int, default=0, help="connections that mean no good")
    parser.add_argument("--out", type=Path, help="file for the table")
    args = parser.parse_args(arguments)
    if min(args.frames, args.visitors) < 1 or min(args.rate, args.hostile) < 0:
        parser.error("--frames and --visitors must be at least 1, --rate and --hostile not below 0")
    return args


if __name__ == "__main__":
    main()
