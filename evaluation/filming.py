"""Films of played episodes, encoded while they are played: memory does not grow with an episode."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from reverie.data.actions import ActionSpace
from reverie.data.files.durable import PARTIAL
from reverie.environments.vector import EpisodeResult
from reverie.evaluation.pictures import above, enlarge, label
from reverie.evaluation.report import Media
from reverie.evaluation.video import VIDEO_SIDE, Reel, action_text


class EpisodeFilms:
    """A `Watcher` that films the first episodes of a player: below each frame the action taken there and the tasks so far.

    Args:
      folder: of the report's media.
      player: who plays, the beginning of the files' names.
      count: episodes 0 .. count - 1 are filmed.
      space: of the actions.
      fps: of the game.
    """

    def __init__(self, folder: Path, player: str, count: int, space: ActionSpace, fps: float) -> None:
        self._folder, self._player, self._count = folder, player, count
        self._space, self._fps = space, fps
        self._reels: dict[int, Reel] = {}
        self._finished: dict[int, Media] = {}

    def acted(self, result: EpisodeResult, frame: np.ndarray, action: Mapping[str, np.ndarray]) -> None:
        """Adds a frame."""
        if result.number < self._count:
            self._add(result, frame, f"step {result.steps}: {action_text(self._space, action)}")

    def ended(self, result: EpisodeResult, frame: np.ndarray) -> None:
        """Adds the last frame; the film is there."""
        if result.number < self._count:
            self._add(result, frame, f"end, return {result.episode_return:.2f}")
            path = self._path(result)
            self._reels.pop(result.number).finish()
            os.replace(self._partial(result), path)
            self._finished[result.number] = Media.stored(path, _caption(result))

    def crashed(self, result: EpisodeResult) -> None:
        """Forgets the film so far."""
        if reel := self._reels.pop(result.number, None):
            reel.close()
            self._partial(result).unlink(missing_ok=True)

    def media(self) -> list[Media]:
        """The finished films, in the order of the episodes."""
        return [self._finished[number] for number in sorted(self._finished)]

    def _add(self, result: EpisodeResult, frame: np.ndarray, text: str) -> None:
        if result.number not in self._reels:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._reels[result.number] = Reel(self._partial(result), self._fps)
        picture = enlarge(frame[None], 2 * VIDEO_SIDE)[0]
        width, done = picture.shape[1], ", ".join(result.events) or "no task yet"
        self._reels[result.number].add(above([picture, label(text, width), label(done, width)], gap=0))

    def _path(self, result: EpisodeResult) -> Path:
        return self._folder / f"{self._player}-{result.number}.mp4"

    def _partial(self, result: EpisodeResult) -> Path:
        return self._folder / f"{PARTIAL}{self._path(result).name}"


def _caption(result: EpisodeResult) -> str:
    done = ", ".join(result.events) or "no task accomplished"
    return f"{result.steps} steps, return {result.episode_return:.2f}: {done}"
