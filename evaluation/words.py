"""What stands below the frames of a film of a quest, all of which are in Minecraft's action space."""

from collections.abc import Iterable, Mapping

import numpy as np

from reverie.data.sources.vpt.minecraft import KEYS, decode_camera

_SHOWN = 5
"""Milestones that fit into a line."""


def caption(
    step: int,
    fps: float,
    task: str,
    action: Mapping[str, np.ndarray],
    value: float | None,
    reached: Iterable[str],
) -> list[str]:
    """Four lines: where the episode stands, the action taken here, the value, the milestones reached last."""
    minutes, seconds = divmod(int(step / fps), 60)
    return [
        f"{minutes}:{seconds:02d}  step {step}  task {task}",
        minecraft_words(action),
        "no value" if value is None else f"value {value:+.3f}",
        ", ".join(list(reached)[-_SHOWN:]) or "no milestone yet",
    ]


def minecraft_words(action: Mapping[str, np.ndarray]) -> str:
    """A Minecraft action: its keys, and the turn of the camera in degrees, down and to the right."""
    keys = [key for key, down in zip(KEYS, action["keys"]) if down]
    down, right = decode_camera(action["mouse"])
    turn = [f"turn {down:+.1f} {right:+.1f}"] if down or right else []
    return ", ".join(["+".join(keys), *turn] if keys else turn) or "nothing"
