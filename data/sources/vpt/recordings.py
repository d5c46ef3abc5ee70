"""Recordings of OpenAI's VPT contractors: `<alias>-<session>-<date>-<time>.mp4` with a `.jsonl` of the same stem.

Line i of the log belongs to frame i: what was seen, and the action taken from there. That is how `Steps` stores
actions, so nothing is shifted here. Frames are never dropped: a world model needs unbroken time.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reverie.data.errors import UserError
from reverie.data.shards.steps import Steps
from reverie.data.sources.vpt.dimensions import dimension_group
from reverie.data.sources.vpt.minecraft import KEYBOARD, KEYS, MOUSE_BUTTONS, SPACE, encode_camera
from reverie.data.sources.vpt.segments import Edges, Tick
from reverie.data.sources.vpt.tasks import TASKS, risen, task_events

FPS = 20
DEGREES_PER_PIXEL = 360 / 2400
SCREEN_HEIGHT = 720
"""Height of the screen in whose pixels the log gives the cursor."""
GUI_SCALE = {"5.7": 0.5, "5.8": 0.5, "6.7": 2.0, "6.8": 2.0, "6.9": 2.0}
"""Recorder version -> factor of mouse movements while a GUI is open."""

_SAME_RATE = 0.005
_MAX_PIXELS = 1e6  # also refuses NaN and numbers too large for a float
_SEGMENT = re.compile(r"(.+)-\d{8}-\d{6}")


@dataclass(frozen=True, kw_only=True)
class VPTOptions:
    """How the quirks of VPT recordings, and of the public code that reads them, are treated."""

    release_stuck_attack: bool = True
    """1. An attack that is new at the first line is stuck: ignore it until attack is pressed again."""
    hotbar_from_zero: bool = False
    """2. Compare the first line's hotbar slot with slot 1, which invents a press in continued recordings."""
    legacy_int_camera: bool = False
    """3. Truncate turns to whole degrees, so that movements below 7 pixels vanish."""
    clip_turns: bool = True
    """4. Clip turns to 180 degrees; the camera classes end at 10 degrees either way."""
    draw_cursor: bool = True
    """5. Draw the mouse cursor, which the videos lack, into frames with an open GUI."""
    gui_mouse_scale: bool = True
    """6. While a GUI is open, scale mouse movements by recorder version, the name of the recording's folder."""
    escape_as_inventory: bool = False
    """7. Read ESC as the inventory key while a GUI is open, as the original training did."""
    join_segments: bool = True
    """Make one episode of the segments of a session that follow each other without a gap, see `data.sources.vpt.segments`."""
    tolerate_damage: bool = True
    """8. Treat the actions of damaged lines and null entries as unknown; otherwise refuse the recording."""


@dataclass(frozen=True, kw_only=True)
class VPTLog:
    """A log of n lines.

    keys     (n, 23) bool, mouse (n,) int64: the action taken at frame i, null where unknown
    known    (n,) bool, the line could be read
    cursor   (n, 2) int64, x and y on a 720 pixels high screen; -1 without an open GUI
    stats    the game's statistics a line, None where missing
    rose     the names of those that rose, see `data.sources.vpt.tasks.risen`
    ends     the first and the last line
    """

    keys: np.ndarray
    mouse: np.ndarray
    known: np.ndarray
    cursor: np.ndarray
    stats: list[dict[str, Any] | None]
    rose: list[frozenset[str]]
    ends: tuple[Tick, Tick]

    def __len__(self) -> int:
        return len(self.known)

    @property
    def has_events(self) -> bool:
        """The log holds statistics; some releases are stripped of them."""
        return any(counts is not None for counts in self.stats)

    @property
    def group(self) -> str | None:
        """`overworld` or `nether_end`, None without statistics."""
        return dimension_group(self.rose) if self.has_events else None

    def edges(self, n: int) -> Edges:
        """Both ends, as the log of a video with `n` frames."""
        action = {"keys": self.keys[-1].tolist(), "mouse": int(self.mouse[-1])}
        is_known = len(self) == n and bool(self.known[-1])
        return Edges(first=self.ends[0], last=self.ends[1], action=action if is_known else None)


def is_vpt_log(path: Path) -> bool:
    """Whether the first line of the file at `path` is an object with the keys mouse and keyboard."""
    try:
        with path.open("rb") as file:
            line = json.loads(file.readline(1_000_000))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(line, dict) and {"mouse", "keyboard"} <= set(line)


def session(stem: str) -> str | None:
    """`<alias>-<session>` of a file name without its suffix, None for other names."""
    match = _SEGMENT.fullmatch(stem)
    return match[1] if match else None


def read_log(path: Path, options: VPTOptions) -> VPTLog:
    """Reads a log. Raises `UserError` naming the file, and the line if `options` tolerate no damage."""
    try:
        raw = path.read_bytes().rstrip().splitlines()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error}); download it again.") from None
    lines = [_parse(line) for line in raw]
    known = np.array([_is_whole(line) for line in lines], np.bool_)
    if not known.any():
        raise UserError(f"{path}: holds no readable line with mouse and keyboard; download it again.")
    if not options.tolerate_damage and not known.all():
        raise UserError(
            f"{path}: line {int(np.argmin(known)) + 1} is damaged; "
            f"download it again or set --vpt.tolerate_damage true."
        )
    scale = GUI_SCALE.get(path.parent.name, 1.0) if options.gui_mouse_scale else 1.0
    stats = [line["stats"] if isinstance(line.get("stats"), dict) else None for line in lines]
    return VPTLog(
        keys=_keys(lines, known, options),
        mouse=encode_camera(_degrees(lines, known, scale, options)),
        known=known,
        cursor=np.array([_cursor(line, ok) for line, ok in zip(lines, known)], np.int64).reshape(-1, 2),
        stats=stats,
        rose=risen(stats),
        ends=(Tick.of(lines[0]), Tick.of(lines[-1])),
    )


def read_steps(log: VPTLog, path: Path, n: int, fps: float) -> Steps:
    """The steps of a video with `n` frames at `fps`.

    The last row's action counts as unknown, as in every recording: no frame shows where it led.

    Raises `UserError` when the log at `path` has neither n nor n - 1 lines, or the rate is not 20 Hz.
    """
    if not len(log) <= n <= len(log) + 1:
        raise UserError(
            f"{path}: has {len(log)} lines for {n} frames, expected {n} or {n - 1}; download both files again."
        )
    if abs(fps / FPS - 1) >= _SAME_RATE:
        raise UserError(f"{path}: belongs to a video of {fps:g} Hz, not {FPS}; download the original again.")
    unknown = Steps.unknown(n, SPACE, len(TASKS))
    mask = np.zeros(n, np.bool_)
    mask[: len(log)] = log.known
    mask[-1:] = False
    for name, value in (("keys", log.keys), ("mouse", log.mouse)):
        unknown.actions[name][mask] = value[mask[: len(log)]]
    unknown.action_mask[:] = mask
    unknown.events[: len(log)] = task_events(log.rose)
    unknown.reward[:] = unknown.events.sum(axis=1)
    unknown.reward_mask[: len(log)] = [counts is not None for counts in log.stats]
    return unknown


def draw_cursors(frames: np.ndarray, cursor: np.ndarray) -> np.ndarray:
    """Frames (n, H, W, 3) uint8 with a white 16x16 arrow at `cursor` (n, 2), see `VPTLog`; a copy."""
    frames = frames.copy()
    height = frames.shape[1]
    for frame, (x, y) in zip(frames, cursor):
        if x >= 0 and y >= 0:
            left, top = int(x * height / SCREEN_HEIGHT), int(y * height / SCREEN_HEIGHT)
            area = frame[top : top + 16, left : left + 16]  # cut off at the edges
            area[_ARROW[: area.shape[0], : area.shape[1]]] = 255
    return frames


def _arrow() -> np.ndarray:
    """(16, 16) bool: the head of an arrow that points to its top left corner, and a shaft."""
    y, x = np.mgrid[:16, :16]
    return ((x <= y) & (x + y < 16)) | ((abs(2 * x - y) <= 2) & (y > 8))


_ARROW = _arrow()


def _parse(line: bytes) -> dict[str, Any]:
    """The object in `line`, {} where it is damaged: a row must stay for its frame."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _is_whole(line: dict[str, Any]) -> bool:
    mouse, keyboard = line.get("mouse"), line.get("keyboard")
    if not isinstance(mouse, dict) or not isinstance(keyboard, dict):
        return False
    numbers = [mouse.get(name, 0) for name in ("x", "y", "dx", "dy")]
    lists = [mouse.get("buttons", []), mouse.get("newButtons", []), keyboard.get("keys", [])]
    return all(isinstance(value, int | float) and abs(value) < _MAX_PIXELS for value in numbers) and all(
        isinstance(value, list) for value in lists
    )


def _keys(lines: list[dict[str, Any]], known: np.ndarray, options: VPTOptions) -> np.ndarray:
    """Keys held, (n, 23) bool."""
    keys = np.zeros((len(lines), len(KEYS)), np.bool_)
    is_stuck = False
    for row, line in enumerate(lines):
        if not known[row]:
            continue
        new = line["mouse"].get("newButtons", [])
        is_stuck = new == [0] if row == 0 else is_stuck and 0 not in new
        held = _held(line, options)
        if is_stuck and options.release_stuck_attack:
            held.discard("attack")
        keys[row] = [name in held for name in KEYS]
    for row, slot in _scrolled(lines, options):
        keys[row, KEYS.index(f"hotbar.{slot + 1}")] = known[row]
    return keys


def _held(line: dict[str, Any], options: VPTOptions) -> set[str]:
    names = [str(key).removeprefix("key.keyboard.") for key in line["keyboard"].get("keys", [])]
    held = {KEYBOARD[name] for name in names if name in KEYBOARD}
    buttons = line["mouse"].get("buttons", [])
    held |= {name for number, name in enumerate(MOUSE_BUTTONS) if number in buttons}
    if options.escape_as_inventory and "ESC" in held and line.get("isGuiOpen"):
        held = held - {"ESC"} | {"inventory"}
    return held


def _scrolled(lines: list[dict[str, Any]], options: VPTOptions) -> list[tuple[int, int]]:
    """(row, slot) wherever the hotbar's slot differs from the one before; lines without one are passed over."""
    changes: list[tuple[int, int]] = []
    before = 0 if options.hotbar_from_zero else None
    for row, line in enumerate(lines):
        slot = line.get("hotbar")
        if not isinstance(slot, int) or not 0 <= slot <= 8:
            continue
        if before is not None and slot != before:
            changes.append((row, slot))
        before = slot
    return changes


def _degrees(
    lines: list[dict[str, Any]], known: np.ndarray, gui_scale: float, options: VPTOptions
) -> np.ndarray:
    """Turns in degrees, (n, 2): pitch from dy, yaw from dx; 0 where unknown."""
    degrees = np.zeros((len(lines), 2))
    for row, line in enumerate(lines):
        if known[row]:
            scale = DEGREES_PER_PIXEL * (gui_scale if line.get("isGuiOpen") else 1.0)
            degrees[row] = [line["mouse"].get(name, 0) * scale for name in ("dy", "dx")]
    if options.legacy_int_camera:
        degrees = np.trunc(degrees)
    return np.clip(degrees, -180, 180) if options.clip_turns else degrees


def _cursor(line: dict[str, Any], known: bool) -> tuple[int, int]:
    if not known or not line.get("isGuiOpen") or not {"x", "y"} <= set(line["mouse"]):
        return -1, -1
    return int(line["mouse"]["x"]), int(line["mouse"]["y"])
