"""Episodes as arrays, for tests that look at all frames."""

import numpy as np

from reverie.data.sources.episodes import EpisodeSteps
from reverie.environments.play import Playing


def whole(episode: Playing) -> tuple[np.ndarray, EpisodeSteps]:
    """The frames (N, H, W, 3) uint8 of an episode that is played to its end, and its log."""
    frames: list[np.ndarray] = []
    while True:
        try:
            frames.append(next(episode))
        except StopIteration as end:
            return np.stack(frames), end.value
