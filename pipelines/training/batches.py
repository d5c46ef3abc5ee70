"""Which windows a training step sees: alternating many short and occasional long batches (Dreamer 4, section 3.2)."""

import random
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Protocol

import torch

from reverie.data.batch import RETURN, Batch
from reverie.data.errors import UserError
from reverie.data.loading.corpora import Corpora, Share
from reverie.data.loading.loader import Loader, LoaderConfig, collate
from reverie.data.loading.rings import CorpusRings, Ring
from reverie.data.loading.streams import DRAWN_OR_RETURN, DRAWN_TASK, NO_TASK
from reverie.data.shards.reader import BrokenSample

VALIDATION = "validation"


@dataclass(frozen=True, kw_only=True)
class BatchesConfig:
    """Sizes and composition of the batches."""

    batch_size: int = 8
    """Windows in a short batch, over all processes."""
    length: int = 16
    """Frames T_1 of a window in a short batch."""
    long_batch_size: int = 2
    """Windows in a long batch, over all processes."""
    long_length: int = 64
    """Frames T_2 of a window in a long batch; longer than the model's context."""
    long_probability: float = 0.0
    """Share of steps with a long batch; 1 for finetuning on long ones only."""
    labelled_fraction: float = 1.0
    """Share of the labelled episodes of each corpus whose actions are used; the others count as plain video."""
    labelled_group: str | None = None
    """Use actions of this group of episodes only (VPT: overworld or nether_end); the others count as plain video."""
    accumulate: int = 1
    """Micro-batches of a step, one after the other, whose gradients are averaged: as much memory as a batch of 1 / accumulate."""
    num_workers: int = 0
    """Processes that decode and prepare windows beside this one; does not change the order."""

    def __post_init__(self) -> None:
        if not 0 <= self.long_probability <= 1:
            raise ValueError(f"batches.long_probability must lie in [0, 1], got {self.long_probability}")
        if self.accumulate < 1:
            raise ValueError(f"batches.accumulate must be at least 1, got {self.accumulate}")

    @property
    def frames(self) -> float:
        """Frames of a step, on average."""
        short, long = self.batch_size * self.length, self.long_batch_size * self.long_length
        return short + self.long_probability * (long - short)


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Which rows a batch is mixed of."""

    relevant_fraction: float = 0.0
    """Share of the rows from stretches in which a task is accomplished, for the return from the better episodes."""
    best_fraction: float = LoaderConfig.best_fraction
    """Share of the episodes that are the better ones, see `LoaderConfig`."""
    relevant_before: int | None = None
    """Frames before a task's event that count as relevant to it; None for the length of a window."""
    task: str | None = None
    """The one task of all rows; None draws one per episode."""


class BatchSource(Protocol):
    """An endless, resumable stream of batches."""

    def next(self, step: int) -> Batch:
        """The batch of step number `step`; called once per step, in order."""

    @property
    def skipped(self) -> list[str]:
        """One sentence for everything that could not be read so far."""

    def state_dict(self) -> dict[str, Any]:
        """The position, JSON-able."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from a saved position; before the first `next`."""


class Batches:
    """An endless, resumable choice between a short and a long loader, a pure function of (seed, step)."""

    def __init__(self, short: Loader, long: Loader | None, long_probability: float, seed: int) -> None:
        self._loaders = {"short": short} | ({"long": long} if long is not None else {})
        self._long_probability, self._seed = long_probability, seed
        self._iterators: dict[str, Iterator[Batch]] = {}
        self._skipped: dict[str, None] = {}

    def next(self, step: int) -> Batch:
        """The batch of step number `step`; call once per step, in order."""
        kind = self._kind(step)
        if kind not in self._iterators:
            self._iterators[kind] = iter(self._loaders[kind])
        batch = next(self._iterators[kind])
        self._skipped |= dict.fromkeys(
            self._loaders[kind].skipped
        )  # short and long batches meet the same damage
        return batch

    @property
    def skipped(self) -> list[str]:
        """One sentence for every damaged clip or lost shard met so far, in the order in which they were met."""
        return list(self._skipped)

    def state_dict(self) -> dict[str, Any]:
        """Positions of the loaders, JSON-able."""
        return {name: loader.state_dict() for name, loader in self._loaders.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from saved positions; before the first `next`."""
        for name, loader in self._loaders.items():
            if name in state:
                loader.load_state_dict(state[name])

    def _kind(self, step: int) -> str:
        if "long" not in self._loaders:
            return "short"
        return "long" if random.Random(f"{self._seed}/{step}").random() < self._long_probability else "short"


def training_batches(
    corpora: Corpora,
    config: BatchesConfig,
    *,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
    mixture: Mixture,
) -> Batches:
    """The training splits of `corpora`. Raises `UserError` when a batch cannot be shared among the processes."""

    def loader(batch_size: int, length: int) -> Loader:
        _require_equal_shares(batch_size, world_size, config.accumulate)
        chosen = LoaderConfig(
            batch_size=batch_size,
            length=length,
            seed=seed,
            split="train",
            relevant_fraction=mixture.relevant_fraction,
            best_fraction=mixture.best_fraction,
            relevant_before=mixture.relevant_before,
            num_workers=config.num_workers,
            labelled_fraction=config.labelled_fraction,
            labelled_group=config.labelled_group,
            task=mixture.task,
        )
        return Loader(corpora, chosen, rank=rank, world_size=world_size)

    long = loader(config.long_batch_size, config.long_length) if config.long_probability > 0 else None
    return Batches(loader(config.batch_size, config.length), long, config.long_probability, seed)


def _require_equal_shares(batch_size: int, world_size: int, accumulate: int) -> None:
    """Raises `UserError` where a batch cannot be cut into equal parts."""
    if batch_size % world_size:
        raise UserError(
            f"batches: {batch_size} windows cannot be shared equally by {world_size} processes; "
            f"make batches.batch_size and batches.long_batch_size multiples of {world_size}."
        )
    if batch_size // world_size % accumulate:
        raise UserError(
            f"--batches.accumulate {accumulate}: {batch_size // world_size} windows of a process cannot be cut into as many "
            f"equal parts; make batches.batch_size and batches.long_batch_size multiples of {world_size * accumulate}."
        )


def heldout_batches(corpora: Corpora, config: BatchesConfig, count: int, mixture: Mixture) -> list[Batch]:
    """`count` fixed short batches of the validation splits, in the weights of training.

    A corpus whose split is missing or too small is left out, with a note; none if nothing remains.
    """
    chosen = LoaderConfig(
        batch_size=config.batch_size,
        length=config.length,
        split=VALIDATION,
        relevant_fraction=mixture.relevant_fraction,
        best_fraction=mixture.best_fraction,
        relevant_before=mixture.relevant_before,
        task=mixture.task,
    )
    whole = _fully_labelled(corpora)
    shares = tuple(share for share in whole.shares if _holds_out(corpora, share, chosen))
    if not shares:
        return []
    try:
        return list(islice(Loader(replace(corpora, shares=shares), chosen), count))
    except UserError as error:
        print(f"No held-out evaluation while training: {error}", file=sys.stderr)
        return []


def told_best(corpora: Corpora, config: BatchesConfig, mixture: Mixture) -> str:
    """Which of the training episodes count as the better ones, in a sentence."""
    chosen = LoaderConfig(
        batch_size=1,
        length=1,
        labelled_fraction=config.labelled_fraction,
        labelled_group=config.labelled_group,
        best_fraction=mixture.best_fraction,
        task=mixture.task,
    )
    rings = [CorpusRings(corpora, n, chosen, cache_bytes=0) for n in range(len(corpora.shares))]
    best = [x for ring in rings for x in ring.best_returns()]
    told = [x for ring in rings for x in ring.returns().values()]
    if not best:
        return f"{RETURN}: no episode is imitated, since of none all actions and rewards are known"
    return (
        f"{RETURN}: {len(best)} of {len(told)} episodes are imitated, which brought {min(best):g} to {max(best):g}; all brought "
        f"{min(told):g} to {max(told):g}, on average {sum(told) / len(told):g}"
    )


def heldout_episodes(corpora: Corpora, count: int, longest: int, mixture: Mixture) -> Iterator[Batch]:
    """The first `count` episodes of the validation splits that can be read, a batch of one row each, read one by one.

    Longer ones end after `longest` frames. None where there is no such split.
    """
    return islice(_every_episode(_fully_labelled(corpora), longest, mixture), count)


def _every_episode(corpora: Corpora, longest: int, mixture: Mixture) -> Iterator[Batch]:
    chosen = LoaderConfig(batch_size=1, length=1, split=VALIDATION, task=mixture.task)
    for number, share in enumerate(corpora.shares):
        if VALIDATION in share.index.splits:
            yield from _whole_episodes(CorpusRings(corpora, number, chosen, cache_bytes=0).uniform(), longest)


def _fully_labelled(corpora: Corpora) -> Corpora:
    """Fewer labels are a handicap of training, not of what measures it."""
    return replace(corpora, shares=tuple(replace(share, labelled_fraction=None) for share in corpora.shares))


def _whole_episodes(ring: Ring, longest: int) -> Iterator[Batch]:
    for piece in ring.stream.stretches:
        task = NO_TASK if piece.task in (DRAWN_TASK, DRAWN_OR_RETURN) else piece.task  # nothing is drawn here
        try:
            row = ring.rows.row([replace(piece, n=min(piece.n, longest), task=task)])
        except BrokenSample:
            continue  # told when training meets its like
        yield collate([row], [f"{piece.episode}"], torch.zeros(1, dtype=torch.bool))


def _holds_out(corpora: Corpora, share: Share, config: LoaderConfig) -> bool:
    """Whether one corpus alone could be evaluated on."""
    try:
        Loader(replace(corpora, shares=(share,)), replace(config, relevant_fraction=0.0))
    except UserError as error:
        print(f"No held-out evaluation on this corpus while training: {error}", file=sys.stderr)
        return False
    return True
