"""Actions as people write them, whole numbers or arrays, as the named components that models take."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from reverie.data.actions import ActionSpace
from reverie.data.errors import UserError
from reverie.dynamics.frame import Step


def batch_of_steps(
    space: ActionSpace, given: Any, rows: int, single: bool, place: str, steps: int | None = None
) -> Step:
    """`given` as a `Step` of (rows, T, ...), all known; None as `steps` unknown ones.

    Args:
      given: one array for a space of one component, else component -> array; (T, ...) if `single`, else (rows, T, ...). For a
        space without components the number of steps.
      place: what it is called, for errors.
      steps: T, where it must be that.

    Raises:
      UserError: names, shapes or ranges are not those of `space`.
    """
    if given is None:
        return _unknown(space, rows, steps or 0)
    if not space.components:
        return _unknown(space, rows, int(np.asarray(given).reshape(-1)[0]))
    named = _named(space, given, place)
    arrays = {name: np.asarray(x)[None] if single else np.asarray(x) for name, x in named.items()}
    lengths = {array.shape[:2] for array in arrays.values()}
    if len(lengths) != 1 or (shape := lengths.pop())[:1] != (rows,) or len(shape) < 2:
        form = "(T, ...)" if single else f"({rows}, T, ...)"
        raise UserError(f"{place}: every component must be {form}, T steps of all of them.")
    if steps is not None and shape[1] != steps:
        raise UserError(
            f"{place}: has {shape[1]} steps, but there are {steps} frames; give one action for each."
        )
    flat = {name: array.reshape(-1, *array.shape[2:]) for name, array in arrays.items()}
    checked = space.check(flat, rows * shape[1], place)
    tensors = {name: torch.from_numpy(x.reshape(rows, shape[1], *x.shape[1:])) for name, x in checked.items()}
    return Step(tensors, torch.ones(rows, shape[1], dtype=torch.bool))


def _named(space: ActionSpace, given: Any, place: str) -> Mapping[str, Any]:
    if isinstance(given, Mapping):
        return given
    if len(space.components) != 1:
        names = ", ".join(space.components)
        raise UserError(
            f"{place}: there are several components, {names}; give a mapping from each to its array."
        )
    return {next(iter(space.components)): given}


def _unknown(space: ActionSpace, rows: int, steps: int) -> Step:
    return Step(space.null(rows, steps), torch.zeros(rows, steps, dtype=torch.bool))
