"""Which step, term and batch first was not finite, remembered without making the device wait."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

GRADIENT_NORM = "gradient_norm"
_SHOWN = 4


@dataclass(frozen=True)
class _Step:
    number: int
    names: tuple[str, ...]
    values: Tensor
    keys: Sequence[str]


class FiniteSteps:
    """Takes every step's figures; `problem` looks at them, once for all steps since it last did."""

    def __init__(self) -> None:
        self._steps: list[_Step] = []

    def add(self, number: int, values: Mapping[str, Tensor], keys: Sequence[str]) -> None:
        """The scalars of step `number` (from 1) on a batch whose rows have `keys`."""
        stacked = torch.stack([value.detach().double() for value in values.values()])
        self._steps.append(_Step(number, tuple(values), stacked, keys))

    def problem(self) -> str | None:
        """`loss/policy is not finite at step 57 (rows ...)`, or None; forgets what it has looked at."""
        steps, self._steps = self._steps, []
        if not steps:
            return None
        finite = torch.isfinite(torch.cat([step.values for step in steps])).tolist()
        for step in steps:
            fine, finite = finite[: len(step.names)], finite[len(step.names) :]
            if not all(fine):
                bad = [name for name, good in zip(step.names, fine, strict=True) if not good]
                return f"{_term(bad)} is not finite at step {step.number} ({rows_text(step.keys)})"
        return None


def _term(names: list[str]) -> str:
    """The narrowest one: a part of the loss before its sum, a loss before the gradients that follow from it."""
    return min(names, key=lambda name: (not name.startswith("loss/"), name != "loss", name != GRADIENT_NORM))


def rows_text(keys: Sequence[str]) -> str:
    """`batch of <source:frame>, ...`: where the rows of a batch start."""
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return f"batch of {', '.join(keys[:_SHOWN])}{more}"
