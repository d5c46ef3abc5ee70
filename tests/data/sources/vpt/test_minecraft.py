"""The Minecraft codecs against worked tables, and round trips."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reverie.data.actions import ActionSpace
from reverie.data.sources.vpt.minecraft import (
    INVENTORY,
    KEYS,
    NULL_MOUSE,
    NUM_JOINT,
    SPACE,
    decode_camera,
    decode_joint,
    encode_camera,
    encode_joint,
)

CENTRES = [-10, -5.8095, -3.2154, -1.6095, -0.6154, 0, 0.6154, 1.6095, 3.2154, 5.8095, 10]


def keys(*names: str) -> np.ndarray:
    return np.array([name in names for name in KEYS])


def test_space() -> None:
    assert SPACE.components["keys"].n == 23 and len(set(KEYS)) == 23
    assert ActionSpace.from_json(SPACE.to_json()) == SPACE
    assert int(SPACE.null()["mouse"]) == NULL_MOUSE == encode_camera(np.zeros(2))


@pytest.mark.parametrize(
    ("pixels", "bin_", "degrees"),
    [
        *[(1, 5, 0), (2, 6, 0.6154), (5, 6, 0.6154), (7, 6, 0.6154), (8, 7, 1.6095), (16, 8, 3.2154)],
        *[(30, 9, 5.8095), (50, 9, 5.8095), (67, 10, 10), (-5, 4, -0.6154), (-20, 2, -3.2154)],
        *[(15, 7, 1.6095), (29, 8, 3.2154), (51, 9, 5.8095), (52, 10, 10), (9999, 10, 10)],
    ],
)
def test_worked_camera_table(pixels: int, bin_: int, degrees: float) -> None:
    yaw, pitch = np.array([0, 0.15 * pixels]), np.array([0.15 * pixels, 0])
    assert encode_camera(yaw) == 55 + bin_ and encode_camera(pitch) == 11 * bin_ + 5
    np.testing.assert_allclose(decode_camera(encode_camera(yaw)), [0, degrees], atol=5e-5)
    np.testing.assert_allclose(decode_camera(encode_camera(pitch)), [degrees, 0], atol=5e-5)


def test_every_camera_class_comes_back() -> None:
    classes = np.arange(121)
    degrees = decode_camera(classes)
    np.testing.assert_array_equal(encode_camera(degrees), classes)
    np.testing.assert_allclose(degrees.reshape(11, 11, 2)[0, :, 1], CENTRES, atol=5e-5)


@pytest.mark.parametrize(
    ("names", "mouse", "index"),
    [
        ((), 60, 0),
        ((), 61, 1),
        (("forward",), 60, 288),
        (("forward", "attack"), 60, 292),
        (("forward", "sprint", "jump"), 0, 323),
        (("hotbar.3",), 60, 2592),
        (("hotbar.3", "forward", "inventory"), 7, 8640),
        (("forward", "back"), 60, 0),
        (("left", "right", "forward"), 60, 288),
        (("sprint", "sneak"), 60, 64),
        (("hotbar.1", "hotbar.3"), 60, 2592),
        (("ESC", "swapHands", "pickItem"), 60, 0),
    ],
)
def test_listed_joint_indices(names: tuple[str, ...], mouse: int, index: int) -> None:
    buttons, camera = encode_joint(keys(*names), np.array(mouse))
    assert int(buttons) == index
    assert int(camera) == (NULL_MOUSE if index == INVENTORY else mouse)


def test_every_joint_index_comes_back() -> None:
    buttons = np.arange(NUM_JOINT)
    camera = np.where((buttons % 2 == 1) & (buttons != INVENTORY), 17, NULL_MOUSE)
    there, mouse = decode_joint(buttons, camera)
    again = encode_joint(there, mouse)
    np.testing.assert_array_equal(again[0], buttons)
    np.testing.assert_array_equal(again[1], camera)
    assert NUM_JOINT == 8641


@given(st.lists(st.booleans(), min_size=23, max_size=23), st.integers(0, 120))
def test_the_joint_codec_is_idempotent(pressed: list[bool], mouse: int) -> None:
    first = encode_joint(np.array(pressed), np.array(mouse))
    second = encode_joint(*decode_joint(*first))
    assert (int(first[0]), int(first[1])) == (int(second[0]), int(second[1]))


@given(st.floats(-400, 400), st.floats(-400, 400))
def test_camera_error_is_at_most_half_a_bin(pitch: float, yaw: float) -> None:
    turn = np.array([pitch, yaw])
    back = decode_camera(encode_camera(turn))
    np.testing.assert_array_equal(encode_camera(back), encode_camera(turn))
    clipped = np.clip(turn, -10, 10)
    assert np.all(np.abs(back - clipped) <= np.maximum(0.28, 0.47 * np.abs(clipped) + 0.28))
