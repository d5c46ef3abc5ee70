"""A long way in a game that counts what its player does: tasks asked for one after the other, milestones on the way.

A `Quest` says what they are, a `Prompter` where one episode stands: after each step it `see`s the game's counts and moves on
to the next task when they are enough.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from reverie.data.errors import UserError

Stats = Mapping[str, int]
"""`kind:item` -> how often since the episode began, such as `mine_block:oak_log` -> 3; what is not there is 0."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A task and how often it is to be done; None: until the end."""

    task: str
    count: int | None = None


@dataclass(frozen=True, kw_only=True)
class Quest:
    """What a game asks for and what it counts as getting there.

    statistics  task -> the statistics that count it, any of them
    prompts     what is asked for, one after the other
    milestones  item -> the statistics that say that the player has got it, any of them
    """

    statistics: Mapping[str, tuple[str, ...]]
    prompts: tuple[Prompt, ...]
    milestones: Mapping[str, tuple[str, ...]]

    def reached(self, stats: Stats) -> set[str]:
        """The milestones reached by now."""
        return {item for item, names in self.milestones.items() if count(stats, names)}

    def only(self, task: str) -> "Quest":
        """The quest that asks for one task all the time. Raises `UserError` for a task that is not counted."""
        if task not in self.statistics:
            raise UserError(
                f"--task {task}: the game has the tasks {', '.join(self.statistics)}; choose one of them."
            )
        return Quest(statistics=self.statistics, prompts=(Prompt(task=task),), milestones=self.milestones)


class Prompter:
    """Where one episode stands in the prompts of its quest.

    A prompt counts from the moment it is given: what was done before does not count again. After the last one the
    last task stays.
    """

    def __init__(self, quest: Quest) -> None:
        self._quest, self._before = quest, 0
        self.done = 0
        """Prompts that are fulfilled."""

    @property
    def task(self) -> str:
        """What to ask for now."""
        return self._prompt.task

    def see(self, stats: Stats) -> None:
        """Moves on to the next prompt if the game has counted enough for this one."""
        prompt = self._prompt
        enough = prompt.count is not None and self._total(stats, prompt) - self._before >= prompt.count
        if enough and self.done < len(self._quest.prompts):
            self.done += 1
            self._before = self._total(stats, self._prompt)

    @property
    def _prompt(self) -> Prompt:
        return self._quest.prompts[min(self.done, len(self._quest.prompts) - 1)]

    def _total(self, stats: Stats, prompt: Prompt) -> int:
        return count(stats, self._quest.statistics[prompt.task])


def count(stats: Stats, names: Iterable[str]) -> int:
    """The sum of the named statistics."""
    return sum(stats.get(name, 0) for name in names)
