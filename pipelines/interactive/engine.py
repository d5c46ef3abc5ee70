"""The one thread in which the model works: what visitors ask for goes there; who waits for a frame gets it in one step."""

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from reverie.agent.dreams import Action, DreamRow, Dreams, Reading

T = TypeVar("T")
Choice = Callable[[Dreams], Action]
"""Says in the model's thread which action is taken: a person's, or what the agent does."""


@dataclass
class _Job:
    """Anything but a frame."""

    work: Callable[[Dreams], Any]
    done: "Future[Any]" = field(default_factory=Future)

    def fail(self, error: BaseException) -> None:
        _fail(self.done, error)


@dataclass
class _Frame:
    """One row's next frame: seen first, read by the agent afterwards."""

    row: DreamRow
    choice: Choice
    action: Action = field(default_factory=dict)
    seen: "Future[tuple[Action, np.ndarray]]" = field(default_factory=Future)
    read: "Future[Reading | None]" = field(default_factory=Future)

    def fail(self, error: BaseException) -> None:
        _fail(self.seen, error)
        _fail(self.read, error)


class Engine:
    """Runs `dreams` in a thread of its own until `close`."""

    def __init__(self, dreams: Dreams) -> None:
        self._dreams = dreams
        self._jobs: queue.SimpleQueue[_Job | _Frame | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="reverie model", daemon=True)
        self._thread.start()
        self.largest = 0
        """Rows of the largest step so far."""
        self.dreamed = 0
        """Frames so far, of all visitors together."""

    async def do(self, work: Callable[[Dreams], T]) -> T:
        """Runs `work` between two steps and gives what it returns."""
        job = _Job(work)
        self._put(job)
        return await asyncio.wrap_future(job.done)

    async def frame(
        self, row: DreamRow, choice: Choice
    ) -> tuple[Action, np.ndarray, "Future[Reading | None]"]:
        """The row's next frame with the action that led to it, and what the agent will make of it.

        A row must have one frame under way at most; the next may be asked for once the reading is there.
        """
        frame = _Frame(row, choice)
        self._put(frame)
        return *await asyncio.wrap_future(frame.seen), frame.read

    def close(self) -> None:
        """Finishes what was asked for and ends the thread."""
        self._closed = True
        self._jobs.put(None)
        self._thread.join()

    def _put(self, job: "_Job | _Frame") -> None:
        if self._closed:
            raise RuntimeError("the model has stopped")
        self._jobs.put(job)

    def _run(self) -> None:
        while (first := self._jobs.get()) is not None:
            waiting = [first]
            try:
                while (more := self._jobs.get_nowait()) is not None:
                    waiting.append(more)
            except queue.Empty:
                more = first
            for job in waiting:
                if isinstance(job, _Job):
                    self._work(job)
            for frames in _groups([job for job in waiting if isinstance(job, _Frame)]):
                self._step(frames)
            if more is None:
                return

    def _work(self, job: _Job) -> None:
        try:
            _answer(job.done, job.work(self._dreams))
        except BaseException as error:
            job.fail(error)

    def _step(self, frames: list[_Frame]) -> None:
        rows = [frame.row for frame in frames]
        self.largest = max(self.largest, len(rows))
        try:
            for frame in frames:
                frame.action = frame.choice(self._dreams)
            shown = self._dreams.show(rows, [frame.action for frame in frames])
            for frame, picture in zip(frames, shown):
                _answer(frame.seen, (frame.action, picture))
            self.dreamed += len(frames)
            for frame, reading in zip(frames, self._dreams.keep(rows)):
                _answer(frame.read, reading)
        except BaseException as error:
            for frame in frames:
                frame.fail(error)


def _groups(frames: list[_Frame]) -> list[list[_Frame]]:
    """Those with the same number of denoising steps go together."""
    groups: dict[int, list[_Frame]] = {}
    for frame in frames:
        groups.setdefault(frame.row.sampling_steps, []).append(frame)
    return list(groups.values())


def _answer(future: "Future[Any]", value: Any) -> None:
    """Unless nobody waits any more: who asked may have left."""
    if future.set_running_or_notify_cancel():
        future.set_result(value)


def _fail(future: "Future[Any]", error: BaseException) -> None:
    if not future.done() and future.set_running_or_notify_cancel():
        future.set_exception(error)
