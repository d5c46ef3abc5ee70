"""Gymnasium's action spaces as ours, and our actions as the values the game expects, in its own dtypes.

| Gymnasium                                | ours                                                                      |
|------------------------------------------|---------------------------------------------------------------------------|
| Discrete                                 | one `Categorical`; class i is start + i                                   |
| MultiBinary                              | one `Binary`                                                              |
| MultiDiscrete                            | a `Categorical` per number                                                |
| Box of whole numbers, up to 256 values   | a `Categorical` per number; class i is low + i                            |
| Box of more whole numbers                | one `Continuous`; its range [-1, 1] is cut into as many equal parts       |
| Box of floats                            | one `Continuous`; -1 is low, 1 is high                                    |
| Dict, Tuple                              | the components of all members, named by their paths                       |

Members without any number (shape (0,)) have no component. Everything else is refused.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from gymnasium import spaces

from reverie.data.actions import ActionSpace, Binary, Categorical, Component, Continuous
from reverie.data.errors import UserError

Ranges = Sequence[float] | Mapping[str, Sequence[float]]
"""[low, high] for all numbers without bounds, or for those of the named components."""

_HUGE = 1e30
"""Bounds from here on mean none: some libraries declare the largest float32."""
_MOST_CLASSES = 256
_MOST_STEPS = 1 << 22
"""Whole numbers that a float32 in [-1, 1] can tell apart, with room to spare."""
_MOST_VALUES = 1 << 20
_MOST_COMPONENTS = 1024

_Build = Callable[[Mapping[str, np.ndarray]], Any]


@dataclass(frozen=True)
class NativeActions:
    """One game's actions in both forms.

    action_space  ours
    """

    action_space: ActionSpace
    _build: _Build

    @classmethod
    def of(cls, space: spaces.Space, place: str, ranges: Ranges | None = None) -> "NativeActions":
        """For `space`. Raises `UserError` naming `place` where a part of it has no counterpart.

        `ranges` bounds the numbers of Boxes that have no bounds, or huge ones, on a side.
        """
        translation = _Translation(place, ranges)
        build = translation.part(space, ())
        translation.require_usable()
        return cls(ActionSpace(translation.components), build)

    def native(self, action: Mapping[str, np.ndarray]) -> Any:
        """What the game expects for our `action`, freshly made: an element of its space."""
        return self._build(action)


class _Translation:
    """Collects components while it walks through a space."""

    def __init__(self, place: str, ranges: Ranges | None) -> None:
        self.components: dict[str, Component] = {}
        self._place, self._ranges = place, ranges
        self._ranged: set[str] = set()

    def part(self, space: spaces.Space, path: tuple[str, ...]) -> _Build:
        """What builds the value of `space` from a whole action."""
        match space:
            case spaces.Dict():
                parts = {key: self.part(member, (*path, str(key))) for key, member in space.spaces.items()}
                return lambda action: {key: build(action) for key, build in parts.items()}
            case spaces.Tuple():
                members = [self.part(member, (*path, str(i))) for i, member in enumerate(space.spaces)]
                return lambda action: tuple(build(action) for build in members)
            case spaces.Discrete():
                return self._discrete(space, path)
            case spaces.MultiBinary() | spaces.MultiDiscrete() | spaces.Box() if not prod(space.shape):
                return lambda _: np.zeros(space.shape, space.dtype)
            case spaces.MultiBinary():
                name = self._add(path, Binary(prod(space.shape)))
                return lambda action: action[name].astype(space.dtype).reshape(space.shape)
            case spaces.MultiDiscrete():
                return self._classes(space, path, space.start, space.start.astype(object) + space.nvec - 1)
            case spaces.Box() if space.dtype is not None and space.dtype.kind in "iu":
                return self._whole(space, path)
            case spaces.Box() if space.dtype is not None and space.dtype.kind == "f":
                return self._floats(space, path)
        raise UserError(
            f"{self._place}: the action space {_short(space)} cannot be recorded; use a game with Discrete, MultiBinary, "
            f"MultiDiscrete or bounded Box actions, alone or in Dict and Tuple spaces."
        )

    def require_usable(self) -> None:
        """Raises `UserError` where there is nothing to choose, or far too much, or a range for nothing."""
        if not self.components:
            raise UserError(f"{self._place}: its action space holds no actions at all.")
        if len(self.components) > _MOST_COMPONENTS:
            raise UserError(
                f"{self._place}: has {len(self.components)} separate choices an action, more than {_MOST_COMPONENTS}."
            )
        unused = sorted(set(self._ranges) - self._ranged) if isinstance(self._ranges, Mapping) else []
        if unused:
            raise UserError(
                f"{self._place}: action_range names {unused[0]!r}, which has bounds or is not there."
            )

    def _add(self, path: tuple[str, ...], component: Component) -> str:
        """The name of a new component: its path; one that is taken is numbered."""
        wanted = ".".join(path) or "action"
        if not wanted.isprintable():
            raise UserError(
                f"{self._place}: has an action named {wanted!r}; use names of printable characters."
            )
        if component.n > _MOST_VALUES:
            raise UserError(
                f"{self._place}: the action {wanted!r} has {component.n} values or parts, more than {_MOST_VALUES}."
            )
        name, number = wanted, 2
        while name in self.components:
            name, number = f"{wanted}~{number}", number + 1
        self.components[name] = component
        return name

    def _discrete(self, space: spaces.Discrete, path: tuple[str, ...]) -> _Build:
        name, start, kind = self._add(path, Categorical(int(space.n))), int(space.start), space.dtype.type
        return lambda action: kind(start + int(action[name]))

    def _classes(
        self, space: spaces.Space, path: tuple[str, ...], low: np.ndarray, high: np.ndarray
    ) -> _Build:
        """A class for each value from `low` to `high`, of each number; null is the one nearest to 0."""
        bounds = [(int(a), int(b)) for a, b in zip(low.ravel(), high.ravel(), strict=True)]
        keep_null = isinstance(space, spaces.MultiDiscrete)
        prefix = path or ("action",)
        names = [
            self._add((*prefix, str(i)), Categorical(b - a + 1, 0 if keep_null else min(max(-a, 0), b - a)))
            for i, (a, b) in enumerate(bounds)
        ]

        def build(action: Mapping[str, np.ndarray]) -> np.ndarray:
            values = [a + int(action[name]) for (a, _), name in zip(bounds, names, strict=True)]
            return np.array(values, space.dtype).reshape(space.shape)

        return build

    def _whole(self, space: spaces.Box, path: tuple[str, ...]) -> _Build:
        low, high = self._bounds(space, path, _MOST_STEPS)
        first, last = low.reshape(-1), high.reshape(-1)  # objects without axes would turn into bare ints
        count = last - first + 1
        if max(count) <= _MOST_CLASSES:
            return self._classes(space, path, first, last)
        name = self._add(path, Continuous(space.low.size))

        def build(action: Mapping[str, np.ndarray]) -> np.ndarray:
            unit = (action[name].astype(np.float64) + 1) / 2
            steps = [min(int(u * n), n - 1) for u, n in zip(unit, count, strict=True)]
            return np.array([a + i for a, i in zip(first, steps, strict=True)], space.dtype).reshape(
                space.shape
            )

        return build

    def _floats(self, space: spaces.Box, path: tuple[str, ...]) -> _Build:
        low, high = self._bounds(space, path, _HUGE)
        name = self._add(path, Continuous(space.low.size))

        def build(action: Mapping[str, np.ndarray]) -> np.ndarray:
            unit = (action[name].astype(np.float64).reshape(space.shape) + 1) / 2
            value = np.asarray(np.clip(low * (1 - unit) + high * unit, low, high), space.dtype)
            return np.asarray(np.clip(value, space.low, space.high), space.dtype)

        return build

    def _bounds(self, space: spaces.Box, path: tuple[str, ...], most: float) -> tuple[np.ndarray, np.ndarray]:
        """float64 or exact whole-number bounds, missing ones from the option. Raises `UserError` where one is missing."""
        exact: Any = object if space.dtype is not None and space.dtype.kind in "iu" else np.float64
        low, high = np.asarray(space.low.astype(exact)), np.asarray(space.high.astype(exact))
        missing = ~(np.isfinite(space.low) & np.isfinite(space.high))
        if exact is object:
            missing |= np.asarray(high - low >= most).astype(bool)
        else:
            missing |= (np.abs(low) >= most) | (np.abs(high) >= most)
        if not missing.any():
            return low, high
        given = self._given(".".join(path) or "action", space)
        low = np.where(missing, np.maximum(low, given[0]), low)
        high = np.where(missing, np.minimum(high, given[1]), high)
        if (np.asarray(low > high)).any():
            raise UserError(f"{self._place}: action_range {list(given)} lies outside {_short(space)}.")
        if exact is object and np.asarray(high - low >= most).any():
            raise UserError(
                f"{self._place}: action_range {list(given)} has more than {_MOST_STEPS} whole numbers."
            )
        return low, high

    def _given(self, name: str, space: spaces.Box) -> tuple[float, float]:
        ranges = self._ranges
        chosen = ranges.get(name) if isinstance(ranges, Mapping) else ranges
        if chosen is None:
            raise UserError(
                f"{self._place}: the action {name!r} has no bounds ({_short(space)}); use a bounded Box, or give the option "
                f"action_range: [low, high]."
            )
        self._ranged.add(name)
        try:
            low, high = (float(bound) for bound in chosen)
        except (TypeError, ValueError):
            low = high = np.nan
        if not (low < high and abs(low) < _HUGE and abs(high) < _HUGE):
            raise UserError(f"{self._place}: action_range must be [low, high], low < high, got {chosen!r}.")
        whole = space.dtype is not None and space.dtype.kind in "iu"
        return (int(np.ceil(low)), int(np.floor(high))) if whole else (low, high)


def _short(space: spaces.Space) -> str:
    text = " ".join(str(space).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
