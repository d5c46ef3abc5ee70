"""What is recorded of one visitor: episode by episode, each named by its task or by a number."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np

from reverie.agent.dreams import Action
from reverie.data.errors import UserError
from reverie.pipelines.interactive import messages
from reverie.pipelines.interactive.checklist import Checklist, ChecklistTask, Mark
from reverie.pipelines.interactive.recorder import MOST_FRAMES, EpisodeRecorder, Shelf


class Records:
    """Episodes of one visitor on `shelf`, None to record nothing; `checklist`: the tasks that are gone through, if any."""

    def __init__(self, shelf: Shelf | None, checklist: Checklist | None) -> None:
        self._shelf, self._checklist = shelf, checklist
        self._recorder: EpisodeRecorder | None = None
        self.wanted = shelf is not None

    @property
    def task(self) -> ChecklistTask | None:
        """The task of the checklist that is to be done now."""
        return None if self._checklist is None else self._checklist.current

    @property
    def attempt(self) -> int:
        """Number of the episode under way, or of the next one; 0 where nothing is recorded."""
        if self._shelf is None:
            return 0
        if self._recorder is not None:
            return int(self._recorder.name.rpartition("-")[2])
        return self._shelf.attempt(self._stem())

    async def want(self, wanted: bool) -> None:
        """Turns recording on, or off: the episode then ends."""
        if wanted and self._shelf is None:
            raise UserError("record: give --out, the folder for what is recorded.")
        self.wanted = wanted
        if not wanted:
            await self.end()

    async def add(self, before: np.ndarray, action: Action, frame: np.ndarray) -> None:
        """Adds a step to the episode, which begins with the frame `before` its first one."""
        if self._shelf is None or not self.wanted:
            return
        if self._recorder is not None and self._recorder.length >= MOST_FRAMES:
            await self.end()
        try:
            if self._recorder is None:
                self._recorder = await asyncio.to_thread(self._shelf.begin, self._stem(), before)
            await asyncio.to_thread(self._recorder.add, dict(action), frame)
        except BaseException:
            await self._give_up()  # the next step begins a new episode, if it can
            raise

    async def back(self, frames: int) -> None:
        """The last `frames` were undone; an episode that cannot go back so far ends."""
        if self._recorder is not None and not self._recorder.back(frames):
            await self.end()

    async def end(self) -> None:
        """Ends the episode."""
        recorder, self._recorder = self._recorder, None
        if recorder is not None and self._shelf is not None:
            await asyncio.to_thread(self._shelf.finish, recorder)

    async def mark(self, message: messages.Mark, frames: int, context: str) -> None:
        """Ends the task that is asked for with what is said of it, after `frames` frames from `context`."""
        checklist = self._checklist
        if checklist is None or checklist.current is None:
            raise UserError(
                "mark: there is no task to mark; give --checklist, or another --out to begin again."
            )
        mark = Mark(
            success=message.success,
            note=message.note.encode(errors="replace").decode(),
            episode="" if self._recorder is None else self._recorder.name,
            frames=frames,
            attempt=self.attempt,
            context=context,
            time=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        await self.end()
        await asyncio.to_thread(checklist.mark, mark)

    async def _give_up(self) -> None:
        try:
            await self.end()
        except UserError:
            return

    def _stem(self) -> Callable[[int], str]:
        """Names an episode: the place and name of its task and the attempt, or a number."""
        task, checklist = self.task, self._checklist
        if task is None or checklist is None:
            return lambda attempt: f"{attempt:06d}"
        place = checklist.tasks.index(task) + 1
        return lambda attempt: f"{place:02d}-{task.name}-{attempt}"
