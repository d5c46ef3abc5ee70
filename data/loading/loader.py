"""The deterministic, resumable loader: an endless stream of `Batch`.

Batch number s is a pure function of (seed, s): rows 0..U-1 continue the uniform rings, the last R rows the relevant
ones (`loading.streams`); where several corpora are mixed, they take turns (`loading.corpora.turn`). So the order does
not depend on worker processes, and rank r of W, which takes rows r, r + W, ..., can be resumed on another number of
ranks. The state counts batches handed out, not those prefetched.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from reverie.data.batch import RETURN, Batch
from reverie.data.errors import UserError
from reverie.data.loading.config import LoaderConfig
from reverie.data.loading.corpora import Corpora, turn
from reverie.data.loading.rings import CorpusRings, Ring
from reverie.data.loading.windows import Row
from reverie.data.shards.index import ShardIndex

_MOST_LOSSES = 3
"""Workers that may die before the run ends with a sentence."""
_LOG = logging.getLogger(__name__)


class Loader:
    """Endless batches for one rank.

    Args:
        data: video shards (batches with `frames`) or latent shards (with `latents`), one corpus or several.
        config: see `LoaderConfig`.
        rank, world_size: this process takes rows rank, rank + world_size, ... of every batch.

    Raises:
        UserError: a split is missing or too short, the task is unknown, nothing relevant exists, or `batch_size`
            is no multiple of `world_size`; while iterating, nothing can be read any more.
    """

    def __init__(
        self, data: Corpora | ShardIndex, config: LoaderConfig, *, rank: int = 0, world_size: int = 1
    ):
        self._config, self._step = config, 0
        corpora = Corpora.of(data) if isinstance(data, ShardIndex) else data
        self._batches = _Batches(corpora, config, rank, world_size)
        self.skipped: list[str] = []
        """One sentence for every damaged entry of an index, and for every damaged clip or lost shard met so far, whose window
        was replaced by the next one."""
        self._note([sentence for share in corpora.shares for sentence in share.index.skipped])

    def __iter__(self) -> Iterator[Batch]:
        """Continues after the last batch handed out, also where a worker process was killed."""
        losses = 0
        while True:
            try:
                yield from self._batches_from_here()
            except (RuntimeError, ConnectionError, EOFError) as error:
                if not self._config.num_workers or not _is_lost_worker(error):
                    raise
                losses += 1
                if losses > _MOST_LOSSES:
                    raise UserError(
                        f"batches: a process that loads batches has died {losses} times ({_first_line(error)}); memory may be "
                        f"short: use fewer --batches.num_workers, or 0."
                    ) from None
                _LOG.warning(
                    "a worker process of the loader died (%s); others go on at the same batch. Memory may be short: "
                    "use fewer batches.num_workers.",
                    _first_line(error),
                )

    def _batches_from_here(self) -> Iterator[Batch]:
        loader: DataLoader[tuple[Batch, list[str]] | UserError] = DataLoader(
            self._batches,
            sampler=_Numbers(self._step),
            batch_size=None,
            num_workers=self._config.num_workers,
            pin_memory=torch.cuda.is_available(),
        )
        results = iter(loader)
        try:
            for result in results:
                if isinstance(result, UserError):
                    raise result
                batch, skipped = result
                self._step += 1
                self._note(skipped)
                yield batch
        finally:
            _end_workers(results)

    def state_dict(self) -> dict[str, int]:
        """Where the loader stands: seed, whole epochs of all corpora (uniform rows), rows handed out over all ranks."""
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
        for sentence in skipped:
            if sentence not in self.skipped:
                self.skipped.append(sentence)
                _LOG.warning("skipped: %s", sentence)


def _end_workers(results: Any) -> None:
    """Ends the processes behind an iterator of a `DataLoader`.

    Left to its `__del__`, what torch's signal handler raises meanwhile about a killed one would be printed with a traceback.
    """
    end = getattr(results, "_shutdown_workers", None)  # there where there are workers
    if end is not None:
        with suppress(RuntimeError):
            end()


def _is_lost_worker(error: Exception) -> bool:
    """Told by torch, or by a batch whose memory was the worker's to hand over; not what a worker itself raised."""
    if isinstance(error, RuntimeError):
        words = ("exited unexpectedly", "killed by signal")
        return "DataLoader worker" in str(error) and any(word in str(error) for word in words)
    return not str(error).startswith("Caught ")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].strip().rstrip(".")


class _Numbers(Sampler[int]):
    """first, first + 1, ... without end."""

    def __init__(self, first: int):
        self._first = first

    def __iter__(self) -> Iterator[int]:
        number = self._first
        while True:
            yield number
            number += 1


@dataclass(frozen=True)
class _Half:
    """The uniform, or the relevant, rows of every batch: `count` of them, out of `rings` that take turns."""

    rings: Sequence[Ring]
    count: int

    def read(self, step: int, row: int, skipped: dict[str, None]) -> tuple[Row, str]:
        """Row 0 <= `row` < `count` of batch `step`, and its key."""
        # Without moving on from batch to batch, a corpus would always fall to the same process.
        place = row if len(self.rings) == 1 else (row + step) % self.count
        corpus, number = turn(step * self.count + place, self._weights())
        return self.rings[corpus].read(number, skipped)

    def epoch(self, step: int) -> int:
        """How often all rings were seen in full."""
        done = step * self.count
        shares = [done * weight // sum(self._weights()) for weight in self._weights()]
        return min(rows // len(ring.stream) for rows, ring in zip(shares, self.rings, strict=True))

    def _weights(self) -> list[int]:
        return [ring.weight for ring in self.rings]


class _Batches(Dataset[tuple[Batch, list[str]] | UserError]):
    """Batch number -> this rank's rows of it and what had to be skipped, or why there are none.

    An error is handed over, not raised: torch would wrap it in the traceback of its worker.
    """

    def __init__(self, corpora: Corpora, config: LoaderConfig, rank: int, world_size: int):
        if config.batch_size % world_size:
            raise UserError(
                f"batch_size: {config.batch_size} is no multiple of the {world_size} processes; make it one."
            )
        if config.task is not None and config.task not in corpora.tasks:
            known = ", ".join(corpora.tasks) or "none"
            raise UserError(f"{corpora.place}: has no task {config.task!r}; its tasks are: {known}.")
        _require_group(corpora, config)
        self._rows = range(rank, config.batch_size, world_size)
        num_relevant = round(config.relevant_fraction * config.batch_size)
        cache_bytes = config.cache_bytes // max(1, config.num_workers) // len(corpora.shares)
        opened = [
            CorpusRings(corpora, number, config, cache_bytes=cache_bytes)
            for number in range(len(corpora.shares))
        ]
        self._uniform = _Half([corpus.uniform() for corpus in opened], config.batch_size - num_relevant)
        self._relevant = _Half([], 0)
        if num_relevant:
            relevant = [ring for corpus in opened for ring in corpus.relevant()]
            self._relevant = _Half(relevant, num_relevant)
            if not relevant:
                raise UserError(
                    f"{corpora.place}: split {config.split!r} holds no episode {_wanted(corpora, config)}; record more, or set "
                    f"relevant_fraction to 0."
                )

    def epoch(self, step: int) -> int:
        """Whole epochs of the uniform rows, or of the relevant ones if there are no others."""
        return (self._uniform if self._uniform.count else self._relevant).epoch(step)

    def __getitem__(self, step: int) -> tuple[Batch, list[str]] | UserError:
        skipped: dict[str, None] = {}
        try:
            rows, keys = zip(*(self._row(step, row, skipped) for row in self._rows), strict=True)
        except UserError as error:
            return error
        relevant = torch.tensor([row >= self._uniform.count for row in self._rows])
        return collate(rows, list(keys), relevant), list(skipped)

    def _row(self, step: int, row: int, skipped: dict[str, None]) -> tuple[Row, str]:
        if row < self._uniform.count:
            return self._uniform.read(step, row, skipped)
        return self._relevant.read(step, row - self._uniform.count, skipped)


def _wanted(corpora: Corpora, config: LoaderConfig) -> str:
    """What makes an episode relevant."""
    rewarded = "whose actions and rewards are all known"
    if config.task == RETURN or (corpora.has_return and corpora.tasks == [RETURN]):
        return rewarded
    accomplished = f"in which {config.task or 'any task'} is accomplished"
    return (
        f"{accomplished}, nor one {rewarded}" if config.task is None and corpora.has_return else accomplished
    )


def _require_group(corpora: Corpora, config: LoaderConfig) -> None:
    episodes = [episode for share in corpora.shares for episode in share.index.episodes(config.split)]
    known = {episode.group for episode in episodes if episode.labelled}
    if config.labelled_group is not None and config.labelled_group not in known:
        names = ", ".join(sorted(group for group in known if group)) or "no group"
        raise UserError(
            f"{corpora.place}: split {config.split!r} has no episode of group {config.labelled_group!r} with "
            f"actions; it has such of: {names}."
        )


def collate(rows: Sequence[Row], keys: list[str], relevant: Tensor) -> Batch:
    """Rows of equal length and their keys as a batch; `relevant` (B,) bool."""
    fields = {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}
    actions = {name[7:]: fields.pop(name) for name in list(fields) if name.startswith("action/")}
    frames = fields.pop("frames", None)
    return Batch(frames=frames, actions=actions, relevant=relevant, key=keys, **fields)
