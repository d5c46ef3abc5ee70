"""What a page may say, one class for each kind of message; whatever else arrives is refused.

Text messages are JSON objects whose `type` names the class; a binary message is an uploaded picture.
"""

from functools import cache
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from reverie.data.errors import UserError

MOST_TEXT = 1 << 20
"""Characters of a message; the longest is a session to replay."""
MOST_FRAMES = 20_000
"""Frames of a session that can be saved."""

Code = Annotated[str, StringConstraints(max_length=32)]
Pixels = Annotated[float, Field(ge=-1e5, le=1e5)]
Number = Annotated[float, Field(ge=-1e30, le=1e30)]
Seed = Annotated[int, Field(ge=0, lt=2**53)]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Hello(_Message):
    """The first message; `resume` is what the server gave before the connection was lost."""

    type: Literal["hello"]
    resume: Annotated[str, StringConstraints(max_length=64)] | None = None


class Begin(_Message):
    """A new dream: the same start again, or another of its kind, where `number` is left out the next."""

    type: Literal["begin"]
    kind: Literal["again", "clip", "nothing", "game", "here"]
    number: Seed | None = None


class Act(_Message):
    """The next frame: what is held, in the order in which it went down; pixels of the mouse; lists and sliders."""

    type: Literal["act"]
    codes: Annotated[list[Code], Field(max_length=64)] = []
    mouse: tuple[Pixels, Pixels] = (0.0, 0.0)
    values: Annotated[
        dict[Code, Number | Annotated[list[Number], Field(max_length=4096)]], Field(max_length=64)
    ] = {}


class Back(_Message):
    """Undo frames."""

    type: Literal["back"]
    frames: Annotated[int, Field(ge=1, le=100_000)] = 1


class Set(_Message):
    """Settings that hold from the next frame on; what is left out stays."""

    type: Literal["set"]
    sampling_steps: Annotated[int, Field(ge=1, le=1024)] | None = None
    context_level: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Seed | None = None
    agent: bool | None = None
    task: Annotated[int, Field(ge=-1, le=10_000)] | None = None
    record: bool | None = None


class Save(_Message):
    """Asks for the session as text."""

    type: Literal["save"]


class Replay(_Message):
    """A session that was saved."""

    type: Literal["replay"]
    session: Annotated[str, StringConstraints(max_length=MOST_TEXT)]


class Mark(_Message):
    """The checklist's present task is over."""

    type: Literal["mark"]
    success: bool
    note: Annotated[str, StringConstraints(max_length=10_000)] = ""


Message = Hello | Begin | Act | Back | Set | Save | Replay | Mark


@cache
def _adapter() -> TypeAdapter[Message]:
    return TypeAdapter(Annotated[Message, Field(discriminator="type")])


def parse(text: str) -> Message:
    """The message in `text`. Raises `UserError` naming the field that is wrong."""
    if len(text) > MOST_TEXT:
        raise UserError(f"message: has {len(text)} characters; at most {MOST_TEXT} are read.")
    try:
        return _adapter().validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "message"
        raise UserError(f"{place[:100]}: {first['msg'][:200]}.") from None
