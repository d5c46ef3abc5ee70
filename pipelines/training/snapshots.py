"""Snapshots: one moment of a training run, written to a checkpoint folder and read from one, as `checkpoints` describes it.

A folder gets its name, and `latest` names it, only when every process has written what it holds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from reverie.data.files.durable import explain_full_disk
from reverie.pipelines.runs.atomic import (
    begin_folder,
    finish_folder,
    partial_folder,
    sync,
    write_json,
    write_text,
)
from reverie.pipelines.runs.configs import to_plain
from reverie.pipelines.runs.reading import read_json
from reverie.pipelines.training.checkpoints import FORMAT, Card, find_checkpoint, read_card
from reverie.pipelines.training.integrity import (
    CARD,
    LATEST,
    OBJECTIVE,
    OPTIMIZER,
    RAW,
    STATE,
    WEIGHTS,
    all_files,
    has_raw,
    prune,
    require_whole,
    write_checksums,
)
from reverie.pipelines.training.processes import Processes
from reverie.pipelines.training.stored import Part, StoredTensors, save_index, save_share
from reverie.pipelines.training.tensors import require_finite

_REMEDY = "use an undamaged checkpoint"


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One moment of a training run.

    weights  of the model that others load
    raw      the trained weights, where those of the model are their average; else None
    """

    step: int
    card: Card
    weights: Mapping[str, Tensor]
    raw: Mapping[str, Tensor] | None = None
    optimizer: Mapping[str, Tensor] = field(default_factory=dict)
    objective: Mapping[str, Tensor] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)

    def tensors(self) -> dict[str, Mapping[str, Tensor]]:
        """All of them, by the file in which a checkpoint has them if they are whole."""
        raw = {} if self.raw is None else {RAW: self.raw}
        return {WEIGHTS: self.weights, OPTIMIZER: self.optimizer, OBJECTIVE: self.objective, **raw}


@dataclass(frozen=True, kw_only=True)
class SavedSnapshot(Snapshot):
    """A snapshot on disk, of which each access reads what it asks for."""

    weights: StoredTensors
    optimizer: StoredTensors
    objective: StoredTensors
    raw: StoredTensors | None


def save_checkpoint(
    checkpoints: Path, snapshot: Snapshot, keep: int, processes: Processes | None = None
) -> Path:
    """Writes `snapshot` completely, then names it in `latest`, then deletes all but the newest `keep` folders.

    Every process must call this: each writes what it alone holds of sharded tensors (see `stored`), the first one all else.
    """
    processes, path = processes or Processes(), checkpoints / f"{snapshot.step:09d}"
    processes.by_main(lambda: _begin(path))
    shares = processes.by_all(lambda: _save_share(path, snapshot, processes))
    processes.by_main(lambda: _finish(path, snapshot, {k: v for share in shares for k, v in share.items()}))
    processes.by_main(lambda: prune(checkpoints, snapshot.step, keep))
    return path


def _begin(path: Path) -> None:
    with explain_full_disk(path.parent):
        begin_folder(path)
        (partial_folder(path) / STATE).parent.mkdir()


def _save_share(path: Path, snapshot: Snapshot, processes: Processes) -> dict[str, Part]:
    """Writes what this process has to; the files by their name in the folder."""
    folder, written = partial_folder(path), dict[str, Part]()
    with explain_full_disk(path.parent):
        for stored, tensors in snapshot.tensors().items():
            parts = save_share(folder / stored, tensors, processes.rank, processes.world_size)
            written |= {str(Path(stored).with_name(name)): part for name, part in parts.items()}
        for name in written:
            sync(folder / name)  # others may not be able to, where they are on other machines
    return written


def _finish(path: Path, snapshot: Snapshot, parts: Mapping[str, Part]) -> None:
    """Writes all else, and makes the folder the newest checkpoint."""
    folder = partial_folder(path)
    with explain_full_disk(path.parent):
        write_json(folder / CARD, {"format": FORMAT, **to_plain(snapshot.card)})
        for stored, tensors in snapshot.tensors().items():
            here = {
                Path(name).name: x for name, x in parts.items() if Path(name).parent == Path(stored).parent
            }
            save_index(folder / stored, tensors, here)
        write_json(folder / STATE, {"step": snapshot.step, **snapshot.state})
        write_checksums(folder, {name: part.sha256 for name, part in parts.items()})
        finish_folder(path)
        write_text(path.parent / LATEST, path.name + "\n")


@dataclass(frozen=True, kw_only=True)
class _State:
    """training_state/state.json; folders of older versions do not name the optimiser."""

    step: int
    batches: dict[str, dict[str, int] | int]
    seed: int | None = None
    optimizer: str | None = None
    ema: float | None = None

    def __post_init__(self) -> None:
        if self.step < 0:
            raise ValueError(f"step must be at least 0, got {self.step}")


def read_snapshot(path: Path) -> Snapshot:
    """Everything in a checkpoint folder, whole and on the CPU. Raises `UserError` naming the file that is damaged."""
    folder = find_checkpoint(path)
    require_whole(folder, all_files(folder))
    saved = open_snapshot(folder)
    whole = {file: dict(stored) for file, stored in saved.tensors().items()}
    for file, found in whole.items():
        require_finite(found, folder / file)
    return Snapshot(
        step=saved.step,
        card=saved.card,
        weights=whole[WEIGHTS],
        raw=whole.get(RAW),
        optimizer=whole[OPTIMIZER],
        objective=whole[OBJECTIVE],
        state=saved.state,
    )


def open_snapshot(folder: Path) -> SavedSnapshot:
    """What lies in a checkpoint folder that was found whole; tensors are read when they are asked for."""
    state = to_plain(read_json(folder / STATE, _State, _REMEDY))
    return SavedSnapshot(
        step=state.pop("step"),
        card=read_card(folder),
        weights=StoredTensors(folder / WEIGHTS),
        raw=StoredTensors(folder / RAW) if has_raw(folder) else None,
        optimizer=StoredTensors(folder / OPTIMIZER),
        objective=StoredTensors(folder / OBJECTIVE),
        state={name: value for name, value in state.items() if value is not None},
    )
