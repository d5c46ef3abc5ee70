"""One person's session: contexts, the dream that goes on from them, what is recorded, what is marked."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch

from reverie.agent.dream import Dream
from reverie.data.errors import UserError
from reverie.data.sources.episodes import EpisodeWriter
from reverie.dynamics.frame import Step
from reverie.pipelines.interactive.checklist import Checklist, ChecklistTask, Mark
from reverie.pipelines.interactive.contexts import Context, Contexts
from reverie.pipelines.interactive.controls import Controls
from reverie.pipelines.interactive.recorder import EpisodeRecorder

MakeDream = Callable[[Context, int], Dream]
"""Context and seed of the noise -> the dream that goes on from there."""


@dataclass(frozen=True)
class Start:
    """What a session begins with: a named clip and frame, or None for drawn contexts; the seed of all that is drawn."""

    clip: str | None
    frame: int
    seed: int


class PlaySession:
    """Safe to call from several threads; every call sees the one before it finished.

    Args:
      make_dream: see `MakeDream`.
      contexts: where dreams begin.
      writer: of the episodes.
      controls: of the action space.
      player: name of the person, for the records.
      checklist: tasks to go through, or None for free play.
    """

    def __init__(
        self,
        make_dream: MakeDream,
        contexts: Contexts,
        writer: EpisodeWriter,
        controls: Controls,
        start: Start,
        player: str,
        checklist: Checklist | None = None,
    ) -> None:
        self.controls, self.checklist = controls, checklist
        self._make_dream, self._contexts, self._writer = make_dream, contexts, writer
        self._begin, self._player = start, player
        self._lock = threading.RLock()
        self._recorder: EpisodeRecorder | None = None
        self._drawn, self._dreams, self._closed = 0, 0, False
        self._context = self._next_context()
        self.frame: np.ndarray = self._context.frames[0, -1].numpy()
        self.milliseconds, self.steps = 0.0, 0
        self._dream_on()

    def restart(self, other_context: bool) -> None:
        """Ends the episode and begins again, with other noise, in the same context or the next one."""
        with self._lock:
            self._end_episode()
            if other_context:
                self._context = self._next_context()
            self._dream_on()

    def step(self, action: dict[str, np.ndarray]) -> np.ndarray:
        """Takes `action` and returns the frame that it leads to, (H, W, 3) uint8."""
        with self._lock:
            if self._closed:
                raise UserError("the session has ended.")
            began = time.perf_counter()
            led = {name: torch.from_numpy(np.asarray(value))[None, None] for name, value in action.items()}
            frame = self._dream.next(Step(led, torch.ones(1, 1, dtype=torch.bool)))[0].cpu().numpy()
            self.milliseconds = 1000 * (time.perf_counter() - began)
            before, self.frame, self.steps = self.frame, frame, self.steps + 1
            self._record(before, action)
            return frame

    def mark(self, success: bool, note: str) -> None:
        """Ends the task that is asked for and begins the next one. Raises `UserError` when there is none."""
        with self._lock:
            if self.checklist is None or self.checklist.current is None:
                raise UserError(
                    "mark: there is no task to mark; give --checklist, or another --out to begin again."
                )
            episode = "" if self._recorder is None else self._recorder.name
            steps, attempt, place = self.steps, self._attempt(), self._context.place
            self._end_episode()
            self.checklist.mark(
                Mark(
                    success=success,
                    note=note,
                    episode=episode,
                    frames=steps,
                    attempt=attempt,
                    context=place,
                    time=datetime.now(UTC).isoformat(timespec="seconds"),
                )
            )
            self.restart(other_context=True)

    def close(self) -> None:
        """Ends the episode, and takes no more steps."""
        with self._lock:
            self._closed = True
            self._end_episode()

    def to_json(self) -> dict[str, Any]:
        """What the page shows."""
        with self._lock:
            height, width = self._writer.recording.frame_size
            return {
                "fps": self._writer.recording.fps,
                "height": height,
                "width": width,
                "controls": self.controls.to_json(),
                "context": f"{self._contexts.length} frames of {self._context.place}",
                "steps": self.steps,
                "attempt": self._attempt(),
                "checklist": None if self.checklist is None else self.checklist.to_json(),
            }

    def _next_context(self) -> Context:
        """The task's own context, the one asked for, or the next one drawn."""
        task = self._task()
        if task is not None and task.clip is not None:
            return self._contexts.named(task.clip, task.frame)
        if self._begin.clip is not None:
            return self._contexts.named(self._begin.clip, self._begin.frame)
        self._drawn += 1
        return self._contexts.drawn(self._drawn - 1)

    def _dream_on(self) -> None:
        """From the context, with a noise that no other dream of the session has."""
        self._dream = self._make_dream(self._context, self._begin.seed + self._dreams)
        self._dreams += 1
        self.frame, self.steps = self._context.frames[0, -1].numpy(), 0

    def _record(self, before: np.ndarray, action: dict[str, np.ndarray]) -> None:
        """Adds a step to the episode, which begins with the frame `before` its first one."""
        if self._recorder is None:
            self._recorder = EpisodeRecorder(self._writer, self._name(self._attempt()), self._player, before)
        try:
            self._recorder.add(action, self.frame)
        except BaseException:
            self._recorder = None  # the next step begins a new episode, if it can
            raise

    def _end_episode(self) -> None:
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            recorder.finish()

    def _task(self) -> ChecklistTask | None:
        return None if self.checklist is None else self.checklist.current

    def _attempt(self) -> int:
        """Number of the episode under way, or of the next one: the first that no finished episode has."""
        number = 1
        while self._writer.has(self._name(number)):
            number += 1
        return number

    def _name(self, attempt: int) -> str:
        """Of an episode: the place and name of its task and the attempt, or a number."""
        task = self._task()
        if task is None or self.checklist is None:
            return f"{attempt:06d}"
        return f"{self.checklist.tasks.index(task) + 1:02d}-{task.name}-{attempt}"
