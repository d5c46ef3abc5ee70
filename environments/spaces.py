"""Our action spaces as Gymnasium's, and actions drawn from them. The other way round is `environments.gym.actions`."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from reverie.data.actions import ActionSpace, Binary, Categorical, Component, Continuous


def gymnasium_space(action_space: ActionSpace) -> spaces.Space:
    """The space of our actions: that of the component itself if there is but one, else a Dict of them."""
    members = {name: _leaf(component) for name, component in action_space.components.items()}
    return next(iter(members.values())) if len(members) == 1 else spaces.Dict(members)


def named_action(action_space: ActionSpace, action: Any) -> Mapping[str, Any]:
    """An element of `gymnasium_space` as component -> value; what is that already stays."""
    if isinstance(action, Mapping) or len(action_space.components) != 1:
        return action
    return {next(iter(action_space.components)): action}


def sample_action(action_space: ActionSpace, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """An action drawn uniformly: every class, every key up or down, every number in its range."""
    return {name: _sample(component, rng) for name, component in action_space.components.items()}


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
