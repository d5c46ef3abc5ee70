"""Our Minecraft actions and those of MineRL and MineStudio, in both directions.

Ours is `{keys: (23,) bool, mouse: a class of 121}`, see `data.sources.vpt.minecraft`. Every action of ours has exactly
one counterpart in MineRL and comes back unchanged. MineStudio's two forms cannot say everything; what they can say
comes back unchanged:

| form | lost |
|---|---|
| MineRL | nothing |
| MineStudio "env" | ESC, drop, swapHands, pickItem |
| MineStudio "agent" | ESC, swapHands, pickItem; one of two buttons that exclude each other; all else at the inventory key |

The other way round the turn of the camera is rounded to the nearest of the 11 x 11 classes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from reverie.data.sources.vpt.minecraft import KEYS, decode_camera, decode_joint, encode_camera, encode_joint

MINESTUDIO_KEYS = tuple(key for key in KEYS if key not in ("ESC", "drop", "swapHands", "pickItem"))
"""The 19 keys of MineStudio's "env" actions."""

Action = Mapping[str, np.ndarray]
"""`keys` (23,) bool and `mouse` () int64."""


def to_minerl(action: Action) -> dict[str, Any]:
    """MineRL's dict: each key 0 or 1, `camera` (2,) float32, pitch and yaw in degrees a tick."""
    return _pressed(action, KEYS)


def from_minerl(action: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Inverse of `to_minerl`; keys that are missing are up, a missing camera rests."""
    keys = np.array([bool(action.get(key, 0)) for key in KEYS])
    camera = np.asarray(action.get("camera", (0.0, 0.0)), np.float64)
    return {"keys": keys, "mouse": encode_camera(camera)}


def to_minestudio_env(action: Action) -> dict[str, Any]:
    """MineStudio's action of type "env": 19 keys 0 or 1 and `camera` as in MineRL."""
    return _pressed(action, MINESTUDIO_KEYS)


def from_minestudio_env(action: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Inverse of `to_minestudio_env` where that lost nothing."""
    return from_minerl(action)


def to_minestudio_agent(action: Action) -> dict[str, np.ndarray]:
    """MineStudio's action of type "agent": `buttons` (1,) in [0, 8641) and `camera` (1,) in [0, 121)."""
    buttons, camera = encode_joint(action["keys"], action["mouse"])
    return {"buttons": buttons.reshape(1), "camera": camera.reshape(1)}


def from_minestudio_agent(action: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Inverse of `to_minestudio_agent` where that lost nothing."""
    keys, mouse = decode_joint(np.asarray(action["buttons"]).item(), np.asarray(action["camera"]).item())
    return {"keys": keys, "mouse": mouse}


def _pressed(action: Action, names: tuple[str, ...]) -> dict[str, Any]:
    pressed: dict[str, Any] = {name: int(action["keys"][KEYS.index(name)]) for name in names}
    return {**pressed, "camera": decode_camera(action["mouse"]).astype(np.float32)}
