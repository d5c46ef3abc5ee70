"""Episodes of a quest in games of their own processes, side by side; crashed games are replaced.

Games that play go on together, one step of all for each action of the policy. A game that starts, which may take a minute,
holds nobody up: its row is left out until its first frame is there.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from reverie.environments.game import GameCrashed
from reverie.environments.quest import Prompter, Quest
from reverie.evaluation.games import Actions
from reverie.evaluation.milestones import End, QuestEpisode
from reverie.evaluation.remote import GamePool, RemoteGame, Script, Seen
from reverie.evaluation.words import caption

_PAUSE = 0.5
"""Seconds between two looks for games that take too long to start, while none plays."""


class QuestPolicy(Protocol):
    """Plays N games side by side and does as it is asked."""

    def begin(self, row: int, number: int) -> None:
        """The episode called `number` begins in `row`: its first frame comes with the next `act`."""

    def act(self, frames: np.ndarray, first: np.ndarray, tasks: Sequence[str]) -> Actions:
        """Actions for frames (N, H, W, 3) uint8; `first` (N,) bool marks rows that begin, `tasks` are the N prompts.

        Rows whose game is starting hold an old frame, and their actions are not taken.
        """

    def values(self) -> np.ndarray | None:
        """What it expects of the frames last seen, (N,); None if it expects nothing."""


@dataclass
class _Trip:
    """An episode under way; a crash of its game lets it `begin` again."""

    number: int
    seed: int
    quest: Quest
    crashes: int = 0

    def __post_init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self.steps, self.episode_return = 0, 0.0
        self.milestones: dict[str, int] = {}
        self.events: dict[str, int] = {}
        self.prompter = Prompter(self.quest)

    def see(self, seen: Seen) -> None:
        self.steps += 1
        self.episode_return += seen.reward
        self.prompter.see(seen.stats)
        for item in self.quest.reached(seen.stats):
            self.milestones.setdefault(item, self.steps)
        for task in seen.events:
            self.events.setdefault(task, self.steps)

    def finished(self, end: End) -> QuestEpisode:
        return QuestEpisode(
            number=self.number,
            seed=self.seed,
            steps=self.steps,
            end=end,
            episode_return=self.episode_return,
            milestones=self.milestones,
            events=self.events,
            prompts=self.prompter.done,
            crashes=self.crashes,
        )


@dataclass
class _Row:
    """A place in the batch. starting: asked for a first frame; playing: for the next; seen: has one to act on.

    proposed  what the script that plays does next
    """

    index: int
    game: RemoteGame
    trip: _Trip | None = None
    state: Literal["idle", "starting", "playing", "seen"] = "idle"
    asked: float = field(default_factory=time.monotonic)
    proposed: Actions | None = None

    @property
    def is_late(self) -> bool:
        return time.monotonic() - self.asked > self.game.plan.timeout


class Expedition:
    """Plays worlds with one policy.

    Args:
      pool: where games come from; it stays open.
      num_rows: N games side by side.
      quest: what is asked for and counted.
      player: a policy for N games, or a script that plays inside their processes.
      frame_size: (height, width) of what the policy sees.
      max_crashes: an episode is begun again after so many crashes of its game, then given up.
      film: where the episode of a number is to be filmed, None for not at all.
      stepped: is told of every step of all games: steps taken, and crashes so far.
    """

    def __init__(
        self,
        pool: GamePool,
        num_rows: int,
        quest: Quest,
        player: QuestPolicy | Script,
        *,
        frame_size: tuple[int, int],
        max_crashes: int,
        film: Callable[[int], Path | None] = lambda number: None,
        stepped: Callable[[int, int], object] = lambda steps, crashes: None,
    ) -> None:
        self._pool, self._quest = pool, quest
        self._script = player if isinstance(player, Script) else None
        self._policy = None if isinstance(player, Script) else player
        self._max_crashes, self._film, self._stepped = max_crashes, film, stepped
        self._rows = [_Row(i, game) for i, game in enumerate(pool.take(num_rows))]
        self._frames = np.zeros((num_rows, *frame_size, 3), np.uint8)
        self._tasks = [quest.prompts[0].task] * num_rows
        self._waiting: deque[_Trip] = deque()
        self._crashes = self._failed_starts = 0

    def play(self, worlds: Iterable[tuple[int, int]]) -> Iterator[QuestEpisode]:
        """Plays `worlds`, (number, seed), each once to its end; episodes come as they end.

        Raises `GameCrashed` when the game does not even start `max_crashes` + 1 times in a row, `UserError` when it
        cannot be had.
        """
        self._waiting = deque(_Trip(number, seed, self._quest) for number, seed in worlds)
        for row in self._rows:
            self._next(row)
        while any(row.trip for row in self._rows):
            for row in self._answering():
                if (episode := self._receive(row)) is not None:
                    yield episode
                    self._next(row)
            self._act()

    def _next(self, row: _Row) -> None:
        row.trip, row.state = (self._waiting.popleft(), "starting") if self._waiting else (None, "idle")
        self._begin(row)

    def _begin(self, row: _Row) -> None:
        if row.trip is not None:
            row.trip.begin()
            row.state, row.asked = "starting", time.monotonic()
            number = row.trip.number
            row.game.begin(row.trip.seed, self._film(number), self._script, number)

    def _answering(self) -> list[_Row]:
        """Rows whose answer is to be taken now: all that play, and of those that start the ones that are ready or late."""
        playing = [row for row in self._rows if row.state == "playing"]
        starting = [row for row in self._rows if row.state == "starting"]
        ready = wait([row.game.connection for row in starting], 0 if playing else _PAUSE)
        return playing + [row for row in starting if row.game.connection in ready or row.is_late]

    def _receive(self, row: _Row) -> QuestEpisode | None:
        """Takes one answer; the episode, if it is over."""
        assert row.trip is not None
        try:
            seen = row.game.receive(0 if row.state == "starting" else None)
        except GameCrashed as error:
            return self._replace(row, error)
        if seen is None:  # the process is there, its game not yet
            return None
        self._frames[row.index] = seen.frame
        if row.state == "starting":
            self._failed_starts = 0
            if self._policy is not None:
                self._policy.begin(row.index, row.trip.number)
        else:
            row.trip.see(seen)
        row.state, row.proposed = "seen", seen.proposed
        self._tasks[row.index] = row.trip.prompter.task
        if seen.terminated or seen.truncated:
            return row.trip.finished("death" if seen.terminated else "limit")
        return None

    def _replace(self, row: _Row, error: GameCrashed) -> QuestEpisode | None:
        """Another process for a crashed game, which begins the episode again; the episode, if that was once too often."""
        assert row.trip is not None
        row.game = self._pool.replace(row.index, error)
        if row.state == "starting":
            self._failed_starts += 1
            if self._failed_starts > self._max_crashes:
                raise error
        row.trip.crashes += 1
        self._crashes += 1
        if row.trip.crashes > self._max_crashes:
            return row.trip.finished("crash")
        self._begin(row)
        return None

    def _act(self) -> None:
        rows = [row for row in self._rows if row.state == "seen" and row.trip]
        if not rows:
            return
        actions, values = self._choose(rows)
        for row, action in zip(rows, actions, strict=True):
            row.game.play(action, self._caption(row, action, values))
            row.state, row.asked = "playing", time.monotonic()
        self._stepped(len(rows), self._crashes)

    def _choose(self, rows: Sequence[_Row]) -> tuple[list[Actions], np.ndarray | None]:
        """An action for each of `rows`; where one of them is filmed also the values of all N."""
        if self._policy is None:
            return [row.proposed for row in rows if row.proposed is not None], None
        first = np.zeros(len(self._rows), bool)
        first[[row.index for row in rows if row.trip and row.trip.steps == 0]] = True
        actions = self._policy.act(self._frames, first, self._tasks)
        filmed = any(self._film(row.trip.number) for row in rows if row.trip)
        chosen = [{name: value[row.index] for name, value in actions.items()} for row in rows]
        return chosen, self._policy.values() if filmed else None

    def _caption(self, row: _Row, action: Actions, values: np.ndarray | None) -> list[str]:
        trip, card = row.trip, row.game.card
        assert trip is not None and card is not None
        if self._film(trip.number) is None:
            return []
        value = None if values is None else float(values[row.index])
        return caption(trip.steps, card.fps, trip.prompter.task, action, value, trip.milestones)
