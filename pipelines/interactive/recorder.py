"""Records what is played, one episode at a time, while it is played: in the form of `reverie record`, and as a film to watch.

The last frames wait in memory, since they may be undone; older ones go to the encoder, in a thread of its own.
"""

import queue
import shutil
import threading
from collections import deque
from collections.abc import Callable, Generator
from pathlib import Path

import numpy as np

from reverie.data.actions import ActionSpace
from reverie.data.errors import UserError
from reverie.data.files.durable import explain_full_disk
from reverie.data.sources.episodes import EpisodeSteps, EpisodeWriter
from reverie.evaluation.film import Film
from reverie.evaluation.video import action_text

MOST_FRAMES = 20_000
"""Frames of one episode; a longer one goes on as the next."""
_WAITING = 64
"""Frames that may wait for the encoder; then the player waits."""
_LEAST_FREE = 1 << 30
"""Bytes of disk that recordings leave free."""

Taken = tuple[dict[str, np.ndarray], np.ndarray]
"""An action, and the frame that it led to."""


class EpisodeRecorder:
    """One episode: `add` each frame with the action taken before it, then `finish`.

    An episode exists only once it is finished. `undoable`: frames that `back` can take away.
    """

    def __init__(
        self, writer: EpisodeWriter, name: str, player: str, first: np.ndarray, undoable: int = 0
    ) -> None:
        self.name, self.length = name, 0
        self._writer, self._player, self._undoable = writer, player, undoable
        self._space: ActionSpace = writer.recording.action_space
        self._frames: queue.Queue[np.ndarray | None] = queue.Queue(_WAITING)
        self._late: deque[Taken] = deque()
        self._actions: list[dict[str, np.ndarray]] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"record {name}", daemon=True)
        self._thread.start()
        self._put(first)

    @property
    def film(self) -> Path:
        """Where the film will be."""
        return self._writer.folder / "films" / f"{self.name}.mp4"

    def add(self, action: dict[str, np.ndarray], frame: np.ndarray) -> None:
        """`action` was taken and led to `frame` (H, W, 3) uint8. Raises what went wrong with earlier frames."""
        self._late.append((action, frame))
        self.length += 1
        while len(self._late) > self._undoable:
            self._encode_oldest()
        self._raise()

    def back(self, frames: int) -> bool:
        """Takes the last `frames` away; False if the episode does not reach back so far, and nothing was done."""
        if frames > len(self._late):
            return False
        for _ in range(frames):
            self._late.pop()
        self.length -= frames
        return True

    def finish(self) -> None:
        """Ends the episode. Raises `UserError` where it could not be written."""
        while self._late:
            self._encode_oldest()
        self._put(None)
        self._thread.join()
        self._raise()

    def _encode_oldest(self) -> None:
        action, frame = self._late.popleft()
        self._actions.append(action)
        self._put(frame)

    def _put(self, frame: np.ndarray | None) -> None:
        while True:
            self._raise()
            try:
                return self._frames.put(frame, timeout=1.0)
            except queue.Full:
                continue

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        film: Film | None = None
        try:
            with explain_full_disk(self._writer.folder):
                film = Film(self.film, self._writer.recording.fps)
                self._writer.record(self.name, self._episode(film))
                film.finish()
        except BaseException as error:
            self._error = error
            if film is not None:
                film.abandon()

    def _episode(self, film: Film) -> Generator[np.ndarray, None, EpisodeSteps]:
        """Frames as they come; the action that a frame's caption shows was taken on the way to it."""
        count = 0
        while (frame := self._frames.get()) is not None:
            said = action_text(self._space, self._actions[count - 1]) if count else "the last true frame"
            film.add(frame, [f"frame {count}", said])
            yield frame
            count += 1
        taken = [*self._actions, self._space.null_numpy()]
        return EpisodeSteps(
            actions={name: np.stack([action[name] for action in taken]) for name in taken[0]},
            reward=np.zeros(count, np.float32),
            events=np.zeros((count, 0), np.uint8),
            is_terminal=False,
            player=self._player,
            reward_known=False,
        )


class Shelf:
    """Where the episodes of all visitors go, each under a name that no other has.

    Args:
      writer: of the episodes.
      player: who plays, for the records.
      undoable: frames that may be undone.
    """

    def __init__(self, writer: EpisodeWriter, player: str, undoable: int) -> None:
        self._writer, self._player, self._undoable = writer, player, undoable
        self._taken: set[str] = set()
        self._lock = threading.Lock()

    def begin(self, stem: Callable[[int], str], before: np.ndarray) -> EpisodeRecorder:
        """A recorder of the next attempt; `stem` names it by its number. Raises `UserError` on a disk that is nearly full."""
        free = shutil.disk_usage(self._writer.folder).free
        if free < _LEAST_FREE:
            raise UserError(
                f"{self._writer.folder}: has only {free >> 20} MB left; nothing more is recorded."
            )
        with self._lock:
            name = stem(self.attempt(stem))
            self._taken.add(name)
        return EpisodeRecorder(self._writer, name, self._player, before, self._undoable)

    def finish(self, recorder: EpisodeRecorder) -> None:
        """Ends an episode."""
        try:
            recorder.finish()
        finally:
            self._taken.discard(recorder.name)

    def attempt(self, stem: Callable[[int], str]) -> int:
        """Number of the next episode: the first that none has, finished or under way."""
        number = 1
        while stem(number) in self._taken or self._writer.has(stem(number)):
            number += 1
        return number

    def film(self, name: str) -> Path | None:
        """The film of a finished episode of that name, if there is one."""
        return self._writer.folder / "films" / f"{name}.mp4" if self._writer.has(name) else None
