"""What shards hold, counted from their index and logs; no picture is decoded."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from reverie.data.actions import ActionSpace, Binary, Categorical, Component, Continuous
from reverie.data.shards.index import Sample
from reverie.data.shards.steps import Steps

BINS = 16


@dataclass
class ComponentTally:
    """Known actions of one component.

    rows       how many
    totals     (n,): how often each class or key, or the sum of each number
    low, high  (n,): extremes of each number; meaningless for classes and keys
    bins       (n, BINS): how many of each number lie in each equal part of its declared range; 0 for classes and keys
    """

    component: Component
    rows: int
    totals: np.ndarray
    low: np.ndarray
    high: np.ndarray
    bins: np.ndarray

    @classmethod
    def empty(cls, component: Component) -> "ComponentTally":
        """Nothing counted yet."""
        n = component.n
        return cls(
            component, 0, np.zeros(n), np.full(n, np.inf), np.full(n, -np.inf), np.zeros((n, BINS), np.int64)
        )

    def add(self, values: np.ndarray) -> None:
        """Counts rows: (rows, ...) as stored."""
        self.rows += len(values)
        match self.component:
            case Categorical():
                self.totals += np.bincount(values, minlength=self.component.n)
            case Binary():
                self.totals += values.sum(0)
            case Continuous() if len(values):
                self.totals += values.sum(0, dtype=np.float64)
                self.low = np.minimum(self.low, values.min(0))
                self.high = np.maximum(self.high, values.max(0))
                self.bins += self._binned(values)

    def _binned(self, values: np.ndarray) -> np.ndarray:
        assert isinstance(self.component, Continuous)
        span = self.component.low, self.component.high
        if span[0] == span[1]:  # one value alone
            span = span[0] - 0.5, span[1] + 0.5
        return np.stack([np.histogram(column.clip(*span), BINS, span)[0] for column in values.T])

    def names(self) -> list[str]:
        """Names of the classes, keys or numbers; their positions where they have none."""
        return list(self.component.names) or [str(i) for i in range(self.component.n)]


@dataclass
class SplitSummary:
    """One split.

    clips, frames    how many
    known            frames whose action is known
    episodes         names of all
    labelled         names of those with at least one known action
    events           (num_tasks,): how often each task was accomplished
    accomplished_in  task -> names of the episodes in which it was
    """

    num_tasks: int
    clips: int = 0
    frames: int = 0
    known: int = 0
    episodes: set[str] = field(default_factory=set)
    labelled: set[str] = field(default_factory=set)
    events: np.ndarray = field(init=False)
    accomplished_in: list[set[str]] = field(init=False)

    def __post_init__(self) -> None:
        self.events = np.zeros(self.num_tasks, np.int64)
        self.accomplished_in = [set() for _ in range(self.num_tasks)]

    def add(self, sample: Sample, steps: Steps) -> None:
        """Counts one clip."""
        self.clips += 1
        self.frames += sample.n
        self.known += int(steps.action_mask.sum())
        self.episodes.add(sample.episode)
        if sample.labelled:
            self.labelled.add(sample.episode)
        counts = np.count_nonzero(steps.events, axis=0)
        self.events += counts
        for task in np.flatnonzero(counts):
            self.accomplished_in[task].add(sample.episode)


@dataclass(frozen=True)
class Summary:
    """All splits by name, and the known actions of all of them by component."""

    splits: dict[str, SplitSummary]
    actions: dict[str, ComponentTally]


def summarize(clips: Iterable[tuple[Sample, Steps]], space: ActionSpace, num_tasks: int) -> Summary:
    """Counts clips of all splits."""
    summary = Summary({}, {name: ComponentTally.empty(c) for name, c in space.components.items()})
    for sample, steps in clips:
        summary.splits.setdefault(sample.split, SplitSummary(num_tasks)).add(sample, steps)
        for name, tally in summary.actions.items():
            tally.add(steps.actions[name][steps.action_mask])
    return summary
