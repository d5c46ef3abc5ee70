"""From a decoded frame to the picture that is seen: turned, mirrored and with square pixels, as the file asks for."""

from typing import Any

import numpy as np
from av.sidedata.sidedata import Type
from av.video.reformatter import VideoReformatter

_MATRIX = 9
"""Numbers of a display matrix, 32 bits each, row by row: (a b u; c d v; x y w)."""


class Display:
    """Turns the frames of one video into pictures; a reformatter is slow to make and good for all of them."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def picture(self, frame: Any) -> np.ndarray:
        """(H, W, 3) uint8, upright; pixels may still not be square, see `displayed_size`."""
        pixels = self._reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
        return upright(pixels, display_matrix(frame))


def display_matrix(frame: Any) -> np.ndarray | None:
    """(3, 3) int32; None where the file has none."""
    for data in frame.side_data:
        if data.type == Type.DISPLAYMATRIX:
            return np.frombuffer(bytes(data), np.int32, _MATRIX).reshape(3, 3)
    return None


def upright(pixels: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
    """(H, W, 3) or (W, H, 3) from (H, W, 3): the nearest of the eight ways to lay a picture down; a view.

    A point (p, q), to the right and down, is shown at (a p + c q, b p + d q).
    """
    if matrix is None:
        return pixels
    (a, b), (c, d) = matrix[:2, :2].astype(np.int64)
    if lies_on_side(matrix):
        pixels, right, down = pixels.swapaxes(0, 1), c, b
    else:
        right, down = a, d
    return pixels[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1]


def lies_on_side(matrix: np.ndarray | None) -> bool:
    """Whether width and height change places."""
    if matrix is None:
        return False
    turn = np.abs(matrix[:2, :2].astype(np.int64))
    return bool(turn[0, 1] + turn[1, 0] > turn[0, 0] + turn[1, 1])


def displayed_size(height: int, width: int, aspect: float) -> tuple[int, int]:
    """Height and width with square pixels, of a picture whose pixels are `aspect` times as wide as high; none is lost."""
    if aspect >= 1:
        return height, max(1, round(width * aspect))
    return max(1, round(height / aspect)), width
