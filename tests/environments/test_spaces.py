"""Gymnasium spaces to components and back, over all kinds and their nesting."""

import numpy as np
import pytest
from gymnasium import spaces

from reverie.data.actions import Binary, Categorical, Continuous
from reverie.data.errors import UserError
from reverie.environments.gym.actions import NativeActions
from reverie.environments.spaces import gymnasium_space, sample_action

SPACES = {
    "discrete": spaces.Discrete(5),
    "shifted": spaces.Discrete(4, start=-2),
    "keys": spaces.MultiBinary(6),
    "numbers": spaces.MultiDiscrete([3, 4], start=[1, 0]),
    "box": spaces.Box(np.array([-2, 0], np.float32), np.array([2, 10], np.float32)),
    "matrix": spaces.Box(0.0, 1.0, (2, 3)),
    "dict": spaces.Dict({"keys": spaces.MultiBinary(3), "camera": spaces.Box(-180.0, 180.0, (2,))}),
    "nested": spaces.Dict({"a": spaces.Tuple([spaces.Discrete(2), spaces.Dict({"b": spaces.Discrete(3)})])}),
}


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES.keys())
def test_every_drawn_action_is_legal_in_both_worlds(space):
    actions = NativeActions.of(space, "game")
    ours = actions.action_space
    rng = np.random.default_rng(0)
    for _ in range(50):
        action = sample_action(ours, rng)
        ours.check({name: value[None] for name, value in action.items()}, 1, "game")
        element = {
            name: value.astype(np.int8) if value.dtype == bool else value for name, value in action.items()
        }
        assert gymnasium_space(ours).contains(element if len(element) > 1 else next(iter(element.values())))
        assert space.contains(actions.native(action))


def test_components_are_named_by_their_path():
    assert dict(NativeActions.of(SPACES["discrete"], "g").action_space.components) == {
        "action": Categorical(5)
    }
    assert dict(NativeActions.of(SPACES["numbers"], "g").action_space.components) == {
        "action.0": Categorical(3),
        "action.1": Categorical(4),
    }
    assert dict(NativeActions.of(SPACES["dict"], "g").action_space.components) == {
        "camera": Continuous(2),
        "keys": Binary(3),
    }
    assert list(NativeActions.of(SPACES["nested"], "g").action_space.components) == ["a.0", "a.1.b"]


def test_values_arrive_where_they_belong():
    assert NativeActions.of(SPACES["shifted"], "g").native({"action": np.int64(3)}) == 1
    numbers = NativeActions.of(SPACES["numbers"], "g").native(
        {"action.0": np.int64(2), "action.1": np.int64(3)}
    )
    assert numbers.tolist() == [3, 3]
    ends = NativeActions.of(SPACES["box"], "g").native({"action": np.array([-1, 1], np.float32)})
    assert ends.tolist() == [-2, 10]
    middle = NativeActions.of(SPACES["box"], "g").native({"action": np.zeros(2, np.float32)})
    assert middle.tolist() == [0, 5]


def test_spaces_without_counterpart_are_refused():
    with pytest.raises(UserError, match="bounded"):
        NativeActions.of(spaces.Box(-np.inf, np.inf, (2,)), "game 'x'")
    with pytest.raises(UserError, match="game 'x'"):
        NativeActions.of(spaces.Text(5), "game 'x'")
