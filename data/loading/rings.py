"""The rings of one corpus, uniform and relevant, and their windows read as rows that fit those of other corpora."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

from reverie.data.batch import RETURN
from reverie.data.errors import UserError
from reverie.data.loading.config import LoaderConfig
from reverie.data.loading.corpora import Corpora, Share
from reverie.data.loading.rewards import Brought, best_episodes
from reverie.data.loading.streams import (
    DRAWN_OR_RETURN,
    DRAWN_TASK,
    NO_TASK,
    RETURN_TASK,
    Piece,
    Stream,
    relevant_stretches,
    whole_episodes,
)
from reverie.data.loading.windows import Row, RowReader
from reverie.data.shards.index import Episode
from reverie.data.shards.reader import BrokenSample, ShardReader

_MAX_REPLACEMENTS = 4096
"""Where 99 of 100 windows are broken, that many in a row are broken once in 10^18 rows."""


@dataclass(frozen=True)
class Ring:
    """A stream of windows that can be read.

    stream  the windows, without end
    rows    reads them
    weight  of the corpus
    label   what the keys of its rows begin with
    """

    stream: Stream
    rows: RowReader
    weight: int
    label: str

    def read(self, number: int, skipped: dict[str, None]) -> tuple[Row, str]:
        """Window `number` and its key; where it is broken, the next one that is not, and the reasons in `skipped`.

        Raises `UserError` when nothing can be read.
        """
        for attempt in range(_MAX_REPLACEMENTS):
            pieces = self.stream.window(number + attempt)
            try:
                return self.rows.row(pieces), f"{self.label}{self.rows.key(pieces)}"
            except BrokenSample as error:
                skipped[str(error)] = None
                reason = error
        raise UserError(f"{_MAX_REPLACEMENTS} windows in a row could not be read, the last because: {reason}")


class CorpusRings:
    """The rings of corpus `number` of `corpora`.

    Args:
        cache_bytes: see `ShardReader`.

    Raises:
        UserError: the split is missing.
    """

    def __init__(self, corpora: Corpora, number: int, config: LoaderConfig, *, cache_bytes: int):
        share = corpora.shares[number]
        self._share, self._number, self._config = share, number, config
        self._episodes = share.index.episodes(config.split)
        fraction = config.labelled_fraction if share.labelled_fraction is None else share.labelled_fraction
        hidden = _hidden_episodes(self._episodes, fraction, config.labelled_group)
        self._task = share.task or config.task
        self._returns = share.rewards is not None
        self._hidden = hidden
        self._with_tasks = self._numbers_with_tasks()
        self._with_rewards = {number: brought for number, brought in self._rewards() if number not in hidden}
        self._rows = RowReader(
            ShardReader(
                share.index, cache_bytes=cache_bytes, decoder=config.decoder, patience=config.patience
            ),
            self._episodes,
            hidden,
            space=corpora.action_space,
            knows_all_actions=corpora.knows_all_actions(share),
            task_numbers=_task_numbers(corpora, share),
        )
        self._label = f"{share.index.folder}/" if len(corpora.shares) > 1 else ""

    def uniform(self) -> Ring:
        """All frames. Raises `UserError` when they are fewer than one window."""
        tasks = {number: self._task_of(number) for number in range(len(self._episodes))}
        ring = self._ring(whole_episodes(self._episodes, tasks), self._share.weight, 0)
        if ring.stream.frames < self._config.length:
            raise UserError(
                f"{self._share.index.folder}: split {self._config.split!r} has {ring.stream.frames} frames, fewer "
                f"than one window of {self._config.length}; prepare more data or use shorter windows."
            )
        return ring

    def relevant(self) -> list[Ring]:
        """The stretches in which a task is accomplished, and for the return the better episodes; none where there are none.

        Where both are there, the return gets the rows of one task among all.
        """
        config, num_tasks = self._config, len(self._share.index.tasks)
        before = config.length if config.relevant_before is None else config.relevant_before
        tasks = [number in self._with_tasks for number in range(len(self._episodes))]
        of_tasks = relevant_stretches(self._episodes, before, self._task_number(), tasks)
        best = whole_episodes(self._episodes, self._best_episodes())
        all_tasks = num_tasks + 1 if self._returns else 1
        of_tasks_weight, best_weight = (num_tasks, 1) if of_tasks and best else (all_tasks, all_tasks)
        rings = []
        if of_tasks:
            rings.append(self._ring(of_tasks, self._share.weight * of_tasks_weight, 1))
        if best:
            rings.append(self._ring(best, self._share.weight * best_weight, 1, 1))
        return rings

    def _ring(self, stretches: Sequence[Piece], weight: int, kind: int, *further: int) -> Ring:
        seed = self._config.seed, 2 * self._number + kind, *further
        num_tasks = len(self._share.index.tasks)
        stream = Stream(stretches, self._config.length, seed=seed, num_tasks=num_tasks)
        return Ring(stream, self._rows, weight, self._label)

    def _task_number(self) -> int | None:
        """Of the one task among those of this corpus."""
        tasks = self._share.index.tasks
        return tasks.index(self._task) if self._task in tasks else None

    def _task_of(self, number: int) -> int:
        """What episode `number` is seen for, as a whole: the one task, or one that is drawn; none where that is not known."""
        has_tasks, has_rewards = number in self._with_tasks, number in self._with_rewards
        if self._task is None and has_tasks and has_rewards and self._share.index.tasks:
            return DRAWN_OR_RETURN
        if has_rewards and (self._task == RETURN or (self._task is None and not has_tasks)):
            return RETURN_TASK
        one = self._task_number()
        return NO_TASK if not has_tasks else DRAWN_TASK if one is None else one

    def _numbers_with_tasks(self) -> frozenset[int]:
        """The episodes whose events are known; a task that only other corpora know leaves none, as if nothing was logged."""
        known = self._share.index.tasks
        if self._task is not None and self._task not in known:
            return frozenset()
        return frozenset(
            number
            for number, episode in enumerate(self._episodes)
            if number not in self._hidden
            and (known or not self._returns)
            and all(sample.events is not None for sample in episode.samples)
        )

    def _rewards(self) -> Iterator[tuple[int, Brought]]:
        """The episodes with known rewards."""
        for number, brought in enumerate((self._share.rewards or {}).get(self._config.split, ())):
            if brought is not None:
                yield number, brought

    def returns(self) -> dict[int, float]:
        """Number -> return of the episodes that can be imitated for it: their rewards are known, and actions."""
        if self._task not in (None, RETURN):
            return {}
        return {
            number: brought.total
            for number, brought in self._with_rewards.items()
            if brought.whole and self._episodes[number].labelled
        }

    def best_returns(self) -> list[float]:
        """Returns of the better ones of these."""
        returns = self.returns()
        return [returns[number] for number in best_episodes(returns, self._config.best_fraction)]

    def _best_episodes(self) -> dict[int, int]:
        return dict.fromkeys(best_episodes(self.returns(), self._config.best_fraction), RETURN_TASK)


def _task_numbers(corpora: Corpora, share: Share) -> dict[int, int]:
    """Number of a task in this corpus -> its number in the rows."""
    numbers = {number: corpora.tasks.index(task) for number, task in enumerate(share.index.tasks)}
    return numbers | ({RETURN_TASK: corpora.tasks.index(RETURN)} if share.rewards is not None else {})


def _hidden_episodes(
    episodes: Sequence[Episode], labelled_fraction: float, group: str | None
) -> frozenset[int]:
    """Numbers of the labelled episodes to treat as plain video.

    They are those of other groups, and of the rest all but a share, chosen by name, so the same in every run.
    """
    labelled = [number for number, episode in enumerate(episodes) if episode.labelled]
    eligible = [number for number in labelled if group in (None, episodes[number].group)]
    shown = round(labelled_fraction * len(eligible))
    if labelled_fraction > 0 and eligible:
        shown = max(1, shown)
    eligible.sort(key=lambda number: sha256(episodes[number].name.encode()).digest())
    return frozenset(labelled) - frozenset(eligible[:shown])
