"""Every action survives the way into another project's form and back, as far as that form can say it."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from reverie.data.sources.vpt.minecraft import KEYS, NULL_MOUSE, NUM_JOINT, SPACE
from reverie.environments.minecraft.actions import (
    MINESTUDIO_KEYS,
    from_minerl,
    from_minestudio_agent,
    from_minestudio_env,
    to_minerl,
    to_minestudio_agent,
    to_minestudio_env,
)

LOST_BY_ENV = {"ESC", "drop", "swapHands", "pickItem"}
LOST_BY_AGENT = {"ESC", "swapHands", "pickItem"}

actions = st.builds(
    lambda keys, mouse: {"keys": np.array(keys), "mouse": np.int64(mouse)},
    st.lists(st.booleans(), min_size=len(KEYS), max_size=len(KEYS)),
    st.integers(0, 120),
)
cameras = st.tuples(st.floats(-180, 180), st.floats(-180, 180))


def pressed(action) -> set[str]:
    return {name for name, down in zip(KEYS, action["keys"]) if down}


def same(a, b) -> bool:
    return pressed(a) == pressed(b) and int(a["mouse"]) == int(b["mouse"])


@given(actions)
def test_minerl_loses_nothing(action) -> None:
    there = to_minerl(action)
    assert set(there) == {*KEYS, "camera"} and there["camera"].shape == (2,)
    assert all(there[key] in (0, 1) and type(there[key]) is int for key in KEYS)
    assert same(from_minerl(there), action)
    assert SPACE.check({name: value[None] for name, value in from_minerl(there).items()}, 1, "")


@given(st.sets(st.sampled_from(KEYS)), cameras)
def test_minerls_own_actions_come_back_with_the_camera_rounded_once(names, camera) -> None:
    action = {**{key: int(key in names) for key in KEYS}, "camera": np.array(camera, np.float32)}
    once = to_minerl(from_minerl(action))
    assert {key: once[key] for key in KEYS} == {key: action[key] for key in KEYS}
    twice = to_minerl(from_minerl(once))
    np.testing.assert_array_equal(twice["camera"], once["camera"])
    # towards the nearest class: never across zero, never further than the widest class is from its neighbour
    assert (np.sign(once["camera"]) * np.sign(action["camera"]) >= 0).all()
    assert (np.abs(once["camera"] - np.clip(action["camera"], -10, 10)) <= 2.36).all()


def test_pitch_comes_first_and_looks_down() -> None:
    down = from_minerl({"camera": np.array([10.0, 0.0])})
    right = from_minerl({"camera": np.array([0.0, 10.0])})
    assert int(down["mouse"]) == 11 * 10 + 5 and int(right["mouse"]) == 11 * 5 + 10
    assert int(from_minerl({})["mouse"]) == NULL_MOUSE


@given(actions)
def test_minestudio_env_loses_four_keys(action) -> None:
    there = to_minestudio_env(action)
    assert set(there) == {*MINESTUDIO_KEYS, "camera"} and len(MINESTUDIO_KEYS) == 19
    back = from_minestudio_env(there)
    assert pressed(back) == pressed(action) - LOST_BY_ENV and back["mouse"] == action["mouse"]
    assert same(from_minestudio_env(to_minestudio_env(back)), back)


@given(actions)
def test_minestudio_agent_keeps_what_the_joint_space_can_say(action) -> None:
    there = to_minestudio_agent(action)
    assert there["buttons"].shape == there["camera"].shape == (1,)
    back = from_minestudio_agent(there)
    if "inventory" in pressed(action):
        assert pressed(back) == {"inventory"} and back["mouse"] == NULL_MOUSE
        return
    assert pressed(back) <= pressed(action) - LOST_BY_AGENT and back["mouse"] == action["mouse"]
    assert pressed(back) >= pressed(action) & {"attack", "use", "drop", "jump"}
    assert same(from_minestudio_agent(to_minestudio_agent(back)), back)


@given(st.integers(0, NUM_JOINT - 1), st.integers(0, 120))
def test_every_joint_action_comes_back(buttons, camera) -> None:
    action = from_minestudio_agent({"buttons": np.array([buttons]), "camera": np.array([camera])})
    back = to_minestudio_agent(action)
    moves = buttons < NUM_JOINT - 1 and buttons % 2 == 1
    assert back["camera"][0] == (camera if moves else NULL_MOUSE)
    # a button combination that says "the camera moves" while it rests is the same action without saying so
    assert back["buttons"][0] == (buttons - 1 if moves and camera == NULL_MOUSE else buttons)
