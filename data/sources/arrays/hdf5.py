"""HDF5 files: groups that are episodes, as robomimic and Minari have them, or episodes end to end, as D4RL has them.

Nothing outside of a file is opened: links to other files, and arrays whose values lie elsewhere, are refused.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from reverie.data.errors import UserError
from reverie.data.sources.arrays.columns import MOST_VALUES, Column, Columns
from reverie.data.sources.arrays.reader import Entry, Listed, Told
from reverie.data.sources.images.listing import natural_order
from reverie.data.sources.layout import Layout

SUFFIXES = (".hdf5", ".h5")
_DEEPEST, _MOST_NAMES = 6, 100_000
_ENDS = ("terminals", "terminal", "terminations", "dones", "done", "is_terminal")
_JPEG = b"\xff\xd8\xff"
_CUTS = ("timeouts", "timeout", "truncations", "is_last")


def require_h5py(path: Path) -> None:
    """Raises `UserError` naming `path` when the optional library is missing."""
    try:
        import h5py  # noqa: F401
    except ImportError:
        fix = "install it with: pip install 'reverie[hdf5]'"
        raise UserError(f"{path}: reading HDF5 needs h5py; {fix}") from None


@dataclass(frozen=True, kw_only=True)
class HDF5Reader:
    """Files of HDF5; see `Reader`."""

    entries: Mapping[str, Entry]
    told: Told
    led_to: bool = False
    left_out: tuple[str, ...] = field(default=("infos", "metadata"))

    @contextmanager
    def columns(self, entry: Entry) -> Iterator[Columns]:
        """All arrays below the group of an episode."""
        with opened(entry.file) as file:
            found = dict(_columns(_member(file, entry.group, entry.file), entry.file))
            own = {name: c for name, c in found.items() if name.split("/")[0] not in self.left_out}
            if entry.span is not None:
                rows = max((len(column) for column in own.values()), default=0)
                own = {name: c.cut(*entry.span) for name, c in own.items() if len(c) == rows}
            yield own


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The file as an `h5py.File`. Raises `UserError` when it is none, is damaged, or damage is met within the block."""
    require_h5py(path)
    import h5py

    try:
        with h5py.File(path, "r") as file:
            yield file
    except UserError:
        raise
    except Exception as error:  # damage raises anything
        raise UserError(
            f"{path}: cannot be read as HDF5 ({_words(error)}); write or download it again."
        ) from None


def find_hdf5(folder: Path, files: Listed, layout: Layout) -> HDF5Reader:
    """The episodes of `files`, each (name, path, problem). A damaged file is an entry with a problem."""
    entries: dict[str, Entry] = {}
    kinds: list[str] = []
    rates: set[float] = set()
    for name, path, problem in files:
        stem = name.rpartition(".")[0]
        try:
            if problem:
                raise UserError(problem)
            with opened(path) as file:
                kind, found = _episodes(file, path, layout)
                kinds.append(kind)
                rates |= _rates(file)
            many = len(found) > 1 or any(entry.group for entry in found.values())
            entries |= {f"{stem}/{key}" if many else stem: entry for key, entry in found.items()}
        except UserError as error:
            entries[name] = Entry(file=path, problem=str(error))
    kind = max(kinds, key=kinds.count) if kinds else "HDF5 files"
    fps = rates.pop() if len(rates) == 1 else None
    return HDF5Reader(entries=entries, told=Told(kind=kind, fps=fps))


def _episodes(file: Any, path: Path, layout: Layout) -> tuple[str, dict[str, Entry]]:
    """What kind of file it is, and its episodes by name."""
    if layout.episodes is not None:
        groups = _matching(file, layout.episodes)
        if not groups:
            raise UserError(f"{path}: has no group that fits --layout.episodes {layout.episodes!r}.")
        return "HDF5 files of a declared layout", {group: Entry(file=path, group=group) for group in groups}
    if demos := _matching(file, "data/demo_*"):
        return "robomimic's HDF5 files", {demo: Entry(file=path, group=demo) for demo in demos}
    if episodes := _matching(file, "episode_*"):
        return "HDF5 files of episodes", {group: Entry(file=path, group=group) for group in episodes}
    spans = _spans(file, path, layout)
    kind = "D4RL's HDF5 files" if len(spans) > 1 else "HDF5 files"
    return kind, {f"{first:08d}": Entry(file=path, span=(first, last)) for first, last in spans}


def _matching(file: Any, pattern: str) -> list[str]:
    """Groups at the depth of `pattern` whose path fits it, in natural order."""
    import h5py

    found = [("", file)]
    for part in pattern.strip("/").split("/"):
        inner = []
        for place, group in found:
            for name in group:
                kind = group.get(name, getlink=True)
                if fnmatchcase(name, part) and isinstance(kind, h5py.HardLink):
                    member = group.get(name)
                    if isinstance(member, h5py.Group):
                        inner.append((f"{place}/{name}" if place else name, member))
        found = inner[:_MOST_NAMES]
    return sorted((place for place, _ in found), key=lambda place: natural_order(Path(place)))


def _spans(file: Any, path: Path, layout: Layout) -> list[tuple[int, int]]:
    """Where the rows of a file of episodes end to end begin and end: behind each end for good, and each cut."""
    columns = dict(_columns(file, path))
    names = [layout.terminal or next((name for name in _ENDS if name in columns), None)]
    names += [layout.timeout or next((name for name in _CUTS if name in columns), None)]
    marks = [columns[name].numbers(name).ravel() != 0 for name in names if name in columns]
    rows = max((len(column) for column in columns.values()), default=0)
    if not rows:
        raise UserError(f"{path}: holds no arrays, so no episodes.")
    last = np.zeros(rows, np.bool_)
    for mark in marks:
        if len(mark) == rows:
            last |= mark
    ends = sorted({*(np.flatnonzero(last) + 1).tolist(), rows})
    return [(start, end) for start, end in zip([0, *ends], ends) if end > start]


def _rates(file: Any) -> set[float]:
    """Pictures a second, where robomimic's env_args tell the frequency of control."""
    try:
        told = json.loads(file["data"].attrs["env_args"])["env_kwargs"]["control_freq"]
        return {float(told)} if 0 < float(told) < 1e4 else set()
    except Exception:  # most files have none
        return set()


def _member(file: Any, group: str, path: Path) -> Any:
    return _inside(file, group, path) if group else file


def _inside(file: Any, group: str, path: Path) -> Any:
    """The group at a path of hard links."""
    import h5py

    place = file
    for part in group.split("/"):
        if not isinstance(place.get(part, getlink=True), h5py.HardLink):
            raise UserError(f"{path}: {group} is a link that leads elsewhere, which is not followed.")
        place = place[part]
    return place


def _columns(group: Any, path: Path, place: str = "", depth: int = 0) -> Iterator[tuple[str, Column]]:
    """(name, array) of all arrays below `group`."""
    import h5py

    if depth > _DEEPEST or not isinstance(group, h5py.Group):
        raise UserError(f"{path}: {place or 'the file'} is no group of arrays, or is nested too deeply.")
    for name in group:
        full = f"{place}/{name}" if place else name
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            continue  # links may lead to any file
        member = group[name]
        if isinstance(member, h5py.Group):
            yield from _columns(member, path, full, depth + 1)
        elif isinstance(member, h5py.Dataset) and member.shape:
            _require_own_values(member, full, path)
            yield full, _column(member)


def _require_own_values(member: Any, name: str, path: Path) -> None:
    """A few bytes may claim any number of values, or take them from another file."""
    if member.external or member.is_virtual:
        raise UserError(f"{path}: {name} has its values in another file, which is not opened.")
    claimed = prod(member.shape) * member.dtype.itemsize
    if claimed > MOST_VALUES and not member.id.get_storage_size():
        raise UserError(f"{path}: {name} claims {claimed:,} bytes, which are not there; write it again.")


def _column(member: Any) -> Column:
    import h5py

    kind = h5py.check_vlen_dtype(member.dtype)
    is_bytes = kind is not None and np.dtype(kind) == np.uint8
    dtype = np.dtype(object) if is_bytes or _holds_jpegs(member) else member.dtype
    if member.dtype.kind == "O" and not is_bytes:
        dtype = np.dtype("S1")  # text
    shape = member.shape[:1] if dtype.kind == "O" else member.shape
    return Column(tuple(shape), dtype, lambda start, stop: np.asarray(member[start:stop]))


def _holds_jpegs(member: Any) -> bool:
    """Whether each row is the bytes of a JPEG: files of one length lie in an array of two dimensions."""
    if member.dtype != np.uint8 or member.ndim != 2 or not len(member) or member.shape[1] < len(_JPEG):
        return False
    return bytes(member[0, : len(_JPEG)].tobytes()) == _JPEG


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:160].rstrip(".") or type(error).__name__
