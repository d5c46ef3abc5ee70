"""Action spaces: named components of three kinds, shared by data, models and games.

Minecraft is `{keys: Binary(23), mouse: Categorical(121)}`, Crafter `{action: Categorical(17)}`, a robot `{ee: Continuous(7)}`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.data.errors import UserError


@dataclass(frozen=True)
class Categorical:
    """One choice among `n`. Tensors: (...) int64 in [0, n). The null action is class `null`."""

    n: int
    null: int = 0
    names: tuple[str, ...] = ()

    shape = ()
    dtype = torch.int64


@dataclass(frozen=True)
class Binary:
    """`n` keys, each up or down. Tensors: (..., n) bool. The null action is all up."""

    n: int
    names: tuple[str, ...] = ()

    dtype = torch.bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Trailing shape of one action."""
        return (self.n,)


@dataclass(frozen=True)
class Continuous:
    """`n` real numbers in [low, high]. Tensors: (..., n) float32. The null action is 0 clipped to the range."""

    n: int
    low: float = -1.0
    high: float = 1.0
    names: tuple[str, ...] = ()

    dtype = torch.float32

    @property
    def shape(self) -> tuple[int, ...]:
        """Trailing shape of one action."""
        return (self.n,)


Component = Categorical | Binary | Continuous
_KINDS: dict[str, type[Component]] = {"categorical": Categorical, "binary": Binary, "continuous": Continuous}
_MOST = 1 << 20
_HUGE = 1e30
_NUMPY = {torch.int64: np.int64, torch.bool: np.bool_, torch.float32: np.float32}


def numpy_dtype(component: Component) -> type[np.generic]:
    """The numpy type in which logs and shards store `component`."""
    return _NUMPY[component.dtype]


@dataclass(frozen=True)
class ActionSpace:
    """An ordered mapping from component name to its kind. Empty for video without any actions."""

    components: Mapping[str, Component] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """`{name: {"kind": ..., "n": ..., ...}}`, the form in index files and checkpoints."""
        kinds = {cls: kind for kind, cls in _KINDS.items()}
        return {name: {"kind": kinds[type(c)], **asdict(c)} for name, c in self.components.items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], place: str = "action_space") -> "ActionSpace":
        """Inverse of `to_json`. Raises `UserError` naming `place`, the component and the allowed kinds or fields."""
        if not isinstance(data, Mapping) or not all(isinstance(spec, Mapping) for spec in data.values()):
            raise UserError(f"{place}: the action space should map each name to its kind and n.")
        return cls({name: _component(name, dict(spec), place) for name, spec in data.items()})

    def null(self, *leading: int) -> dict[str, Tensor]:
        """The action that does nothing, with the given leading shape."""
        return {name: torch.from_numpy(value) for name, value in self.null_numpy(*leading).items()}

    def null_numpy(self, *leading: int) -> dict[str, np.ndarray]:
        """`null` as numpy arrays."""
        return {
            name: np.full((*leading, *c.shape), _null_value(c), numpy_dtype(c))
            for name, c in self.components.items()
        }

    def is_null(self, actions: Mapping[str, Tensor]) -> Tensor:
        """Component -> (..., *shape) tensors -> (...) bool: all components are null. Needs at least one component."""
        same = []
        for name, null in self.null().items():
            equal = actions[name] == null.to(actions[name].device)
            same.append(equal.all(-1) if self.components[name].shape else equal)
        return torch.stack(same).all(0)

    def check(self, actions: Mapping[str, np.ndarray], rows: int, place: str) -> dict[str, np.ndarray]:
        """`actions` cast to storage types, in order. Each is (rows, ...).

        Raises `UserError` naming `place` and the component when one is missing, unknown, misshapen, not finite or out of range.
        """
        unknown = sorted(set(actions) - set(self.components))
        missing = sorted(set(self.components) - set(actions))
        if unknown or missing:
            expected = ", ".join(self.components) or "none"
            problem = f"unknown action {unknown[0]!r}" if unknown else f"no action {missing[0]!r}"
            raise UserError(f"{place}: {problem}; the action space has the components: {expected}.")
        return {
            name: _check_component(actions[name], name, c, rows, place) for name, c in self.components.items()
        }


def _component(name: str, spec: dict[str, Any], place: str) -> Component:
    kind = spec.pop("kind", None)
    if not isinstance(kind, str) or kind not in _KINDS:
        raise UserError(f"{place}: component {name!r} has kind {kind!r}; use one of {', '.join(_KINDS)}.")
    try:
        if "names" in spec:
            spec["names"] = tuple(spec["names"])
        component = _KINDS[kind](**spec)
    except TypeError as error:
        raise UserError(f"{place}: component {name!r} of kind {kind!r} has wrong fields ({error}).") from None
    if not _is_int(component.n) or not 1 <= component.n <= _MOST:
        raise UserError(f"{place}: component {name!r} needs a whole number n >= 1, got {component.n!r}.")
    _check_fields(component, name, place)
    return component


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_fields(component: Component, name: str, place: str) -> None:
    """A space may be written by hand; whatever is wrong would otherwise surface in the middle of a model."""
    if not all(isinstance(label, str) for label in component.names):
        raise UserError(f"{place}: component {name!r} has names that are not text; put quotes around them.")
    if isinstance(component, Categorical) and not (
        _is_int(component.null) and 0 <= component.null < component.n
    ):
        raise UserError(f"{place}: component {name!r} needs null from 0 to n - 1, got {component.null!r}.")
    if isinstance(component, Continuous):
        bounds = (component.low, component.high)
        if not all(isinstance(b, (int, float)) and abs(b) < _HUGE for b in bounds) or bounds[0] >= bounds[1]:
            raise UserError(f"{place}: component {name!r} needs finite numbers low < high, got {bounds}.")


def _null_value(component: Component) -> float | int | bool:
    match component:
        case Categorical():
            return component.null
        case Binary():
            return False
        case Continuous():
            return float(np.clip(0.0, component.low, component.high))


def _check_component(value: np.ndarray, name: str, component: Component, rows: int, place: str) -> np.ndarray:
    value = np.asarray(value)
    if value.shape != (rows, *component.shape):
        raise UserError(
            f"{place}: action {name!r} has shape {value.shape}, expected {(rows, *component.shape)} (one row a frame)."
        )
    if value.dtype.kind not in "biuf" or not np.isfinite(value).all():
        raise UserError(
            f"{place}: action {name!r} holds values that are not finite numbers; mask or repair those rows."
        )
    if not isinstance(component, Continuous) and (value != np.floor(value)).any():
        raise UserError(f"{place}: action {name!r} holds fractions, but its kind has whole numbers only.")
    low, high = _bounds(component)
    if value.size and (value.min() < low or value.max() > high):
        raise UserError(
            f"{place}: action {name!r} spans [{value.min()}, {value.max()}], outside its range [{low}, {high}]; "
            f"declare the true range in the action space."
        )
    return value.astype(numpy_dtype(component))


def _bounds(component: Component) -> tuple[float, float]:
    match component:
        case Categorical():
            return 0, component.n - 1
        case Binary():
            return 0, 1
        case Continuous():
            return component.low, component.high
