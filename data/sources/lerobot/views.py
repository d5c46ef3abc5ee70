"""The pictures of an episode from cameras that are no single video: inside the rows, or several side by side."""

import math
from collections.abc import Callable, Generator
from functools import partial
from typing import Any

import numpy as np

from reverie.data.errors import UserError
from reverie.data.sources.images.stills import decoded
from reverie.data.sources.lerobot import rows as lerobot_rows
from reverie.data.sources.lerobot.dataset import LeRobotDataset
from reverie.data.sources.lerobot.meta import AGAIN, LeRobotEpisode, View
from reverie.data.video.display import Display
from reverie.data.video.resize import fit
from reverie.data.video.sequence import PictureSequence
from reverie.data.video.shown import ShownSpan

Pictures = Generator[np.ndarray | None, None, None]


def view_sequence(dataset: LeRobotDataset, episode: LeRobotEpisode, rows: Any) -> PictureSequence:
    """One picture for each row: that of the camera, or of all chosen ones in a grid, row by row.

    Each cell has the size of the largest camera; smaller pictures are scaled to it, with black bars where shapes differ.
    Raises `UserError` when a camera lacks frames.
    """
    readers = [_reader(dataset, episode, view, rows) for view in episode.views]
    read = readers[0] if len(readers) == 1 else partial(_tiled, readers)
    return PictureSequence.steady(episode.video, read, episode.n, dataset.fps)


def grid(count: int) -> tuple[int, int]:
    """Rows and columns of a grid of `count` pictures, at least as wide as high."""
    across = math.ceil(math.sqrt(count))
    return math.ceil(count / across), across


def _reader(
    dataset: LeRobotDataset, episode: LeRobotEpisode, view: View, rows: Any
) -> Callable[[], Pictures]:
    if view.is_video:
        _, pts = lerobot_rows.find_frames(dataset, episode, view, rows)
        return partial(_of_video, view, pts)
    return partial(_of_rows, dataset, episode, view.camera)


def _of_video(view: View, pts: np.ndarray) -> Pictures:
    """One picture for each of `pts`, None for those that are damaged or missing."""
    display, place = Display(), 0
    for shown in ShownSpan(view.video, pts):
        while place < shown.place:
            yield None
            place += 1
        yield display.picture(shown.frame) if shown.is_good else None
        place += 1


def _of_rows(dataset: LeRobotDataset, episode: LeRobotEpisode, camera: str) -> Pictures:
    encoded = lerobot_rows.read_encoded(dataset, episode, camera)
    if len(encoded) != episode.n:
        raise UserError(
            f"{episode.rows}: has {len(encoded)} pictures of {episode.name}, not {episode.n}; {AGAIN}."
        )
    for content in encoded:
        yield None if content is None else decoded(content)


def _tiled(readers: list[Callable[[], Pictures]]) -> Pictures:
    """The pictures of all cameras in one; None where one of them lacks its own."""
    streams = [reader() for reader in readers]
    size: tuple[int, int] | None = None
    try:
        for pictures in zip(*streams):
            found = [picture for picture in pictures if picture is not None]
            if len(found) < len(pictures):
                yield None
                continue
            if size is None:
                size = (max(p.shape[0] for p in found), max(p.shape[1] for p in found))
            yield tile(found, size)
    finally:
        for stream in streams:
            stream.close()


def tile(pictures: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """(rows * H, columns * W, 3) of pictures (h, w, 3), each in a cell of `size` (H, W); cells left over are black."""
    down, across = grid(len(pictures))
    whole = np.zeros((down * size[0], across * size[1], 3), np.uint8)
    for number, picture in enumerate(pictures):
        top, left = number // across * size[0], number % across * size[1]
        whole[top : top + size[0], left : left + size[1]] = fit(picture[None], size, "pad", None)[0]
    return whole
