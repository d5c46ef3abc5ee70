"""What is measured on a GPU, most valuable first. Every row runs in a process of its own and returns plain figures."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.gpu import generation, learning, pipeline, training


@dataclass(frozen=True)
class Work:
    """Where a row works, and at which sizes.

    folder  for data that rows share
    small   the preset nano and few steps, so that every row runs on a CPU
    """

    folder: Path
    small: bool

    def preset(self, name: str) -> str:
        """The preset that a row takes in place of `name`."""
        return "nano" if self.small else name

    def steps(self, count: int) -> int:
        """Steps that a row takes in place of `count`."""
        return max(1, count // 50) if self.small else count


Measure = Callable[[Work], dict[str, Any]]


@dataclass(frozen=True)
class Row:
    """One measurement: its name, what is hoped for, how long it takes on a large GPU, and how it is made."""

    name: str
    seconds: float
    measure: Measure
    goal: str = ""


def _rows() -> list[Row]:
    frame, step = generation.frames, training.step
    rows = [
        Row("paper, frames, 1 video", 60, partial(frame, preset="paper", videos=1), "80 frames/s"),
        Row("paper, frames, 16 videos", 60, partial(frame, preset="paper", videos=16), "140 frames/s"),
        Row(
            "paper, frames, 1 video, no CUDA graphs",
            60,
            partial(generation.unrecorded, preset="paper", videos=1),
        ),
        Row("paper, dynamics step", 120, partial(step, stage="dynamics", preset="paper"), "MFU 50 %"),
        Row("paper, tokenizer step", 120, partial(step, stage="tokenizer", preset="paper"), "MFU 45 %"),
        Row("paper, 10,000 frames", 200, generation.flat, "the last thousand as fast as the first"),
        Row("base, end to end", 240, pipeline.end_to_end),
    ]
    rows += [
        Row(f"paper, dynamics step, {name}", 90, partial(step, stage="dynamics", preset="paper", **how))
        for name, how in training.ATTENTION.items()
    ]
    rows += [
        Row(f"paper, frames, {name}", 60, partial(frame, preset="paper", videos=1, **how))
        for name, how in training.ATTENTION.items()
    ]
    rows += [Row("memory plan beside steps of base", 120, training.memory)]
    rows += [
        Row(
            f"nano tokenizer learns, {precision}, {optimizer}",
            100,
            partial(learning.curve, precision=precision, optimizer=optimizer),
        )
        for optimizer in ("adamw", "muon")
        for precision in ("32-true", "bf16-mixed")
    ]
    rows += [
        Row("base, frames, 1 video", 40, partial(frame, preset="base", videos=1)),
        Row("small, frames, 1 video", 40, partial(frame, preset="small", videos=1)),
        Row("base, dynamics step", 60, partial(step, stage="dynamics", preset="base")),
        Row("base, tokenizer step", 60, partial(step, stage="tokenizer", preset="base")),
    ]
    return rows


ROWS = _rows()
