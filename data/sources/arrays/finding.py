"""Which files of a folder hold episodes as arrays, told by their content."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from reverie.data.sources.arrays.corpus import array_corpus
from reverie.data.sources.arrays.hdf5 import SUFFIXES as HDF5_SUFFIXES
from reverie.data.sources.arrays.hdf5 import find_hdf5
from reverie.data.sources.arrays.minari import METADATA, find_minari
from reverie.data.sources.arrays.npz_episodes import find_npz
from reverie.data.sources.arrays.reader import Listed, Reader
from reverie.data.sources.declaration import NAMES as DECLARATIONS
from reverie.data.sources.layout import FILE as LAYOUT
from reverie.data.sources.layout import Layout, layout_of
from reverie.data.sources.listing import Found, passed_over
from reverie.data.sources.source import Corpus


def find_arrays(folder: Path, files: list[Found], layout: Layout, fps: float | None) -> Corpus | None:
    """The episodes among `files`; None where there are none. Raises `UserError` as `array_corpus` does."""
    listed = [(file.name, file.path, _problem(file, folder)) for file in files]
    for find in _FORMATS:
        chosen = layout_of(folder, layout)
        if (reader := find(folder, listed, chosen)) is not None:
            corpus = array_corpus(folder, reader, chosen, fps)
            return replace(corpus, passed_over=_passed_over(files, reader))
    return None


def _passed_over(files: list[Found], reader: Reader) -> dict[str, str]:
    """Files of other formats: of a folder that mixes them, one is read."""
    used = {entry.file for entry in reader.entries.values()}
    own = (LAYOUT, *DECLARATIONS, METADATA)
    return passed_over([file for file in files if file.path not in used and file.path.name not in own])


def _problem(file: Found, folder: Path) -> str:
    return f"{folder / file.name}: {file.problem}." if file.problem else ""


def _hdf5(folder: Path, files: Listed, layout: Layout) -> Reader | None:
    chosen = [file for file in files if file[1].suffix.lower() in HDF5_SUFFIXES]
    return find_hdf5(folder, chosen, layout) if chosen else None


_FORMATS: tuple[Callable[[Path, Listed, Layout], Reader | None], ...] = (find_minari, _hdf5, find_npz)
"""Those that are told by more than a suffix come first."""
