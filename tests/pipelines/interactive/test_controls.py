"""Controls: what is pressed becomes the action that data and models mean by it."""

import numpy as np
import pytest

from reverie.data.actions import ActionSpace, Binary, Categorical, Continuous
from reverie.data.errors import UserError
from reverie.data.sources.vpt.minecraft import KEYS, NULL_MOUSE, SPACE, decode_camera
from reverie.pipelines.interactive.controls import RESERVED, Controls

MINECRAFT = Controls.of(SPACE)


def pressed(codes: list[str]) -> set[str]:
    return {name for name, down in zip(KEYS, MINECRAFT.action(codes)["keys"], strict=True) if down}


@pytest.mark.parametrize(
    ("codes", "names"),
    [
        (["KeyW", "Space"], {"forward", "jump"}),
        (["KeyW", "KeyR"], {"forward", "sprint"}),
        (["ControlLeft", "ShiftLeft"], {"sprint", "sneak"}),
        (["Digit9", "KeyE"], {"hotbar.9", "inventory"}),
        (["Mouse0"], {"attack"}),
        (["Mouse2"], {"use"}),
        (["Mouse1"], {"pickItem"}),
        (["Backquote"], {"ESC"}),
        (["F5"], set()),
    ],
)
def test_minecrafts_keys_are_its_own(codes: list[str], names: set[str]) -> None:
    assert pressed(codes) == names


def test_every_minecraft_key_can_be_pressed_and_none_is_the_pages() -> None:
    assert {control.label for control in MINECRAFT.keys} == set(KEYS)
    assert not {control.code for control in MINECRAFT.keys} & set(RESERVED)


@pytest.mark.parametrize(
    ("pixels", "degrees"), [((0, 0), (0, 0)), ((1000, 0), (0, 10)), ((0, -1000), (-10, 0))]
)
def test_the_mouse_turns_the_head(pixels: tuple[float, float], degrees: tuple[float, float]) -> None:
    mouse = MINECRAFT.action([], pixels)["mouse"]
    np.testing.assert_allclose(decode_camera(mouse), degrees, atol=1e-9)
    assert (mouse == NULL_MOUSE) == (pixels == (0, 0))


def test_the_mouse_moves_as_far_as_in_the_recordings() -> None:
    # 2400 pixels are a full turn: 20 pixels are 3 degrees, whose class spans 2.6 to 4.1.
    down, right = decode_camera(MINECRAFT.action([], [20, 0])["mouse"])
    assert down == 0 and abs(right - 3) < 1


def test_classes_have_keys_that_suit_their_names() -> None:
    names = ("noop", "move_left", "move_right", "move_up", "move_down", "do", "sleep")
    controls = Controls.of(ActionSpace({"action": Categorical(7, 0, names)}))
    by_label = {control.label: control.code for control in controls.keys}
    assert by_label == {
        "move_left": "ArrowLeft",
        "move_right": "ArrowRight",
        "move_up": "ArrowUp",
        "move_down": "ArrowDown",
        "do": "Digit1",
        "sleep": "Digit2",
    }
    assert controls.action([])["action"] == 0 and controls.action(["Digit2", "ArrowUp"])["action"] == 3


def test_components_share_no_key_while_there_are_some() -> None:
    space = ActionSpace({"a": Categorical(9), "b": Binary(12), "c": Categorical(300)})
    controls = Controls.of(space)
    codes = [control.code for control in controls.keys]
    assert len(set(codes)) == len(codes) and not set(codes) & set(RESERVED)
    action = controls.action(
        [controls.keys[0].code, *(control.code for control in controls.keys if control.component == "b")],
        values={"c": 299},
    )
    assert (action["a"], action["b"].sum(), action["c"]) == (1, 12, 299)
    assert {row["component"]: len(row["labels"]) for row in controls.to_json()["lists"]} == {"a": 9, "c": 300}


def test_numbers_come_from_sliders_and_stay_in_their_range() -> None:
    controls = Controls.of(ActionSpace({"arm": Continuous(2, -1.0, 0.5)}))
    assert controls.action([], values={"arm": [0.25, 7]})["arm"].tolist() == [0.25, 0.5]
    assert controls.action([])["arm"].tolist() == [0.0, 0.0]
    assert controls.to_json()["sliders"][0]["labels"] == ["arm 0", "arm 1"]


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"codes": ["x"] * 65}, "at most 64"),
        ({"codes": [1]}, "names of keys"),
        ({"codes": [], "mouse": [1]}, "two numbers of pixels"),
        ({"codes": [], "mouse": [1, float("nan")]}, "two numbers of pixels"),
        ({"codes": [], "mouse": "no"}, "two numbers of pixels"),
        ({"codes": [], "values": [1]}, "map components to numbers"),
        ({"codes": [], "values": {"keys": [1]}}, "nothing that a list or slider sets"),
        ({"codes": [], "values": {"mouse": "a"}}, "needs 121 numbers, or one class"),
    ],
)
def test_what_no_page_sends_is_refused(asked: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        MINECRAFT.action(**asked)
