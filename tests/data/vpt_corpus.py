"""VPT recordings whose frames show their own index and whose logs follow the format of the contractors' files."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from reverie.data.video.codec import encode_video


def tick(
    *names: str,
    dx: float = 0,
    dy: float = 0,
    buttons: tuple[int, ...] = (),
    new: tuple[int, ...] = (),
    **more: Any,
) -> dict[str, Any]:
    mouse = {"x": 640.0, "y": 360.0, "dx": dx, "dy": dy, "buttons": list(buttons), "newButtons": list(new)}
    held = [f"key.keyboard.{name}" for name in names]
    return {
        "mouse": mouse,
        "keyboard": {"keys": held, "newKeys": [], "chars": ""},
        "isGuiOpen": False,
        **more,
    }


def write_log(path: Path, *lines: dict[str, Any] | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return path


def write_recording(folder: Path, name: str, n: int, missing: int = 0) -> list[int]:
    """Frame i shows i; the action taken there presses a hotbar key, (7 * i) % 9 + 1. Logs are played at 20 Hz."""
    slots = [(7 * i) % 9 + 1 for i in range(n)]
    lines = [
        tick(str(slot), stats={"minecraft.mine_block:minecraft.oak_log": i // 5})
        for i, slot in enumerate(slots)
    ]
    write_log(folder / f"{name}.jsonl", *lines[: n - missing])
    frames = np.stack([np.full((32, 64, 3), i, np.uint8) for i in range(n)])
    encode_video(folder / f"{name}.mp4", frames, 20, quality="lossless")
    return slots


def session_tick(t: int) -> dict[str, Any]:
    """Tick t of an endless session: the game's clocks go on, slots change, logs are mined at every fifth tick."""
    return tick(
        str((7 * t) % 9 + 1),
        dx=t % 40,
        buttons=(1,) if t % 4 == 0 else (),
        hotbar=(t // 3) % 9,
        tick=t,
        milli=1_628_250_000_000 + 50 * t,
        serverTick=700 + t,
        serverTickDurationMs=12.5,
        stats={"minecraft.mine_block:minecraft.oak_log": t // 5, "minecraft.custom:minecraft.jump": t},
    )


def write_segment(folder: Path, session: str, start: int, stop: int, missing: int = 0) -> Path:
    """Ticks start..stop-1 as one file; the log lacks the last `missing` lines. Frame i shows t = start + i."""
    path = folder / f"{session}-20210806-{start:06d}.mp4"
    write_log(path.with_suffix(".jsonl"), *[session_tick(t) for t in range(start, stop - missing)])
    frames = np.stack([np.full((32, 64, 3), t, np.uint8) for t in range(start, stop)])
    encode_video(path, frames, 20, quality="lossless")
    return path
