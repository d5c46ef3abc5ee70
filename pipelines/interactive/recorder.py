"""Records what is played, one episode at a time, while it is played: in the form of `reverie record`, and as a film to watch."""

import queue
import threading
from collections.abc import Generator
from pathlib import Path

import numpy as np

from reverie.data.actions import ActionSpace
from reverie.data.files.durable import explain_full_disk
from reverie.data.sources.episodes import EpisodeSteps, EpisodeWriter
from reverie.evaluation.film import Film
from reverie.evaluation.video import action_text

_WAITING = 64
"""Frames that may wait for the encoder; then the player waits."""


class EpisodeRecorder:
    """One episode: `add` each frame with the action taken before it, then `finish`.

    Encoding happens in a thread of its own. An episode exists only once it is finished.
    """

    def __init__(self, writer: EpisodeWriter, name: str, player: str, first: np.ndarray) -> None:
        self.name = name
        self._writer, self._player = writer, player
        self._space: ActionSpace = writer.recording.action_space
        self._frames: queue.Queue[np.ndarray | None] = queue.Queue(_WAITING)
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
        self._actions.append(action)
        self._put(frame)

    def finish(self) -> None:
        """Ends the episode. Raises `UserError` where it could not be written."""
        self._put(None)
        self._thread.join()
        self._raise()

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
