"""Gymnasium's spaces and ours: what a game gets is in its space and of its dtype, and no value is out of reach."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from reverie.data.actions import ActionSpace, Binary, Categorical, Continuous
from reverie.data.errors import UserError
from reverie.environments.gym.actions import NativeActions
from reverie.environments.spaces import sample_action
from tests.environments.odd_games import ACTIONS, NO_ACTIONS, plain

SHAPES = st.sampled_from([(), (1,), (2,), (2, 2), (0,)])
WHOLE = st.sampled_from([np.int8, np.uint8, np.int16, np.int32, np.int64, np.uint64])


@st.composite
def whole_boxes(draw: Any) -> spaces.Space:
    kind, shape = draw(WHOLE), draw(SHAPES)
    info = np.iinfo(kind)
    low = draw(st.integers(int(info.min), int(info.max)))
    high = min(low + draw(st.integers(0, 5)), int(info.max))
    return spaces.Box(np.full(shape, low, kind), np.full(shape, high, kind), shape, kind)


@st.composite
def float_boxes(draw: Any) -> spaces.Space:
    kind, shape = draw(st.sampled_from([np.float16, np.float32, np.float64])), draw(SHAPES)
    low = draw(st.floats(-6e4, 6e4, width=16))
    high = draw(st.floats(low, 6e4, width=16))
    return spaces.Box(np.full(shape, low, kind), np.full(shape, high, kind), shape, kind)


LEAVES = st.one_of(
    st.builds(spaces.Discrete, st.integers(1, 4), start=st.integers(-3, 3)),
    st.sampled_from([spaces.MultiBinary(2), spaces.MultiBinary([1, 2]), spaces.MultiBinary(1)]),
    st.builds(lambda n: spaces.MultiDiscrete(n, start=[-1] * len(n)), st.lists(st.integers(1, 3), min_size=1, max_size=2)),
    st.just(spaces.MultiDiscrete([[2, 1], [1, 2]], dtype=np.int32)),
    whole_boxes(),
)  # fmt: skip
NAMES = st.sampled_from(["a", "b", "a.b", "", "a.0", "action", "0"])


def nested(leaves: Any) -> Any:
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.dictionaries(NAMES, inner, min_size=1, max_size=3).map(spaces.Dict),
            st.lists(inner, min_size=1, max_size=2).map(spaces.Tuple),
        ),
        max_leaves=3,
    )


def elements(space: ActionSpace) -> Iterator[dict[str, np.ndarray]]:
    """Every action of a finite space of ours."""
    choices = []
    for component in space.components.values():
        match component:
            case Categorical():
                choices.append([np.asarray(i) for i in range(component.n)])
            case Binary():
                choices.append([np.array(bits) for bits in itertools.product([False, True], repeat=component.n)])  # fmt: skip
            case Continuous():
                raise AssertionError("not finite")
    for values in itertools.product(*choices):
        yield dict(zip(space.components, values, strict=True))


def size(space: spaces.Space) -> int:
    """How many elements a finite space has, counted from its definition."""
    match space:
        case spaces.Dict():
            return int(np.prod([size(member) for member in space.spaces.values()], dtype=object))
        case spaces.Tuple():
            return int(np.prod([size(member) for member in space.spaces], dtype=object))
        case spaces.Discrete():
            return int(space.n)
        case spaces.MultiBinary():
            return 2 ** int(np.prod(space.shape))
        case spaces.MultiDiscrete():
            return int(np.prod(space.nvec))
        case spaces.Box():
            pairs = zip(space.low.ravel().tolist(), space.high.ravel().tolist())
            return int(np.prod([high - low + 1 for low, high in pairs], dtype=object))
    raise AssertionError(space)


def in_its_dtype(space: spaces.Space, value: Any) -> bool:
    match space:
        case spaces.Dict():
            return all(in_its_dtype(member, value[key]) for key, member in space.spaces.items())
        case spaces.Tuple():
            return all(map(in_its_dtype, space.spaces, value))
    return value.dtype == space.dtype and value.shape == space.shape


@settings(max_examples=60, deadline=None)
@given(nested(LEAVES))
def test_every_value_of_a_finite_space_is_reached_and_nothing_else(space: spaces.Space) -> None:
    try:
        actions = NativeActions.of(space, "game")
    except UserError as error:
        assert "no actions at all" in str(error) and size(space) <= 1
        return
    if size(space) > 3000:
        return
    reached = set()
    for action in elements(actions.action_space):
        native = actions.native(action)
        assert space.contains(native) and in_its_dtype(space, native), native
        reached.add(repr(plain(native)))
    assert len(reached) == size(space)


@settings(max_examples=60, deadline=None)
@given(nested(st.one_of(LEAVES, float_boxes())), st.integers(0, 2**31))
def test_what_the_game_gets_is_in_its_space_and_of_its_dtype(space: spaces.Space, seed: int) -> None:
    try:
        actions = NativeActions.of(space, "game")
    except UserError as error:
        assert "no actions at all" in str(error)
        return
    rng, ours = np.random.default_rng(seed), actions.action_space
    assert ActionSpace.from_json(ours.to_json()) == ours
    for action in [ours.null_numpy(), *(sample_action(ours, rng) for _ in range(5))]:
        native = actions.native(action)
        assert space.contains(native) and in_its_dtype(space, native), native


@settings(max_examples=60, deadline=None)
@given(float_boxes())
def test_the_ends_of_a_range_are_reached_exactly(space: spaces.Box) -> None:
    if space.low.size:
        actions = NativeActions.of(space, "game")
        ends = [actions.native({"action": np.full(space.low.size, end, np.float32)}) for end in (-1, 1)]
        np.testing.assert_array_equal(ends, [space.low, space.high])


def test_all_of_65536_whole_numbers_are_reached() -> None:
    actions = NativeActions.of(ACTIONS["int16"], "game")
    assert actions.action_space.components == {"action": Continuous(1)}
    middles = (np.arange(2**16) + 0.5) / 2**15 - 1
    reached = [actions.native({"action": np.array([u], np.float32)}) for u in (-1, *middles, 1)]
    assert sorted({int(value[0]) for value in reached}) == list(range(-(2**15), 2**15))
    assert reached[0].dtype == np.int16


def test_the_null_of_whole_numbers_is_the_one_nearest_to_zero() -> None:
    for low, high, wanted in ((-3, 4, 0), (2, 5, 2), (-9, -7, -7)):
        actions = NativeActions.of(spaces.Box(low, high, (1,), np.int32), "game")
        assert actions.native(actions.action_space.null_numpy()).tolist() == [wanted]


@pytest.mark.parametrize("name", ACTIONS)
def test_spaces_of_every_kind_reach_the_game(name: str) -> None:
    actions, rng = NativeActions.of(ACTIONS[name], "game"), np.random.default_rng(0)
    for _ in range(30):
        native = actions.native(sample_action(actions.action_space, rng))
        assert ACTIONS[name].contains(native) and in_its_dtype(ACTIONS[name], native)


def test_names_that_collide_stay_two_components() -> None:
    actions = NativeActions.of(ACTIONS["same names"], "game")
    assert sorted(c.n for c in actions.action_space.components.values()) == [2, 5]
    native = actions.native(
        {
            name: np.asarray(1 if component.n == 2 else 4)
            for name, component in actions.action_space.components.items()
        }
    )
    assert (native["a.b"], native["a"]["b"]) == (1, 4)


@pytest.mark.parametrize("name", NO_ACTIONS)
def test_spaces_without_counterpart_are_refused_in_a_sentence(name: str) -> None:
    with pytest.raises(UserError, match="^game 'x': ") as refused:
        NativeActions.of(NO_ACTIONS[name], "game 'x'")
    assert str(refused.value).endswith(".") and "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["unbounded", "half bounded", "huge", "huge float64", "all of int64"])
def test_an_option_gives_the_missing_range(name: str) -> None:
    space = NO_ACTIONS[name]
    actions = NativeActions.of(space, "game", [-5, 5])
    rng, least = np.random.default_rng(0), 0 if name == "half bounded" else -5
    values = np.array([actions.native(sample_action(actions.action_space, rng)) for _ in range(400)])
    assert values.min() >= least and values.max() <= 5 and values.min() < least + 1 and values.max() > 4
    assert space.contains(actions.native(actions.action_space.null_numpy()))


def test_a_range_may_be_given_for_one_component() -> None:
    space = NO_ACTIONS["unbounded inside"]
    low = NativeActions.of(space, "game", {"push": [-2, 7]}).native(
        {"go": np.asarray(0), "push": np.array([-1], np.float32)}
    )
    assert low["push"].tolist() == [-2]
    for ranges, words in (
        ({"pull": [0, 1]}, "has no bounds"),
        ({"push": [0, 1], "go": [0, 1]}, "'go'"),
        ([3, 2], "low < high"),
        ([8, 9], "lies outside"),
        (["a", 1], "action_range"),
    ):
        with pytest.raises(UserError, match=words):
            NativeActions.of(space, "game", ranges)  # type: ignore[arg-type]
