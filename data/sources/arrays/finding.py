"""Which files of a folder hold episodes as arrays, told by their content."""

from collections.abc import Callable
from pathlib import Path

from reverie.data.sources.arrays.corpus import array_corpus
from reverie.data.sources.arrays.hdf5 import SUFFIXES as HDF5_SUFFIXES
from reverie.data.sources.arrays.hdf5 import find_hdf5
from reverie.data.sources.arrays.minari import find_minari
from reverie.data.sources.arrays.npz_episodes import find_npz
from reverie.data.sources.arrays.reader import Listed, Reader
from reverie.data.sources.layout import Layout, layout_of
from reverie.data.sources.listing import Found
from reverie.data.sources.source import Corpus


def find_arrays(folder: Path, files: list[Found], layout: Layout, fps: float | None) -> Corpus | None:
    """The episodes among `files`; None where there are none. Raises `UserError` as `array_corpus` does."""
    listed = [(file.name, file.path, _problem(file, folder)) for file in files]
    for find in _FORMATS:
        chosen = layout_of(folder, layout)
        if (reader := find(folder, listed, chosen)) is not None:
            return array_corpus(folder, reader, chosen, fps)
    return None


def _problem(file: Found, folder: Path) -> str:
    return f"{folder / file.name}: {file.problem}." if file.problem else ""


def _hdf5(folder: Path, files: Listed, layout: Layout) -> Reader | None:
    chosen = [file for file in files if file[1].suffix.lower() in HDF5_SUFFIXES]
    return find_hdf5(folder, chosen, layout) if chosen else None


_FORMATS: tuple[Callable[[Path, Listed, Layout], Reader | None], ...] = (find_minari, _hdf5, find_npz)
"""Those that are told by more than a suffix come first."""
