"""What a person presses, as an action of any space: Minecraft's own keys and mouse, else one key per class or button.

Keys have the names that browsers give them by place (`KeyboardEvent.code`: KeyW, Space), mouse buttons are Mouse0 (left), Mouse1
(middle) and Mouse2 (right). The keys in `RESERVED` belong to the page itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from reverie.data.actions import ActionSpace, Binary, Categorical, Continuous
from reverie.data.errors import UserError
from reverie.data.sources.vpt.minecraft import KEYBOARD, MOUSE_BUTTONS, SPACE, encode_camera
from reverie.data.sources.vpt.recordings import DEGREES_PER_PIXEL

RESERVED = ("KeyP", "KeyO", "Backspace", "Enter")
"""Pause, one step, the same context again, the next context."""
_PLACES = {"space": "Space", "left.shift": "ShiftLeft", "left.control": "ControlLeft", "escape": "Backquote"}
"""Browsers keep Escape for themselves while they hold the mouse."""
_MOUSE = dict(zip(MOUSE_BUTTONS, ("Mouse0", "Mouse2", "Mouse1"), strict=True))
"""Minecraft counts left, right, middle; browsers left, middle, right."""
_ARROWS = {
    "left": "ArrowLeft",
    "right": "ArrowRight",
    "up": "ArrowUp",
    "down": "ArrowDown",
    "forward": "ArrowUp",
}
_POOL = (
    *(f"Digit{n}" for n in (1, 2, 3, 4, 5, 6, 7, 8, 9, 0)),
    *(f"Key{letter}" for letter in "QWERTYUIASDFGHJKLZXCVBNM"),
    *("Space", "Comma", "Period", "Slash", "Semicolon", "Minus", "Equal"),
)
_MOST_KEYS = 64
_MOST_PIXELS = 1e5


@dataclass(frozen=True)
class Control:
    """A key or mouse button.

    code, component, label  what is pressed, what it acts on, what people call it
    index                   the button of a Binary component, or the class of a Categorical one
    """

    code: str
    component: str
    label: str
    index: int


@dataclass(frozen=True)
class Controls:
    """All controls of one action space; what has no key is set on the page.

    camera  component that the movement of the mouse decides, in Minecraft's classes; None for none
    """

    space: ActionSpace
    keys: tuple[Control, ...]
    camera: str | None = None

    @classmethod
    def of(cls, space: ActionSpace) -> "Controls":
        """Minecraft's keys for its space; for others the arrows where names allow it, then digits and letters."""
        if space == SPACE:
            return cls(space, _minecraft(), camera="mouse")
        free = list(_POOL)
        return cls(
            space, tuple(control for pair in space.components.items() for control in _keys(*pair, free))
        )

    def to_json(self) -> dict[str, Any]:
        """What the page shows: keys, lists of classes that may have no key, sliders."""
        components = self.space.components.items()
        return {
            "keys": [asdict(control) for control in self.keys],
            "camera": self.camera,
            "lists": [
                {"component": name, "labels": _labels(name, c), "null": c.null}
                for name, c in components
                if isinstance(c, Categorical) and name != self.camera
            ],
            "sliders": [
                {"component": name, "labels": _labels(name, c), "low": c.low, "high": c.high}
                for name, c in components
                if isinstance(c, Continuous)
            ],
        }

    def action(
        self, codes: Sequence[str], mouse: Sequence[float] = (0, 0), values: Mapping[str, Any] | None = None
    ) -> dict[str, np.ndarray]:
        """The action, component -> (...), of a person who holds `codes`, in the order in which they went down.

        `mouse`: pixels right and down since the last frame. `values`: what lists and sliders say; a key has precedence. Raises
        `UserError` for what no page of ours sends.
        """
        action = {name: value[0] for name, value in self.space.null_numpy(1).items()}
        for name, value in _mapping(values).items():
            action[name] = _set(self.space, name, value)
        pressed = _texts(codes)
        by_code: dict[str, list[Control]] = {}
        for control in self.keys:
            by_code.setdefault(control.code, []).append(control)
        for code in pressed:
            for control in by_code.get(code, []):
                if isinstance(self.space.components[control.component], Binary):
                    action[control.component] = action[control.component].copy()
                    action[control.component][control.index] = True
                else:
                    action[control.component] = np.int64(control.index)
        if self.camera is not None:
            right, down = _pixels(mouse)
            turn = encode_camera(DEGREES_PER_PIXEL * np.array([down, right]))
            action[self.camera] = np.int64(turn)
        return {name: np.asarray(value) for name, value in action.items()}


def _minecraft() -> tuple[Control, ...]:
    names = [*KEYBOARD.values(), *MOUSE_BUTTONS]
    codes = [
        _PLACES.get(key) or (f"Digit{key}" if key.isdigit() else f"Key{key.upper()}") for key in KEYBOARD
    ]
    codes += [_MOUSE[button] for button in MOUSE_BUTTONS]
    controls = [
        Control(code, "keys", name, i) for i, (code, name) in enumerate(zip(codes, names, strict=True))
    ]
    # Control+W closes a browser's tab, so sprinting has a second key.
    return (*controls, Control("KeyR", "keys", "sprint", names.index("sprint")))


def _keys(name: str, component: Any, free: list[str]) -> list[Control]:
    """A key for each class but the null one, or for each button, as long as there are any; they leave `free`."""
    if isinstance(component, Continuous):
        return []
    found: list[Control] = []
    for index, label in enumerate(_labels(name, component)):
        if isinstance(component, Categorical) and index == component.null:
            continue
        wanted = _ARROWS.get(label.replace("_", " ").split(" ")[-1].lower(), "")
        if any(control.code == wanted for control in found) or not wanted:
            if not free:
                break
            wanted = free.pop(0)
        found.append(Control(wanted, name, label, index))
    return found


def _labels(name: str, component: Any) -> list[str]:
    return list(component.names) or [f"{name} {i}" for i in range(component.n)]


def _set(space: ActionSpace, name: str, value: Any) -> np.ndarray:
    """The value that a list or slider gives to a component."""
    component = space.components.get(name)
    if component is None or isinstance(component, Binary):
        raise UserError(f"values: {name!r} is nothing that a list or slider sets.")
    array = np.asarray(value)
    if array.dtype.kind not in "if" or array.shape != component.shape or not np.isfinite(array).all():
        raise UserError(f"values: {name!r} needs {component.n} numbers, or one class, got {value!r}.")
    if isinstance(component, Categorical):
        return np.clip(array, 0, component.n - 1).astype(np.int64)
    return np.clip(array, component.low, component.high).astype(np.float32)


def _mapping(values: Any) -> Mapping[str, Any]:
    if values is not None and not isinstance(values, Mapping):
        raise UserError(f"values: should map components to numbers, got {values!r}.")
    return values or {}


def _texts(codes: Any) -> Sequence[str]:
    if (
        not isinstance(codes, list | tuple)
        or len(codes) > _MOST_KEYS
        or not all(isinstance(c, str) for c in codes)
    ):
        raise UserError(f"codes: should be a list of at most {_MOST_KEYS} names of keys.")
    return codes


def _pixels(mouse: Any) -> tuple[float, float]:
    numbers = mouse if isinstance(mouse, list | tuple) else []
    if len(numbers) != 2 or not all(isinstance(x, int | float) and abs(x) < _MOST_PIXELS for x in numbers):
        raise UserError(f"mouse: should be two numbers of pixels, right and down, got {mouse!r}.")
    return float(numbers[0]), float(numbers[1])
