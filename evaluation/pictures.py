"""Frames as pictures: enlarged without blur, put side by side, labelled."""

import io
from collections.abc import Sequence
from functools import cache

import numpy as np
from einops import reduce
from PIL import Image, ImageDraw, ImageFont

INK, PAPER = (38, 42, 51), (255, 255, 255)
GIVEN, PREDICTED = (120, 130, 146), (217, 119, 6)
"""Frame borders: seen by the model, and made by it."""
TEXT_HEIGHT = 26


def enlarge(frames: np.ndarray, side: int) -> np.ndarray:
    """(N, H, W, 3) uint8 with each pixel repeated so that the shorter edge has about `side` pixels.

    In frames much larger than that, blocks of pixels are averaged instead.
    """
    shorter = min(frames.shape[1:3])
    if shorter > side:
        return _averaged(frames, round(shorter / side))
    factor = round(side / shorter)
    return frames.repeat(factor, axis=1).repeat(factor, axis=2)


def bordered(image: np.ndarray, colour: tuple[int, int, int], width: int = 3) -> np.ndarray:
    """(H, W, 3) uint8 inside a coloured edge."""
    height, length = image.shape[:2]
    framed = np.empty((height + 2 * width, length + 2 * width, 3), np.uint8)
    framed[:] = colour
    framed[width:-width, width:-width] = image
    return framed


def label(text: str, width: int, height: int = TEXT_HEIGHT) -> np.ndarray:
    """(height, width, 3) uint8 with `text` in the middle, cut where it does not fit."""
    image = Image.new("RGB", (width, height), PAPER)
    ImageDraw.Draw(image).text((width / 2, height / 2), text, fill=INK, font=_font(), anchor="mm")
    return np.asarray(image)


def beside(images: Sequence[np.ndarray], gap: int = 6) -> np.ndarray:
    """Images (H, W_i, 3) uint8 of one height in a row."""
    return np.concatenate(_with_gaps(images, gap, axis=1), axis=1)


def above(images: Sequence[np.ndarray], gap: int = 6) -> np.ndarray:
    """Images (H_i, W, 3) uint8 of one width in a column."""
    return np.concatenate(_with_gaps(images, gap, axis=0), axis=0)


def png(image: np.ndarray) -> bytes:
    """(H, W, 3) uint8 as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _averaged(frames: np.ndarray, block: int) -> np.ndarray:
    height, width = (size // block * block for size in frames.shape[1:3])
    whole = frames[:, :height, :width].astype(np.float32)
    means = reduce(whole, "n (h p) (w q) c -> n h w c", "mean", p=block, q=block)
    return means.round().astype(np.uint8)


def _with_gaps(images: Sequence[np.ndarray], gap: int, axis: int) -> list[np.ndarray]:
    shape = list(images[0].shape)
    shape[axis] = gap
    blank = np.full(shape, 255, np.uint8)
    return [part for image in images for part in (blank, image)][1:]


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(16)
