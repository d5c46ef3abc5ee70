"""Gymnasium's action spaces and ours, in both directions.

Discrete is one `Categorical`, MultiBinary one `Binary`, MultiDiscrete a `Categorical` per number, Box a
`Continuous` scaled to [-1, 1]; Dict and Tuple spaces become one component per leaf, named by its path.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from reverie.data.actions import ActionSpace, Binary, Categorical, Component, Continuous
from reverie.data.errors import UserError


def action_space_of(space: spaces.Space, place: str) -> ActionSpace:
    """Our action space for a Gymnasium one. Raises `UserError` naming `place` where there is none."""
    return ActionSpace(dict(_components(space, "", place)))


def native_action(space: spaces.Space, action: Mapping[str, np.ndarray], path: str = "") -> Any:
    """The value that `space` expects for our `action`, whose components are named as in `action_space_of`."""
    match space:
        case spaces.Dict():
            return {key: native_action(part, action, _join(path, key)) for key, part in space.items()}
        case spaces.Tuple():
            return tuple(native_action(part, action, _join(path, str(i))) for i, part in enumerate(space))
        case spaces.Discrete():
            return space.start + action[path or "action"].astype(space.dtype)
        case spaces.MultiBinary():
            return action[path or "action"].astype(space.dtype).reshape(space.shape)
        case spaces.MultiDiscrete():
            chosen = [action[_join(path or "action", str(i))] for i in range(space.nvec.size)]
            return space.start + np.array(chosen, space.dtype).reshape(space.shape)
        case spaces.Box():
            unit = (action[path or "action"].astype(np.float64).reshape(space.shape) + 1) / 2
            return (space.low + unit * (space.high - space.low)).astype(space.dtype)
    raise AssertionError(space)


def gymnasium_space(action_space: ActionSpace) -> spaces.Dict:
    """The Dict space of our actions."""
    return spaces.Dict({name: _leaf(component) for name, component in action_space.components.items()})


def sample_action(action_space: ActionSpace, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """An action drawn uniformly: every class, every key up or down, every number in its range."""
    return {name: _sample(component, rng) for name, component in action_space.components.items()}


def _components(space: spaces.Space, path: str, place: str) -> Iterator[tuple[str, Component]]:
    name = path or "action"
    match space:
        case spaces.Dict():
            for key, part in space.items():
                yield from _components(part, _join(path, key), place)
        case spaces.Tuple():
            for i, part in enumerate(space):
                yield from _components(part, _join(path, str(i)), place)
        case spaces.Discrete():
            yield name, Categorical(int(space.n))
        case spaces.MultiBinary():
            yield name, Binary(int(np.prod(space.shape)))
        case spaces.MultiDiscrete():
            for i, n in enumerate(space.nvec.ravel()):
                yield _join(name, str(i)), Categorical(int(n))
        case spaces.Box() if np.isfinite(space.low).all() and np.isfinite(space.high).all():
            yield name, Continuous(int(np.prod(space.shape)))
        case _:
            raise UserError(
                f"{place}: the action space {space} cannot be recorded; use a game with "
                f"Discrete, MultiBinary, MultiDiscrete or bounded Box actions."
            )


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _leaf(component: Component) -> spaces.Space:
    match component:
        case Categorical():
            return spaces.Discrete(component.n)
        case Binary():
            return spaces.MultiBinary(component.n)
        case Continuous():
            return spaces.Box(component.low, component.high, (component.n,), np.float32)


def _sample(component: Component, rng: np.random.Generator) -> np.ndarray:
    match component:
        case Categorical():
            return np.asarray(rng.integers(component.n), np.int64)
        case Binary():
            return rng.random(component.n) < 0.5
        case Continuous():
            return rng.uniform(component.low, component.high, component.n).astype(np.float32)
