"""The deterministic, resumable loader: an endless stream of `Batch`.

Batch number s is a pure function of (seed, s): rows 0..U-1 continue the uniform stream, the last R rows the relevant
one (`data.streams`). So the order does not depend on worker processes, and rank r of W, which takes rows r, r + W,
..., can be resumed on another number of ranks. The state counts batches handed out, not those prefetched.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from reverie.data.batch import Batch
from reverie.data.decoders import Backend
from reverie.data.errors import UserError
from reverie.data.index import Episode, ShardIndex
from reverie.data.reader import BrokenSample, ShardReader
from reverie.data.streams import Stream, relevant_stretches, uniform_stretches
from reverie.data.windows import Row, RowReader

_LOG = logging.getLogger(__name__)
_MAX_REPLACEMENTS = 16


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """What a batch is made of."""

    batch_size: int
    """Rows in a batch over all ranks together."""
    length: int
    """Frames in a row."""
    seed: int = 0
    """With the batch number, decides everything."""
    split: str = "train"
    """Split of the shards to read."""
    relevant_fraction: float = 0.0
    """Share of the rows, the last of each batch, drawn from stretches in which their task is accomplished."""
    relevant_before: int | None = None
    """Frames before an accomplished task that are relevant to it; None: as many as `length`."""
    num_workers: int = 0
    """Worker processes; 0 reads in this one. The order is the same for any number."""
    labelled_fraction: float = 1.0
    """Share of the labelled episodes whose actions and rewards are shown; the others count as plain video."""
    task: str | None = None
    """Name of the one task of all rows; None draws a task per episode."""
    decoder: Backend = "auto"
    """Library that decodes clips: decord, pyav, or auto (decord, and PyAV where that fails)."""
    cache_bytes: int = 512_000_000
    """Decoded clips kept in memory, shared out to the workers, if the whole corpus fits."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "length"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}: must be at least 1, got {getattr(self, name)}.")
        for name in ("relevant_fraction", "labelled_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name}: must be in [0, 1], got {getattr(self, name)}.")


class Loader:
    """Endless batches of `index` for one rank.

    Args:
        index: of video shards (batches with `frames`) or latent shards (with `latents`).
        config: see `LoaderConfig`.
        rank, world_size: this process takes rows rank, rank + world_size, ... of every batch.

    Raises:
        UserError: the split is missing or too short, the task is unknown, nothing relevant exists, or `batch_size`
            is no multiple of `world_size`.
    """

    def __init__(self, index: ShardIndex, config: LoaderConfig, *, rank: int = 0, world_size: int = 1):
        self._config, self._step = config, 0
        self._batches = _Batches(index, config, rank, world_size)
        self.skipped: list[str] = []
        """One sentence for every damaged clip met so far, whose window was replaced by the next one."""

    def __iter__(self) -> Iterator[Batch]:
        """Continues after the last batch handed out."""
        loader: DataLoader[tuple[Batch, list[str]]] = DataLoader(
            self._batches,
            sampler=_Numbers(self._step),
            batch_size=None,
            num_workers=self._config.num_workers,
            pin_memory=torch.cuda.is_available(),
        )
        for batch, skipped in loader:
            self._step += 1
            self._note(skipped)
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Where the loader stands: seed, epoch (of the uniform rows), and rows handed out over all ranks."""
        return {
            "seed": self._config.seed,
            "epoch": self._batches.epoch(self._step),
            "samples_consumed": self._step * self._config.batch_size,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues at `state`, on any number of ranks and workers. Raises `UserError` for another seed or size."""
        if state["seed"] != self._config.seed:
            raise UserError(
                f"seed: the saved run used {state['seed']}, not {self._config.seed}; use the same seed."
            )
        step, rest = divmod(int(state["samples_consumed"]), self._config.batch_size)
        if rest:
            raise UserError(
                f"batch_size: {self._config.batch_size} does not divide the {state['samples_consumed']} rows that "
                f"the saved run has seen; use its batch size."
            )
        self._step = step

    def _note(self, skipped: Sequence[str]) -> None:
        for sentence in dict.fromkeys(skipped):
            if sentence not in self.skipped:
                self.skipped.append(sentence)
                _LOG.warning("skipped: %s", sentence)


class _Numbers(Sampler[int]):
    """first, first + 1, ... without end."""

    def __init__(self, first: int):
        self._first = first

    def __iter__(self) -> Iterator[int]:
        number = self._first
        while True:
            yield number
            number += 1


class _Batches(Dataset[tuple[Batch, list[str]]]):
    """Batch number -> this rank's rows of it, and what had to be skipped."""

    def __init__(self, index: ShardIndex, config: LoaderConfig, rank: int, world_size: int):
        if config.batch_size % world_size:
            raise UserError(
                f"batch_size: {config.batch_size} is no multiple of the {world_size} processes; make it one."
            )
        self._rows = range(rank, config.batch_size, world_size)
        self._num_relevant = round(config.relevant_fraction * config.batch_size)
        self._num_uniform = config.batch_size - self._num_relevant
        episodes = index.episodes(config.split)
        hidden = _hidden_episodes(episodes, config.labelled_fraction)
        self._uniform, self._relevant = _streams(index, config, episodes, hidden, self._num_relevant > 0)
        cache_bytes = config.cache_bytes // max(1, config.num_workers)
        reader = ShardReader(index, cache_bytes=cache_bytes, decoder=config.decoder)
        self._reader = RowReader(reader, episodes, hidden)

    def epoch(self, step: int) -> int:
        """How often the uniform stream, or the relevant one if there is no other, was seen in full."""
        if self._num_uniform:
            return step * self._num_uniform // len(self._uniform)
        assert self._relevant is not None
        return step * self._num_relevant // len(self._relevant)

    def __getitem__(self, step: int) -> tuple[Batch, list[str]]:
        skipped: list[str] = []
        rows, keys = zip(*(self._row(step, row, skipped) for row in self._rows), strict=True)
        relevant = torch.tensor([row >= self._num_uniform for row in self._rows])
        return _collate(rows, list(keys), relevant), skipped

    def _row(self, step: int, row: int, skipped: list[str]) -> tuple[Row, str]:
        """A row of the batch; the next window that can be read takes the place of a damaged one."""
        if row < self._num_uniform:
            stream, number = self._uniform, step * self._num_uniform + row
        else:
            assert self._relevant is not None
            stream = self._relevant
            number = step * self._num_relevant + row - self._num_uniform
        for attempt in range(_MAX_REPLACEMENTS):
            pieces = stream.window(number + attempt)
            try:
                return self._reader.row(pieces), self._reader.key(pieces)
            except BrokenSample as error:
                skipped.append(str(error))
        raise UserError(f"{skipped[-1]} {_MAX_REPLACEMENTS} windows in a row could not be read.")


def _streams(
    index: ShardIndex,
    config: LoaderConfig,
    episodes: Sequence[Episode],
    hidden: frozenset[int],
    wants_relevant: bool,
) -> tuple[Stream, Stream | None]:
    task = _task_number(index, config.task)
    with_tasks = [
        number not in hidden and all(sample.events is not None for sample in episode.samples)
        for number, episode in enumerate(episodes)
    ]
    seed, count = config.seed, len(index.tasks)
    uniform = Stream(
        uniform_stretches(episodes, task, with_tasks), config.length, seed=(seed, 0), num_tasks=count
    )
    if uniform.frames < config.length:
        raise UserError(
            f"{index.folder}: split {config.split!r} has {uniform.frames} frames, fewer than one window of "
            f"{config.length}; prepare more data or use shorter windows."
        )
    if not wants_relevant:
        return uniform, None
    before = config.length if config.relevant_before is None else config.relevant_before
    stretches = relevant_stretches(episodes, before, task, with_tasks)
    if not stretches:
        raise UserError(
            f"{index.folder}: split {config.split!r} holds no episode in which "
            f"{config.task or 'any task'} is accomplished; record more, or set relevant_fraction to 0."
        )
    return uniform, Stream(stretches, config.length, seed=(seed, 1), num_tasks=count)


def _task_number(index: ShardIndex, name: str | None) -> int | None:
    if name is None:
        return None
    if name not in index.tasks:
        known = ", ".join(index.tasks) or "none"
        raise UserError(f"{index.folder}: has no task {name!r}; its tasks are: {known}.")
    return index.tasks.index(name)


def _hidden_episodes(episodes: Sequence[Episode], labelled_fraction: float) -> frozenset[int]:
    """Numbers of the labelled episodes to treat as plain video: chosen by name, so the same in every run."""
    labelled = [number for number, episode in enumerate(episodes) if episode.labelled]
    shown = round(labelled_fraction * len(labelled))
    if labelled_fraction > 0 and labelled:
        shown = max(1, shown)
    labelled.sort(key=lambda number: sha256(episodes[number].name.encode()).digest())
    return frozenset(labelled[shown:])


def _collate(rows: Sequence[Row], keys: list[str], relevant: Tensor) -> Batch:
    fields = {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}
    actions = {name[7:]: fields.pop(name) for name in list(fields) if name.startswith("action/")}
    frames = fields.pop("frames", None)
    return Batch(frames=frames, actions=actions, relevant=relevant, key=keys, **fields)
