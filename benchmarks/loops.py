"""What a contestant offers: for a row, a function to call again and again."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks.sizes import Row, Sizes

Loop = Callable[[], object]


class CannotRun(Exception):
    """Why a contestant has no such row, in words."""


@dataclass(frozen=True)
class Place:
    """Where and how precisely things run."""

    device: torch.device
    bf16: bool
    compiled: bool = False

    def autocast(self) -> torch.autocast:
        """Mixed precision, if it is asked for."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)


Open = Callable[[Row, Sizes, Place], Loop]
"""Makes the loop of a row. Raises `CannotRun`."""
