"""Does a game follow its seed? Two beginnings with the same one are compared, with a step in each."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from reverie.data.actions import ActionSpace
from reverie.environments.game import GameCrashed

_SEED = 20_250


class _Game(Protocol):
    action_space_spec: ActionSpace
    _observation: Any

    def reset(self, seed: int | None = None) -> tuple[np.ndarray, Any]: ...

    def step(self, action: Mapping[str, Any]) -> tuple[np.ndarray, float, bool, bool, Any]: ...


def follows_seed(game: _Game) -> bool:
    """Whether pictures, observations and reward of both beginnings are the same; also where the game fails meanwhile."""
    try:
        return _same(_beginning(game), _beginning(game))
    except GameCrashed:
        return True  # it has other troubles, which are told when it is played


def _beginning(game: _Game) -> list[Any]:
    frame, _ = game.reset(seed=_SEED)
    seen: list[Any] = [frame, _copied(game._observation)]
    frame, reward, *_ = game.step(game.action_space_spec.null_numpy())
    return [*seen, frame, reward, _copied(game._observation)]


def _copied(value: Any) -> Any:
    """Numbers of their own: an environment may go on writing into what it returned."""
    if isinstance(value, Mapping):
        return {key: _copied(member) for key, member in value.items()}
    if isinstance(value, (tuple, list)):
        return [_copied(member) for member in value]
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    try:
        array = np.array(value)
    except Exception:
        return None
    return array if array.dtype.kind in "buifc" else None


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return np.array_equal(one, other, equal_nan=one.dtype.kind in "fc")
    return bool(one == other) if isinstance(one, (int, float)) else True
