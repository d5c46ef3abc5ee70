"""The Minecraft action space, the camera codec, and the joint actions of OpenAI's VPT.

The space is factored as in Dreamer 4: 23 keys, each up or down, and one choice among 121 mouse movements. The joint
codec, one of 8641 button combinations with one of 121 cameras, exists to exchange actions with VPT's own models; it
cannot express every combination.
"""

import numpy as np

from reverie.data.actions import ActionSpace, Binary, Categorical

KEYBOARD = {
    **{"w": "forward", "s": "back", "a": "left", "d": "right", "space": "jump"},
    **{"left.shift": "sneak", "left.control": "sprint", "q": "drop", "e": "inventory"},
    **{"f": "swapHands", "escape": "ESC"},
    **{str(number): f"hotbar.{number}" for number in range(1, 10)},
}
"""Physical key -> name of the action, in the order of the component `keys`."""
MOUSE_BUTTONS = ("attack", "use", "pickItem")
"""Names of the mouse buttons 0, 1, 2; they follow the keyboard in the component `keys`."""
KEYS = (*KEYBOARD.values(), *MOUSE_BUTTONS)
BINS = 11
"""Camera bins an axis."""
NULL_MOUSE = 60
SPACE = ActionSpace(
    {"keys": Binary(len(KEYS), names=KEYS), "mouse": Categorical(BINS * BINS, null=NULL_MOUSE)}
)

MAX_DEGREES, _MU, _BIN_WIDTH = 10.0, 10.0, 2.0

# Slowest first. "none" is value 0 of each group, its buttons are 1, 2, ...
_GROUPS = (
    tuple(f"hotbar.{number}" for number in range(1, 10)),
    *(("forward", "back"), ("left", "right"), ("sprint", "sneak")),
    *(("use",), ("drop",), ("attack",), ("jump",), ("camera",)),
)
_SIZES = tuple(len(group) + 1 for group in _GROUPS)
INVENTORY = int(np.prod(_SIZES))
"""The joint index 8640: the inventory key excludes all other buttons and the camera."""
NUM_JOINT = INVENTORY + 1


def encode_camera(degrees: np.ndarray) -> np.ndarray:
    """(..., 2) turns in degrees, pitch then yaw -> (...) int64 classes 11 * pitch bin + yaw bin, by the mu-law."""
    u = np.clip(np.asarray(degrees, np.float64), -MAX_DEGREES, MAX_DEGREES) / MAX_DEGREES
    v = np.sign(u) * np.log1p(_MU * np.abs(u)) / np.log1p(_MU) * MAX_DEGREES
    bins = np.round((v + MAX_DEGREES) / _BIN_WIDTH).astype(np.int64)  # (..., 2)
    return BINS * bins[..., 0] + bins[..., 1]


def decode_camera(mouse: np.ndarray) -> np.ndarray:
    """(...) classes -> (..., 2) float64 degrees, pitch then yaw: the centres of the bins."""
    bins = np.stack(np.divmod(np.asarray(mouse, np.int64), BINS), axis=-1)
    c = (bins * _BIN_WIDTH - MAX_DEGREES) / MAX_DEGREES
    return np.sign(c) * ((1 + _MU) ** np.abs(c) - 1) / _MU * MAX_DEGREES


def encode_joint(keys: np.ndarray, mouse: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Factored actions to VPT's: (..., 23) bool and (...) int64 -> buttons (...) in [0, 8641) and camera (...).

    Forward with back, and left with right, cancel; of other groups the later button wins. ESC, swapHands and pickItem
    are dropped.
    """
    keys, mouse = np.asarray(keys, np.bool_), np.asarray(mouse, np.int64)
    values = [_group_value(group, keys, mouse) for group in _GROUPS]
    buttons = np.ravel_multi_index(tuple(values), _SIZES).astype(np.int64)
    inventory = keys[..., KEYS.index("inventory")]
    return np.where(inventory, INVENTORY, buttons), np.where(inventory, NULL_MOUSE, mouse)


def decode_joint(buttons: np.ndarray, camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """VPT's actions to factored ones: two (...) int64 -> keys (..., 23) bool and mouse (...) int64.

    The camera counts only where the button combination says that it moves.
    """
    buttons, camera = np.asarray(buttons, np.int64), np.asarray(camera, np.int64)
    inventory = buttons == INVENTORY
    values = np.unravel_index(np.where(inventory, 0, buttons), _SIZES)
    keys = np.zeros((*buttons.shape, len(KEYS)), np.bool_)
    for group, value in zip(_GROUPS[:-1], values[:-1]):
        for number, name in enumerate(group, start=1):
            keys[..., KEYS.index(name)] = value == number
    keys[..., KEYS.index("inventory")] = inventory
    return keys, np.where(values[-1] == 1, camera, NULL_MOUSE)


def _group_value(group: tuple[str, ...], keys: np.ndarray, mouse: np.ndarray) -> np.ndarray:
    """0 for none, else 1 + the button of `group` that counts, (...)."""
    if group == ("camera",):
        return (mouse != NULL_MOUSE).astype(np.int64)
    pressed = keys[..., [KEYS.index(name) for name in group]]  # (..., buttons)
    value = (pressed * np.arange(1, len(group) + 1)).max(axis=-1)
    if group in (("forward", "back"), ("left", "right")):
        value = np.where(pressed.all(axis=-1), 0, value)
    return value
