"""Episodes as npz files of Dreamer V2, V-D4RL and their kin: a file an episode, whose rows are shifted by one.

Row t holds picture t, the action that LED TO it and the reward on arriving there; row 0 an action that was never taken.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

from reverie.data.errors import UserError
from reverie.data.shards.npz import read_npz
from reverie.data.sources.arrays.columns import Columns, column_of
from reverie.data.sources.arrays.reader import Entry, Listed, Told
from reverie.data.sources.images.listing import natural_order
from reverie.data.sources.layout import Layout

_PICTURES = ("image", "observation", "observations", "obs", "frames", "pixels")
_OTHER = ("action", "actions", "reward", "rewards", "discount", "is_first")
_DREAMER_V3 = {"stepid", "consec"}
"""Its chunks hold the action taken AT a picture, and many episodes one after the other."""


@dataclass(frozen=True, kw_only=True)
class NPZReader:
    """Files of npz; see `Reader`."""

    entries: Mapping[str, Entry]
    told: Told
    led_to: bool = True

    @contextmanager
    def columns(self, entry: Entry) -> Iterator[Columns]:
        """All arrays of an episode."""
        try:
            arrays = read_npz(entry.file, lambda _: True)
        except Exception as error:  # damage raises anything
            raise UserError(f"{entry.file}: {_reason(error)}") from None
        if _DREAMER_V3 & set(arrays):
            raise UserError(
                f"{entry.file}: is a chunk of Dreamer V3's replay, whose rows are not shifted; record its game "
                f"with reverie.data.EpisodeWriter."
            )
        if (first := arrays.get("is_first")) is not None and first[1:].any():
            raise UserError(f"{entry.file}: holds several episodes (is_first within it); write one a file.")
        yield {name: column_of(array) for name, array in arrays.items()}


def find_npz(folder: Path, files: Listed, layout: Layout) -> NPZReader | None:
    """The files that are episodes; None where none is. One that is damaged counts as one where others are."""
    listed = sorted((f for f in files if f[1].suffix.lower() == ".npz"), key=lambda f: natural_order(f[1]))
    kinds = {name: None if problem else _is_episode(path, layout) for name, path, problem in listed}
    if not any(kinds.values()):
        return None
    entries = {
        name.rpartition(".")[0]: Entry(file=path, problem=problem)
        for name, path, problem in listed
        if kinds[name] is not False
    }
    return NPZReader(entries=entries, told=Told(kind="npz episodes, whose actions led to their frames"))


def _is_episode(path: Path, layout: Layout) -> bool | None:
    """Whether the names of its arrays are those of an episode; None where they cannot be read."""
    try:
        with path.open("rb") as file, ZipFile(file) as archive:
            names = {name.removesuffix(".npy") for name in archive.namelist()}
    except Exception:  # damage raises anything
        return None
    pictures = (layout.frames,) if layout.frames is not None else _PICTURES
    return any(name in names for name in pictures) and (
        layout.action is not None or any(name in names for name in _OTHER)
    )


def _reason(error: Exception) -> str:
    words = " ".join(str(error).split())[:160].rstrip(".") or type(error).__name__
    if "pickle" in words or "objects" in words.lower():
        return "holds arrays of Python objects, which would have to be unpickled; save plain numbers."
    return f"cannot be read as npz ({words}); write or download it again."
