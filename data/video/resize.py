"""Frames of any size to the size of the corpus."""

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

ResizeMode = Literal["pad", "crop", "stretch"]

_KEPT, _FILLED, _STRETCHED = 0.9, 0.7, 1.2
"""Share of a picture that is kept, of a frame that is picture, and change of shape: beyond them a user is told."""


def fit(
    frames: np.ndarray, size: tuple[int, int], mode: ResizeMode, displayed: tuple[int, int] | None = None
) -> np.ndarray:
    """Resizes (n, h, w, 3) uint8 to (n, H, W, 3) uint8, bilinear with antialiasing; untouched when it fits.

    mode: "pad" keeps all of the picture and adds black bars, "crop" fills the frame and cuts the overhang on both
    sides, "stretch" changes the aspect ratio.

    displayed: the height and width with square pixels, where those of the frames are not square.
    """
    height, width = displayed or frames.shape[1:3]
    if frames.shape[1:3] == size == (height, width):
        return frames
    if mode == "stretch":
        return _scale(frames, size)
    ratios = size[0] / height, size[1] / width
    ratio = min(ratios) if mode == "pad" else max(ratios)
    scaled = _scale(frames, (max(1, round(height * ratio)), max(1, round(width * ratio))))
    return _centre(scaled, size)


def fitting_note(displayed: tuple[int, int], size: tuple[int, int], mode: ResizeMode) -> str:
    """What is lost when a picture of height and width `displayed` is fitted into `size`; empty where that is little."""
    ratios = size[0] / displayed[0], size[1] / displayed[1]
    share = min(ratios) / max(ratios)  # of the picture that crop keeps, of the frame that pad fills
    shapes = f"{displayed[0]}x{displayed[1]} into {size[0]}x{size[1]}"
    if mode == "crop" and share < _KEPT:
        return f"crop cuts {1 - share:.0%} of each picture away ({shapes}); --mode pad keeps all, or a --size of its shape"
    if mode == "pad" and share < _FILLED:
        return f"{1 - share:.0%} of each frame is black bars ({shapes}); a --size of its shape has none"
    if mode == "stretch" and share * _STRETCHED < 1:
        return f"its shape is changed by a factor of {1 / share:.1f} ({shapes}); --mode pad keeps it, or a --size of its shape"
    return ""


def _scale(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    pixels = torch.from_numpy(frames).movedim(-1, 1)
    scaled = F.interpolate(pixels, size, mode="bilinear", antialias=True)
    return scaled.movedim(1, -1).contiguous().numpy()


def _centre(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pads with black, or cuts, on both sides of each axis."""
    out = np.zeros((len(frames), *size, 3), np.uint8)
    source, target = [slice(None)], [slice(None)]
    for have, want in zip(frames.shape[1:3], size, strict=True):
        shared = min(have, want)
        source.append(slice((have - shared) // 2, (have - shared) // 2 + shared))
        target.append(slice((want - shared) // 2, (want - shared) // 2 + shared))
    out[tuple(target)] = frames[tuple(source)]
    return out
