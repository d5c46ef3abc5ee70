"""The table of a comparison, for people, and what machine and code it was made with."""

import platform
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.contest import ROOT, Found
from reverie.pipelines.training.matmul import device_name, matmul_rate

OURS = "ours"


def machine(settings: dict[str, Any], python: str) -> dict[str, Any]:
    """Device, its rates of matrix products, versions, commit; `python` is the interpreter of the public packages."""
    torch.set_num_threads(settings["threads"])
    device = torch.device(settings["device"])
    rates = {str(x).removeprefix("torch."): matmul_rate(device, x) for x in (torch.float32, torch.bfloat16)}
    return {
        "device": device_name(device),
        "threads": settings["threads"],
        "precision": "bf16" if settings["bf16"] else "float32",
        "matmul FLOP/s": {name: round(rate, -8) for name, rate in rates.items()},
        "python": platform.python_version(),
        "torch": torch.__version__,
        "dreamer4": _version("dreamer4", python),
        "commit": commit(ROOT),
    }


def commit(folder: Path) -> str:
    """Of a checkout; with a + where files have changed since."""
    try:
        asked = ["git", "-C", str(folder), "describe", "--always", "--dirty=+", "--abbrev=7", "--exclude=*"]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def write_table(found: Sequence[Found], about: dict[str, Any]) -> str:
    """Markdown: what it was measured with, then a line for every row and contestant."""
    clock = "CPU-seconds" if about["threads"] and about.get("clock", "cpu") == "cpu" else "seconds"
    lines = [f"- {name}: {_text(value)}" for name, value in about.items()]
    lines += ["", f"| | | {clock}: min, median, max | over ours: min, median, max |", "|---|---|---|---|"]
    ours = {x.row: x for x in found if x.contestant == OURS}
    for each in found:
        lines.append(
            f"| {each.row} | {each.contestant} | {_seconds(each)} | {_ratios(each, ours.get(each.row))} |"
        )
    return "\n".join(lines) + "\n"


def spread(values: Sequence[float], form: str) -> str:
    """Minimum, median and maximum."""
    return " ".join(f"{x:{form}}" for x in (min(values), statistics.median(values), max(values)))


def _seconds(found: Found) -> str:
    return found.problem or spread(found.seconds, ".4g")


def _ratios(found: Found, ours: Found | None) -> str:
    if ours is None or found is ours or found.problem or ours.problem or not found.seconds:
        return ""
    return spread(found.ratios(ours), ".2f")


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {x:.3g}" for name, x in value.items())
    return str(value)


def _version(package: str, python: str) -> str:
    """Of a package, as another interpreter has it."""
    asked = [python, "-c", f"from importlib.metadata import version; print(version({package!r}))"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "none"
