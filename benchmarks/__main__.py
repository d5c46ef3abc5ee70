"""What the hot paths cost beside plain torch, public packages and older code of this project, in one table.

    python -m benchmarks [--quick] [--only NAME ...] [--repeats 5] [--threads 1] [--bf16] [--compile] [--device cpu]
                         [--against FOLDER] [--python FILE] [--out table.md]

Times are CPU-seconds of one call (seconds on a GPU), ratios those of equal repeats. `--python` names an interpreter that
has the public packages, where this one has not.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import torch

from benchmarks.contest import Contestant, Found, compete
from benchmarks.sizes import ROWS, Row
from benchmarks.table import OURS, commit, machine, write_table

LOADER = "loader"
"""What `--only` calls the rows about reading data."""


def main(arguments: list[str] | None = None) -> int:
    """Measures, prints the table, and writes it."""
    args = _arguments(arguments)
    rows = _rows(args)
    settings = {"threads": args.threads, "bf16": args.bf16, "device": args.device, "tiny": args.tiny}
    about = machine(settings, args.python) | {
        "clock": "cpu" if args.device == "cpu" else "wall",
        "repeats": args.repeats,
    }
    contestants = [
        Contestant("ours", "ours"),
        *([Contestant("ours, compiled", "compiled")] if args.compile else []),
        Contestant("plain torch", "reference"),
        Contestant("dreamer4", "dreamer4", python=args.python),
    ]
    if args.against is not None:
        about["against"] = commit(args.against)
        contestants.append(Contestant(f"ours at {about['against']}", "ours", source=args.against / "src"))
    found = compete(rows, contestants, settings, args.repeats)
    if _loads(args):
        found += loading(args.repeats)
    table = write_table(found, about)
    print(table)
    if args.out is not None:
        args.out.write_text(table)
        raw = {"about": about, "rows": [asdict(x) for x in found]}
        args.out.with_suffix(".json").write_text(json.dumps(raw, indent=1) + "\n")
    return 0


def loading(repeats: int) -> list[Found]:
    """The loader beside plain loops that decode the same frames; seconds a frame."""
    from benchmarks.data import (  # decord and webdataset are imported for this alone
        loading_times,
        make_videos,
    )

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        times = loading_times(make_videos(root / "videos", (128, 128)), root, (128, 128), 1024, repeats)
    by_name, found = {x.row.name: x.cpu for x in times}, []
    for each in times:
        if each.row.reference is not None:
            found.append(Found(f"{each.row.name}, a frame", OURS, each.cpu))
            found.append(Found(f"{each.row.name}, a frame", "plain loop", by_name[each.row.reference]))
    return found


def _loads(args: argparse.Namespace) -> bool:
    """Whether the loader is measured, too: it has no GPU, and takes a minute."""
    if args.only:
        return any(word.lower() in LOADER for word in args.only)
    return not args.quick and args.device == "cpu"


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="short rows alone, two repeats")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="rows whose names have these words"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bf16", action="store_true", help="bfloat16 autocast")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--compile", action="store_true", help="ours compiled, too; takes minutes the first time"
    )
    parser.add_argument("--against", type=Path, help="another checkout of this project")
    parser.add_argument("--python", default=sys.executable, help="interpreter that has the public packages")
    parser.add_argument("--tiny", action="store_true", help="sizes for tests")
    parser.add_argument("--out", type=Path, help="file for the table; the figures go beside it as .json")
    args = parser.parse_args(arguments)
    _check(parser, args)
    if args.quick:
        args.repeats = min(args.repeats, 2)
    return args


def _check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.repeats < 1 or args.threads < 1:
        parser.error("--repeats and --threads must be at least 1")
    if args.against is not None and not (args.against / "src" / "reverie").is_dir():
        parser.error(f"--against {args.against}: has no src/reverie; give the folder of a checkout")
    if not _rows(args) and not _loads(args):
        parser.error(
            f"--only {' '.join(args.only)}: no row has such a name; use words of {', '.join(x.name for x in ROWS)}, {LOADER}"
        )
    try:
        torch.zeros(1, device=args.device)
    except (RuntimeError, AssertionError):
        parser.error(f"--device {args.device}: is not here")


def _rows(args: argparse.Namespace) -> list[Row]:
    chosen = [row for row in ROWS if not (args.quick and row.slow)]
    if args.only:
        chosen = [row for row in ROWS if any(word.lower() in row.name.lower() for word in args.only)]
    return [replace(row, calls=1) if args.quick else row for row in chosen]


if __name__ == "__main__":
    sys.exit(main())
