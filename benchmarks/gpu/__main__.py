"""Everything that needs a GPU, in calls of a few minutes that go on where the last one ended.

    python -m benchmarks.gpu [--minutes 9.5] [--out gpu.json] [--only NAME ...] [--again] [--small]

Rows stand in order of their value. One that was measured, or failed, is not run again; one that does not fit into the
time that is left waits for the next call. Without a GPU sizes are small, which tests everything but the figures.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.contest import ROOT
from benchmarks.gpu.rows import ROWS, Row
from benchmarks.gpu.store import Store
from benchmarks.table import commit
from reverie.pipelines.training.matmul import device_name

SMALL_SECONDS = 20.0
"""What a row of small sizes is taken to last."""


def main(arguments: list[str] | None = None) -> int:
    """Runs what fits; 0 if all rows have been run, 3 if some are left."""
    args = _arguments(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    small = args.small or device.type == "cpu"
    store = Store(args.out, device_name(device) + (", small sizes" if small else ""))
    rows = [row for row in ROWS if not args.only or any(word in row.name for word in args.only)]
    end = time.monotonic() + 60 * args.minutes
    for row in rows:
        if (args.again and args.only) or row.name not in store.records():
            _run(row, store, args.folder, small, end)
    left = [row.name for row in rows if row.name not in store.records()]
    print(write_table(store, rows))
    if left:
        print(f"{len(left)} rows are left; the same command goes on: {'; '.join(left)}")
    return 3 if left else 0


def _run(row: Row, store: Store, folder: Path, small: bool, end: float) -> None:
    """Measures a row in a process of its own, if it is likely to end in time, and writes its record."""
    left, needed = end - time.monotonic(), SMALL_SECONDS if small else row.seconds
    if left < needed:
        print(f"{row.name}: takes {needed:.0f} s, {max(left, 0):.0f} s are left", flush=True)
        return
    print(f"{row.name} ...", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / "record.json"
    out.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.gpu.worker", row.name, str(folder), str(out)]
    begun = time.monotonic()
    try:
        done = subprocess.run([*command, *["--small"] * small], cwd=ROOT, timeout=left, stdout=sys.stderr)
        record = (
            json.loads(out.read_text()) if out.is_file() else {"problem": f"died with code {done.returncode}"}
        )
    except subprocess.TimeoutExpired:
        if left < 4 * needed:
            print(f"{row.name}: did not end in {left:.0f} s, and is left for the next call", flush=True)
            return
        record = {"problem": f"did not end in {left:.0f} s"}
    store.put(row.name, record | {"took": time.monotonic() - begun, **_versions()})


def write_table(store: Store, rows: list[Row]) -> str:
    """Markdown: a line for every row."""
    lines = [f"Device: {store.device}", "", "| | goal | measured |", "|---|---|---|"]
    records = store.records()
    lines += [f"| {row.name} | {row.goal} | {_measured(records.get(row.name))} |" for row in rows]
    return "\n".join(lines) + "\n"


def _measured(record: dict[str, Any] | None) -> str:
    if record is None:
        return "not yet"
    if "problem" in record:
        return str(record["problem"])
    return _words(record["figures"])


def _words(figures: dict[str, Any]) -> str:
    """The figures that a table has room for."""
    known = {
        "frames_per_second": "frames/s {:.4g}",
        "mfu": "MFU {:.1%}",
        "peak_memory": "memory {:.3g} B",
        "planned_memory": "planned {:.3g} B",
        "rows": "batch {}",
        "last_over_first": "last over first {:.3f}",
        "last": "PSNR {:.2f} dB",
        "seconds": "{:.3g} s",
    }
    found = {name: figures[name] for name in known if isinstance(figures.get(name), float | int)}
    parts = {
        name: x for name, x in figures.items() if isinstance(x, dict) and ("seconds" in x or "rows" in x)
    }
    shown = [known[name].format(x) for name, x in found.items()]
    return ", ".join([*shown, *(f"{name}: {_words(x)}" for name, x in parts.items())])


def _versions() -> dict[str, str]:
    return {"commit": commit(ROOT), "torch": torch.__version__}


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=9.5, help="time of this call")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="records of all calls")
    parser.add_argument(
        "--folder", type=Path, default=Path("/tmp/reverie-gpu"), help="for data that rows share"
    )
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="rows whose names have these words"
    )
    parser.add_argument("--again", action="store_true", help="with --only: run rows that have a record, too")
    parser.add_argument("--small", action="store_true", help="small sizes on a GPU, too")
    args = parser.parse_args(arguments)
    if args.again and not args.only:
        parser.error("--again: name the rows to run again by --only")
    return args


if __name__ == "__main__":
    sys.exit(main())
