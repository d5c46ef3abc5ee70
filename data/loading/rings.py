"""The rings of one corpus, uniform and relevant, and their windows read as rows that fit those of other corpora."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from reverie.data.errors import UserError
from reverie.data.loading.config import LoaderConfig
from reverie.data.loading.corpora import Corpora
from reverie.data.loading.streams import Piece, Stream, relevant_stretches, uniform_stretches
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
        # A task that only other corpora know: these rows are as if no task was logged.
        foreign = self._task is not None and self._task not in share.index.tasks
        self._with_tasks = [
            not foreign
            and number not in hidden
            and all(sample.events is not None for sample in episode.samples)
            for number, episode in enumerate(self._episodes)
        ]
        self._rows = RowReader(
            ShardReader(
                share.index, cache_bytes=cache_bytes, decoder=config.decoder, patience=config.patience
            ),
            self._episodes,
            hidden,
            space=corpora.action_space,
            knows_all_actions=corpora.knows_all_actions(share),
            task_numbers=[corpora.tasks.index(task) for task in share.index.tasks],
        )
        self._label = f"{share.index.folder}/" if len(corpora.shares) > 1 else ""

    def uniform(self) -> Ring:
        """All frames. Raises `UserError` when they are fewer than one window."""
        ring = self._ring(uniform_stretches(self._episodes, self._task_number(), self._with_tasks), kind=0)
        if ring.stream.frames < self._config.length:
            raise UserError(
                f"{self._share.index.folder}: split {self._config.split!r} has {ring.stream.frames} frames, fewer "
                f"than one window of {self._config.length}; prepare more data or use shorter windows."
            )
        return ring

    def relevant(self) -> Ring | None:
        """The stretches in which a task is accomplished; None where there are none."""
        config = self._config
        before = config.length if config.relevant_before is None else config.relevant_before
        stretches = relevant_stretches(self._episodes, before, self._task_number(), self._with_tasks)
        return self._ring(stretches, kind=1) if stretches else None

    def _ring(self, stretches: Sequence[Piece], kind: int) -> Ring:
        seed = self._config.seed, 2 * self._number + kind
        num_tasks = len(self._share.index.tasks)
        stream = Stream(stretches, self._config.length, seed=seed, num_tasks=num_tasks)
        return Ring(stream, self._rows, self._share.weight, self._label)

    def _task_number(self) -> int | None:
        """Of the one task among those of this corpus."""
        tasks = self._share.index.tasks
        return tasks.index(self._task) if self._task in tasks else None


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
