"""Named tensors in files: whole in one, or in parts, one for each process that holds some (FSDP).

NAME.safetensors                  all tensors, whole; or
NAME.parts.json                   `Index`: which rows of which tensor lie in which part, and the parts' sha256
NAME-00003-of-00008.safetensors   what process 3 of 8 held: rows of sharded tensors; the first process has the others

Nothing is gathered: each process writes its rows, and reads the rows that it needs, whatever number of processes wrote them.
Only JSON and safetensors are read, so a file may be damaged, but cannot run code (torch's distributed checkpoints unpickle
their .metadata).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from reverie.data.errors import UserError
from reverie.data.files.durable import file_sha256
from reverie.pipelines.runs.atomic import write_json
from reverie.pipelines.runs.configs import to_plain
from reverie.pipelines.runs.reading import read_json
from reverie.pipelines.training.sharding import (
    held_rows,
    is_first_holder,
    is_sharded,
    local_part,
    shard_like,
)
from reverie.pipelines.training.tensors import require_finite, require_fitting

_REMEDY = "use an undamaged checkpoint"


@dataclass(frozen=True)
class Layout:
    """Where a tensor lies: its shape, and for each part that has rows of it the first one and the end; (0, 1) for a scalar."""

    shape: list[int]
    rows: dict[str, list[int]]


@dataclass(frozen=True, kw_only=True)
class Index:
    """NAME.parts.json: the parts by name with their sha256, and the tensors."""

    parts: dict[str, str]
    tensors: dict[str, Layout]


@dataclass(frozen=True)
class Part:
    """A file that one process wrote: rows of tensors as in `Layout`, and whether other processes have the rest."""

    sha256: str
    rows: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    of_several: bool = False


def save_share(file: Path, tensors: Mapping[str, Tensor], rank: int, world_size: int) -> dict[str, Part]:
    """Writes what this process has to write of `tensors`; returns the files by name, none where others hold all of it.

    Args:
      file: NAME.safetensors, which is written by the first process where no tensor is sharded.
    """
    if not any(is_sharded(x) for x in tensors.values()):
        if rank:
            return {}
        save_tensors(file, tensors)
        return {file.name: Part(file_sha256(file))}
    rows = {name: held_rows(x) for name, x in tensors.items() if is_first_holder(x, rank)}
    rows = {name: (start, stop) for name, (start, stop) in rows.items() if stop > start}
    if not rows:
        return {}
    part = file.with_name(f"{file.stem}-{rank:05d}-of-{world_size:05d}.safetensors")
    save_tensors(part, {name: local_part(tensors[name]) for name in rows})
    return {part.name: Part(file_sha256(part), rows, of_several=True)}


def save_index(file: Path, tensors: Mapping[str, Tensor], parts: Mapping[str, Part]) -> Path | None:
    """Writes which rows of `tensors` lie in which of all processes' `parts`; returns its place, None where they are whole."""
    chosen = {name: part for name, part in parts.items() if part.of_several and _is_part(name, file)}
    if not chosen:
        return None
    layouts = {
        name: Layout(
            list(x.shape), {p: list(part.rows[name]) for p, part in chosen.items() if name in part.rows}
        )
        for name, x in sorted(tensors.items())
    }
    index = Index(parts={name: part.sha256 for name, part in sorted(chosen.items())}, tensors=layouts)
    write_json(index_file(file), to_plain(index))
    return index_file(file)


def index_file(file: Path) -> Path:
    """NAME.safetensors -> NAME.parts.json."""
    return file.with_suffix(".parts.json")


def read_index(file: Path) -> Index | None:
    """The index of NAME.safetensors; None where it is in one file. Raises `UserError` for one that cannot be true."""
    place = index_file(file)
    if not place.is_file():
        return None
    index = read_json(place, Index, _REMEDY)
    if foreign := [name for name in index.parts if not _is_part(name, file)]:
        raise UserError(f"{place}: {foreign[0]} is no name of a part; {_REMEDY}.")
    for name, layout in index.tensors.items():
        _require_all_rows(place, name, layout, index)
    return index


def files_of(file: Path) -> tuple[str, ...]:
    """Names of the files in which the tensors of NAME.safetensors lie: itself, or index and parts."""
    index = read_index(file)
    return (file.name,) if index is None else (index_file(file).name, *index.parts)


class StoredTensors(Mapping[str, Tensor]):
    """The tensors of NAME.safetensors, in one file or in parts; each access reads from disk, whole or the wanted rows.

    Everything raises `UserError` naming the file that is damaged.
    """

    def __init__(self, file: Path) -> None:
        index = read_index(file)
        self.file = file if index is None else index_file(file)
        self._open: dict[Path, Any] = {}
        if index is not None:
            self._layouts = index.tensors
            return
        with _explained(file):
            shapes = {
                name: list(self._handle(file.name).get_slice(name).get_shape()) for name in self._names(file)
            }
        self._layouts = {
            name: Layout(shape, {file.name: [0, _length(shape)]}) for name, shape in shapes.items()
        }

    def __getitem__(self, name: str) -> Tensor:
        return self.rows(name, 0, _length(self._layouts[name].shape))

    def __iter__(self) -> Iterator[str]:
        return iter(self._layouts)

    def __len__(self) -> int:
        return len(self._layouts)

    def shape(self, name: str) -> torch.Size:
        """Of the whole tensor."""
        return torch.Size(self._layouts[name].shape)

    def empty(self, name: str) -> Tensor:
        """A tensor of the shape and dtype of the stored one, without memory."""
        shape = self.shape(name)
        dtype = (self.rows(name, 0, 0) if shape else self[name]).dtype
        return torch.empty(shape, dtype=dtype, device="meta")

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows `start` to `stop` of a tensor; a scalar is one row."""
        pieces: list[Tensor] = []
        shape = self.shape(name)
        for part, (first, end) in sorted(self._layouts[name].rows.items(), key=lambda item: item[1]):
            if first < stop and start < end or not pieces:
                begin = min(max(start, first), end)
                wanted = slice(begin - first, max(min(stop, end), begin) - first)
                pieces.append(self._piece(part, name, wanted, (end - first, *shape[1:]) if shape else ()))
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def like(self, name: str, parameter: Tensor) -> Tensor:
        """The tensor on the device of `parameter`, and of its rows those that this process holds if it is sharded so."""
        if not is_sharded(parameter) or self.shape(name) != parameter.shape:
            return self[name].to(parameter.device)
        return shard_like(self.rows(name, *held_rows(parameter)), parameter)

    def _piece(self, part: str, name: str, wanted: slice, shape: Sequence[int]) -> Tensor:
        with _explained(self.file.with_name(part)):
            stored = self._handle(part).get_slice(name)
            if list(stored.get_shape()) != list(shape):
                raise ValueError(f"{name} is {stored.get_shape()}, not {list(shape)}")
            return stored[wanted] if shape else self._handle(part).get_tensor(name)

    def _names(self, file: Path) -> list[str]:
        return list(self._handle(file.name).keys())

    def _handle(self, name: str) -> Any:
        path = self.file.with_name(name)
        if path not in self._open:
            self._open[path] = safe_open(path, "pt")
        return self._open[path]


def load_like(stored: StoredTensors, present: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The stored tensors, on the devices of those of the same names in `present` and sharded as they are.

    Raises `UserError` where names, shapes or dtypes differ, or something that this process holds is not finite.
    """
    require_fitting({name: stored.empty(name) for name in stored}, present, stored.file)
    loaded = {name: stored.like(name, x) for name, x in present.items()}
    require_finite({name: local_part(x) for name, x in loaded.items()}, stored.file)
    return loaded


def save_tensors(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes one safetensors file. Raises `UserError` on a full disk."""
    # clone: safetensors refuses tensors that share memory.
    copies = {name: tensors[name].detach().cpu().clone().contiguous() for name in sorted(tensors)}
    try:
        save_file(copies, file)
    except SafetensorError as error:  # how safetensors words a full disk
        raise UserError(
            f"{file.parent}: the checkpoint cannot be written ({error}); "
            f"the former one is kept, make room and run this again."
        ) from None


def _require_all_rows(place: Path, name: str, layout: Layout, index: Index) -> None:
    """Raises `UserError` unless the parts' rows follow one another from the first to the last."""
    end = 0
    for part, rows in sorted(layout.rows.items(), key=lambda item: item[1]):
        if part not in index.parts or len(rows) != 2 or rows[0] != end or rows[1] < rows[0]:
            raise UserError(f"{place}: the rows of {name} in {part} do not follow those before; {_REMEDY}.")
        end = rows[1]
    if end != _length(layout.shape) or not layout.rows:
        raise UserError(f"{place}: has {end} of {_length(layout.shape)} rows of {name}; {_REMEDY}.")


def _is_part(name: str, file: Path) -> bool:
    return re.fullmatch(rf"{re.escape(file.stem)}-\d{{5}}-of-\d{{5}}\.safetensors", name) is not None


def _length(shape: Sequence[int]) -> int:
    return shape[0] if shape else 1


@contextmanager
def _explained(file: Path) -> Iterator[None]:
    """Whatever is wrong with `file` is one sentence."""
    try:
        yield
    except UserError:
        raise
    except (OSError, SafetensorError, ValueError, LookupError, TypeError, RuntimeError) as error:
        raise UserError(f"{file}: cannot be read ({' '.join(str(error).split())}); {_REMEDY}.") from None
