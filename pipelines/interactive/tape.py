"""A session as text: start, seed, settings and actions, from which the same frames can be made again.

The text is JSON, compressed, in the alphabet of base64 for addresses; it fits into the fragment of a link while it is short.
"""

import base64
import binascii
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from reverie.data.actions import ActionSpace, Binary, Categorical
from reverie.data.errors import UserError
from reverie.pipelines.interactive.messages import MOST_FRAMES, Seed

Flat = list[Any]
"""An action as JSON: for each component a class, a number whose bits are the keys, or a list of numbers."""
_MOST_JSON = 8 << 20
_GRID = 4


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class StartAt(_Strict):
    """Where a dream begins: held-out clip `number`, nothing, a picture (PNG in base64), or a game's own state.

    A game is begun with seed `number`, and `played` are the actions before the dream begins.
    """

    kind: Literal["clip", "nothing", "picture", "game"]
    number: Seed = 0
    picture: Annotated[str, StringConstraints(max_length=1 << 20)] = ""
    played: Annotated[list[Any], Field(max_length=MOST_FRAMES)] = []


class Change(_Strict):
    """Settings from frame `at` on."""

    at: Annotated[int, Field(ge=0, le=MOST_FRAMES)]
    sampling_steps: Annotated[int, Field(ge=1, le=1024)] | None = None
    context_level: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Seed | None = None


class Saved(_Strict):
    """What the text holds. `digest`, `look`: of the last frame, see `fingerprint`."""

    format: Literal[1] = 1
    world: Annotated[str, StringConstraints(max_length=64)]
    start: StartAt
    changes: Annotated[list[Change], Field(max_length=MOST_FRAMES)]
    actions: Annotated[list[Any], Field(max_length=MOST_FRAMES)]
    digest: int
    look: Annotated[str, StringConstraints(max_length=128)]


@dataclass
class Tape:
    """The session while it is played; `taken` holds no more than can be saved."""

    start: StartAt
    changes: list[Change] = field(default_factory=list)
    taken: list[Flat] = field(default_factory=list)
    overrun: bool = False

    def add(self, action: Flat) -> None:
        """An action was taken."""
        if len(self.taken) < MOST_FRAMES:
            self.taken.append(action)
        else:
            self.overrun = True

    def back(self, frames: int, now: Change) -> None:
        """The last `frames` actions were undone; `now`: the settings that hold nevertheless."""
        del self.taken[len(self.taken) - frames :]
        self.changes = [change for change in self.changes if change.at <= now.at and change.at < MOST_FRAMES]
        self.changes.append(now)

    def set(self, change: Change) -> None:
        """Settings were changed."""
        if len(self.changes) < MOST_FRAMES:
            self.changes.append(change)
        else:
            self.overrun = True

    def text(self, world: str, frame: np.ndarray) -> str:
        """The session up to `frame`. Raises `UserError` when it was too long."""
        if self.overrun:
            raise UserError(f"save: sessions of up to {MOST_FRAMES} frames can be saved; begin again.")
        digest, look = fingerprint(frame)
        saved = Saved(
            world=world, start=self.start, changes=self.changes, actions=self.taken, digest=digest, look=look
        )
        content = saved.model_dump_json(exclude_defaults=True).encode()
        return base64.urlsafe_b64encode(zlib.compress(content, 9)).rstrip(b"=").decode()


def read(text: str) -> Saved:
    """What `Tape.text` wrote. Raises `UserError` for anything else."""
    try:
        packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        unpacker = zlib.decompressobj()
        content = unpacker.decompress(packed, _MOST_JSON)
        if unpacker.unconsumed_tail or not unpacker.eof:
            raise ValueError("it is too long, or has no end")
        return Saved.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        reason = f"{'.'.join(map(str, first['loc']))[:100]}: {first['msg'][:200]}"
    except (ValueError, zlib.error, binascii.Error) as error:
        reason = str(error)[:200]
    raise UserError(f"session: is none that this page saved ({reason}).")


def flat(space: ActionSpace, action: Mapping[str, np.ndarray]) -> Flat:
    """An action as JSON can hold it, exactly."""
    found: Flat = []
    for name, component in space.components.items():
        value = np.asarray(action[name])
        if isinstance(component, Binary):
            found.append(sum(1 << i for i in np.flatnonzero(value).tolist()))
        else:
            found.append(value.tolist())
    return found


def unflat(space: ActionSpace, value: Any, place: str = "session") -> dict[str, np.ndarray]:
    """Inverse of `flat`. Raises `UserError` for what is no action of `space`."""
    components = space.components.items()
    if not isinstance(value, list) or len(value) != len(space.components):
        raise UserError(f"{place}: an action should have {len(space.components)} components.")
    try:
        rows = {name: _unpacked(component, x)[None] for (name, component), x in zip(components, value)}
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{place}: holds what is no action of this world.") from None
    return {name: row[0] for name, row in space.check(rows, 1, place).items()}


def _unpacked(component: Any, value: Any) -> np.ndarray:
    if isinstance(component, Binary):
        if type(value) is not int or not 0 <= value < 1 << component.n:
            raise ValueError
        return np.array([bool(value >> i & 1) for i in range(component.n)])
    if isinstance(component, Categorical):
        if type(value) is not int:
            raise ValueError
        return np.array(value, np.int64)
    return np.array(value, np.float32)


def fingerprint(frame: np.ndarray) -> tuple[int, str]:
    """CRC-32 of the frame, and what it looks like: the means of 4 x 4 blocks, as hexadecimal digits."""
    rows = [block for part in np.array_split(frame, _GRID) for block in np.array_split(part, _GRID, axis=1)]
    means = np.array([block.mean((0, 1)) if block.size else np.zeros(3) for block in rows])
    return zlib.crc32(frame.tobytes()), np.rint(means).astype(np.uint8).tobytes().hex()


def compare(saved: Saved, frame: np.ndarray) -> Literal["same", "rounding", "other"]:
    """Whether `frame` is the one that the session ended with: bit for bit, but for rounding, or not."""
    digest, look = fingerprint(frame)
    if digest == saved.digest:
        return "same"
    try:
        then, now = (np.frombuffer(bytes.fromhex(x), np.uint8).astype(int) for x in (saved.look, look))
    except ValueError:
        return "other"
    return "rounding" if then.shape == now.shape and np.abs(then - now).max() <= 1 else "other"


def as_base64(content: bytes) -> str:
    """For JSON."""
    return base64.b64encode(content).decode()


def from_base64(text: str) -> bytes:
    """Inverse. Raises `UserError`."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise UserError("session: holds a picture that cannot be read.") from None
