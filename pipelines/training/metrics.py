"""Metrics of a run: metrics.jsonl (exact, cut back on resume), a board such as TensorBoard, and one line for people."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from reverie.data.errors import UserError
from reverie.data.files.documents import read_bounded
from reverie.pipelines.runs.atomic import write_text
from reverie.pipelines.runs.run import RunFolder
from reverie.pipelines.training.boards import Logger, open_board

_MOST_BYTES = 1 << 28
"""Of a metrics.jsonl: a million rows."""


class MetricsLog:
    """Writes rows `{"step": s, name: value, ...}`; rows after `step`, from before an interruption, are dropped."""

    def __init__(self, run: RunFolder, step: int, logger: Logger = "tensorboard") -> None:
        self._path = run.metrics
        _truncate(run.metrics, step)
        self._board = open_board(logger, run, step)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One row; numbers only."""
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        self._board.numbers(step, values)

    def show(self, step: int, shown: Mapping[str, np.ndarray]) -> None:
        """Pictures (H, W, 3) and films (T, H, W, 3), uint8, on the board."""
        for name, picture in shown.items():
            (self._board.picture if picture.ndim == 3 else self._board.film)(step, name, picture)

    def close(self) -> None:
        """Flushes the board."""
        self._board.close()


class Averages:
    """Running means of detached scalar tensors, summed on their device: no synchronisation until `take`."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, metrics: Mapping[str, Tensor]) -> None:
        """Takes one step's metrics in."""
        for name, value in metrics.items():
            value = value.detach().double()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def take(self, prefix: str = "") -> dict[str, float]:
        """The means since the last call, as plain numbers under `prefix`."""
        if not self._sums:
            return {}
        values = torch.stack([self._sums[name] / self._counts[name] for name in self._sums]).tolist()
        taken = {prefix + name: value for name, value in zip(self._sums, values, strict=True)}
        self._sums, self._counts = {}, {}
        return taken


def describe(values: Mapping[str, float]) -> str:
    """`loss 0.412  psnr 28.1`: four significant digits, prefixes dropped."""
    return "  ".join(f"{name.split('/', 1)[-1]} {value:.4g}" for name, value in values.items())


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of a metrics.jsonl; damaged lines, such as a half-written last one, are left out."""
    return [row for line in _lines(path) if (row := _row(line)) is not None]


def _lines(path: Path) -> list[bytes]:
    try:
        return read_bounded(path, _MOST_BYTES).splitlines()
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(f"{path}: cannot be read ({reason}); move it away, and a new one is begun.") from None


def _row(line: bytes) -> dict[str, float] | None:
    """The row that a line holds, None if it holds none: a step of at least 0 and numbers by name."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not all(_is_number(value) for value in row.values()):
        return None
    step = row.get("step")
    return row if isinstance(step, int) and step >= 0 else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _truncate(path: Path, step: int) -> None:
    """Keeps the whole rows up to `step`."""
    lines, rows = _lines(path), read_metrics(path)
    if lost := len(lines) - len(rows):
        print(f"{path}: {lost} damaged lines are left out.", file=sys.stderr)
    kept = [row for row in rows if row["step"] <= step]
    if lines:
        write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
