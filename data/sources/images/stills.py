"""Files of pictures to arrays, by Pillow: what is damaged, too large or of another kind is told."""

import io
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from reverie.data.sources.listing import leads_out
from reverie.data.video.source import MOST_PIXELS, VideoError, require_modest

SUFFIXES = {".png": ".png", ".jpg": ".jpg", ".jpeg": ".jpg", ".webp": ".webp", ".bmp": ".bmp"}
"""What is read, and one spelling of it."""
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The picture as a `PIL.Image`, not yet decoded. Raises `VideoError` when it is none, or too large."""
    try:
        with path.open("rb") as file, Image.open(file, formats=_FORMATS) as image:
            require_modest(image.height, image.width, path)
            yield image
    except VideoError:
        raise
    except Exception as error:  # damage raises anything
        detail = " ".join(str(error).split())[:120].replace(str(path), "it") or type(error).__name__
        raise VideoError(f"{path}: cannot be read as a picture ({detail}); remove or replace it.") from None


def pixels(image: Any) -> np.ndarray:
    """(H, W, 3) uint8, upright; grey becomes RGB, 16 bits become the upper 8, transparency is left out."""
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise ValueError("its values are no colours but numbers, as of depths")
    return np.array(ImageOps.exif_transpose(image).convert("RGB"))


def read_stills(paths: Sequence[Path], folder: Path) -> Generator[np.ndarray | None, None, None]:
    """Each picture in turn, None for those that cannot be read or lead out of `folder`."""
    for path in paths:
        try:
            yield None if leads_out(path, folder) or not path.is_file() else read_still(path)
        except VideoError:
            yield None


def read_still(path: Path) -> np.ndarray:
    """(H, W, 3) uint8. Raises `VideoError` when the file is no picture, is damaged or too large."""
    with opened(path) as image:
        return pixels(image)


def decoded(content: bytes) -> np.ndarray | None:
    """(H, W, 3) uint8 of the bytes of a file; None where they are no picture, are damaged, or too large."""
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            return pixels(image) if image.height * image.width <= MOST_PIXELS else None
    except Exception:  # damage raises anything
        return None
