"""Recorded episodes in the form of OpenAI's VPT contractors: what `data.sources.vpt.recordings` reads, and a few fields more.

Line i belongs to frame i: what was seen, and the action taken from there. What a game did not tell is left out, as in
recordings of other recorder versions.
"""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from reverie.data.sources.episodes import EpisodeSteps
from reverie.data.sources.status import PlayerStatus, Status
from reverie.data.sources.vpt.minecraft import KEYBOARD, KEYS, MOUSE_BUTTONS, decode_camera
from reverie.data.sources.vpt.recordings import DEGREES_PER_PIXEL, FPS, SCREEN_HEIGHT

CENTER = (640.0, SCREEN_HEIGHT / 2)
"""Where the cursor is while no screen is open."""
_HOTBAR = [KEYS.index(f"hotbar.{number}") for number in range(1, 10)]
_DELAY = 3
"""Frames after a key within which the game says that the slot has changed."""
_MILLISECONDS = 1000 / FPS


def vpt_log(steps: EpisodeSteps) -> Iterator[bytes]:
    """The lines of a log, one a frame, of an episode with Minecraft's actions."""
    keys, degrees = steps.actions["keys"], decode_camera(steps.actions["mouse"])
    statuses: list[Status | None] = [None] * len(keys) if steps.statuses is None else list(steps.statuses)
    slots = _slots(keys, statuses)
    held_before: set[str] | None = None
    for row, status in enumerate(statuses):
        player = None if status is None else status.player
        held = {name for name, down in zip(KEYS, keys[row], strict=True) if down}
        # What is held at the first line was pressed before: readers take an attack that is new there for a stuck one.
        new = set() if held_before is None else held - held_before
        line = {
            "mouse": _mouse(held, new, degrees[row], player),
            "keyboard": {"keys": _keyboard(held), "newKeys": _keyboard(new), "chars": ""},
            **({} if player is None else _player(player, slots[row])),
            "tick": row,
            "milli": round(row * _MILLISECONDS),
            **_inventory(status),
            "serverTick": row,
            "serverTickDurationMs": _MILLISECONDS,
            **({} if status is None else {"stats": _stats(status)}),
        }
        held_before = held
        yield json.dumps(line).encode() + b"\n"


def _mouse(held: set[str], new: set[str], degrees: np.ndarray, player: PlayerStatus | None) -> dict[str, Any]:
    x, y = CENTER if player is None else player.cursor
    pitch, yaw = (degrees / DEGREES_PER_PIXEL).tolist()
    return {
        **{"x": x, "y": y, "dx": yaw, "dy": pitch, "scaledX": x - CENTER[0], "scaledY": y - CENTER[1]},
        **{"dwheel": 0.0, "buttons": _buttons(held), "newButtons": _buttons(new)},
    }


def _buttons(names: set[str]) -> list[int]:
    return [number for number, name in enumerate(MOUSE_BUTTONS) if name in names]


def _keyboard(names: set[str]) -> list[str]:
    return [f"key.keyboard.{key}" for key, name in KEYBOARD.items() if name in names]


def _player(player: PlayerStatus, slot: int) -> dict[str, Any]:
    yaw, pitch = player.view
    x, y, z = player.position
    return {
        **{"isGuiOpen": player.in_gui, "isGuiInventory": player.in_inventory, "hotbar": slot},
        **{"yaw": yaw, "pitch": pitch, "xpos": x, "ypos": y, "zpos": z},
    }


def _inventory(status: Status | None) -> dict[str, Any]:
    if status is None or status.inventory is None:
        return {}
    return {"inventory": [{"type": item, "quantity": number} for item, number in status.inventory]}


def _stats(status: Status) -> dict[str, int]:
    return {
        f"minecraft.{name.replace(':', ':minecraft.')}": total for name, total in sorted(status.stats.items())
    }


def _slots(keys: np.ndarray, statuses: list[Status | None]) -> list[int]:
    """The slot of each line, which changes at a line that presses its key: readers take a change for a press.

    The game tells a change up to `_DELAY` frames later, and some keys change nothing.
    """
    told = [0 if status is None or status.player is None else status.player.slot for status in statuses]
    slots, slot = [], told[0]
    for row in range(len(keys)):
        soon = [later for later in told[row + 1 : row + 1 + _DELAY] if keys[row, _HOTBAR[later]]]
        slot = soon[0] if soon else slot
        slots.append(slot)
    return slots
