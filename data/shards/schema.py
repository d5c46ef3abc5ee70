"""What index.json and meta.json must hold, checked once where they are read.

A damaged entry costs its own clip: `sound_entries` parts the good ones from the others. Of a damaged header nothing can
be used, so `check_header` raises.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Annotated, Any

from reverie.data.shards.members import is_plain

MOST_META_BYTES = 1 << 24
"""Of a meta.json: mostly its events."""
_LARGEST_FILE = 1 << 50
_LONGEST_CLIP = 1_000_000
_LARGEST_SIDE = 16384
_MOST_TASKS = 1 << 16
_SHA256 = re.compile("[0-9a-f]{64}")
_SHARD = re.compile(r"[A-Za-z0-9_.-]+\.tar")

Check = Callable[[Any], dict[str, Any]]


@cache
def _models() -> dict[str, Check]:
    """Validators by name. Built when first needed: pydantic costs a fifth of a second."""
    from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr

    Count = Annotated[StrictInt, Field(ge=0, le=_LARGEST_FILE)]
    Side = Annotated[StrictInt, Field(ge=1, le=_LARGEST_SIDE)]
    Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
    Rate = Annotated[Number, Field(gt=0, le=1e6)]
    Name = Annotated[StrictStr, AfterValidator(_plain)]
    Names = Annotated[list[StrictStr], Field(max_length=_MOST_TASKS), AfterValidator(_different)]
    Sha256 = Annotated[StrictStr, AfterValidator(_checksum)]

    class _Clip(BaseModel):
        source: StrictStr
        episode: StrictStr
        start: Count
        n: Annotated[StrictInt, Field(ge=1, le=_LONGEST_CLIP)]
        is_first: StrictBool
        is_last: StrictBool
        is_terminal: StrictBool
        labelled: StrictBool
        events: list[tuple[Count, Count]] | None
        group: StrictStr | None = None

    class _Meta(_Clip):
        fps: Rate
        size: tuple[Side, Side]

    class _Entry(_Clip):
        split: Name
        shard: Annotated[StrictStr, AfterValidator(_shard)]
        key: Name
        members: dict[Name, tuple[Count, Count]]

    class _Record(BaseModel):
        name: Annotated[StrictStr, AfterValidator(_shard)]
        bytes: Count
        sha256: Sha256
        frames: Count

    class _Skipped(BaseModel):
        source: StrictStr
        reason: StrictStr

    class _Header(BaseModel):
        model_config = ConfigDict(extra="ignore")
        splits: Annotated[list[Name], AfterValidator(_different)]
        tasks: Names
        action_space: dict[StrictStr, Any]
        fps: Rate
        frame_size: tuple[Side, Side]
        shards: list[Any]
        samples: list[Any]
        storage_mse: Annotated[Number, Field(ge=0)] | None = None
        quality: StrictStr | None = None
        sources: list[StrictStr] = []
        skipped: list[_Skipped] = []
        identity: dict[StrictStr, Any] = {}
        latent_shape: tuple[Side, Side] | None = None
        tokenizer_sha256: StrictStr | None = None
        source_hash: StrictStr | None = None

    named = {"meta": _Meta, "entry": _Entry, "record": _Record, "header": _Header}
    return {name: _check(model) for name, model in named.items()}


def _check(model: Any) -> Check:
    from pydantic import ValidationError

    def check(value: Any) -> dict[str, Any]:
        try:
            return dict(
                vars(model.model_validate(value))
            )  # as model_dump, for fields without models, in a third of the time
        except ValidationError as error:
            raise ValueError(_first(error)) from None
        except RecursionError:
            raise ValueError("is nested too deeply") from None

    return check


def _first(error: Any) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part)[:40] for part in first["loc"])
    reason = first["msg"].removeprefix("Value error, ")
    return f"{place or 'it'}: {reason[:1].lower()}{reason[1:]}"


def _plain(name: str) -> str:
    if not is_plain(name) or not name.isprintable():
        raise ValueError("should be a plain name")
    return name


def _shard(name: str) -> str:
    if not _SHARD.fullmatch(name) or not is_plain(name):
        raise ValueError(f"{name[:60]!r} should be the plain name of a tar in the folder")
    return name


def _checksum(text: str) -> str:
    if not _SHA256.fullmatch(text):
        raise ValueError("should be 64 hexadecimal digits")
    return text


def _different(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise ValueError("has a name twice")
    return names


def check_header(content: Mapping[str, Any]) -> None:
    """Everything in an index but its single shards and clips. Raises `ValueError`: what is wrong with which field."""
    _models()["header"](content)


def check_meta(content: Any) -> dict[str, Any]:
    """The fields of a clip's meta.json. Raises `ValueError`."""
    return _models()["meta"](content)


def check_entry(content: Any) -> dict[str, Any]:
    """The fields of `index.Sample`, of one entry of an index. Raises `ValueError`."""
    entry = _models()["entry"](content)
    if entry["events"] is not None and any(frame >= entry["n"] for frame, _ in entry["events"]):
        raise ValueError("events: a frame lies behind the clip")
    return entry


def sound_records(records: Iterable[Any], problems: list[str]) -> list[dict[str, Any]]:
    """The records of shards that can be used, each name once; what is wrong with the others goes to `problems`."""
    found: dict[str, dict[str, Any]] = {}
    for number, record in enumerate(records):
        try:
            checked = _models()["record"](record)
            if checked["name"] in found:
                raise ValueError("name: occurs twice")
            found[checked["name"]] = {**record, **checked}
        except ValueError as error:
            problems.append(f"shard {_called(record, 'name', number)}: {error}")
    return list(found.values())


def sound_entries(content: Mapping[str, Any], problems: list[str]) -> list[Mapping[str, Any]]:
    """The entries of clips that can be used, as they stand; what is wrong with the others goes to `problems`."""
    sizes = {record["name"]: record["bytes"] for record in content["shards"]}
    kind = "clip.mp4" if content.get("latent_shape") is None else "latents.npy"
    rules = _Rules(set(content["splits"]), len(content["tasks"]), sizes, {kind, "steps.npz", "meta.json"})
    found: list[Mapping[str, Any]] = []
    for number, entry in enumerate(content["samples"]):
        try:
            rules.require(check_entry(entry))
            found.append(entry)
        except ValueError as error:
            problems.append(f"clip {_called(entry, 'key', number)}: {error}")
    overlaps = set(_overlapping(found))
    problems += [
        f"clip {entry['key']}: its frames are those of another clip"
        for entry in found
        if id(entry) in overlaps
    ]
    return [entry for entry in found if id(entry) not in overlaps]


class _Rules:
    """What one entry must keep to for the rest of an index."""

    def __init__(self, splits: set[str], num_tasks: int, sizes: Mapping[str, int], members: set[str]) -> None:
        self._splits, self._num_tasks, self._sizes, self._members = splits, num_tasks, sizes, members
        self._keys: set[tuple[str, str]] = set()

    def require(self, entry: Mapping[str, Any]) -> None:
        """Raises `ValueError`."""
        if entry["split"] not in self._splits:
            raise ValueError(f"split: {entry['split']!r} is none of the splits")
        if missing := self._members - entry["members"].keys():
            raise ValueError(f"members: {min(missing)} is missing")
        if any(task >= self._num_tasks for _, task in entry["events"] or ()):
            raise ValueError("events: a task has no name")
        size = self._sizes.get(entry["shard"], _LARGEST_FILE)
        if any(offset + length > size for offset, length in entry["members"].values()):
            raise ValueError(f"members: one ends behind the {size:,} bytes of {entry['shard']}")
        if (place := (entry["split"], entry["key"])) in self._keys:
            raise ValueError("key: occurs twice")
        self._keys.add(place)


def _overlapping(entries: list[Mapping[str, Any]]) -> Iterator[int]:
    """`id` of every entry that begins before the one before it in its episode has ended."""
    end: tuple[str, str, int] = ("", "", 0)
    for entry in sorted(entries, key=lambda e: (e["split"], e["episode"], e["start"])):
        if (entry["split"], entry["episode"]) == end[:2] and entry["start"] < end[2]:
            yield id(entry)
        else:
            end = entry["split"], entry["episode"], entry["start"] + entry["n"]


def _called(entry: Any, name: str, number: int) -> str:
    value = entry.get(name) if isinstance(entry, dict) else None
    return value[:80] if isinstance(value, str) and value.isprintable() else f"number {number + 1}"
