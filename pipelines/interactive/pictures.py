"""Frames as pictures that a browser shows, and pictures of strangers as frames."""

import io
import warnings

import numpy as np
from PIL import Image, ImageOps

from reverie.data.errors import UserError
from reverie.data.video.resize import fit

MOST_BYTES = 4 << 20
"""Of an uploaded file."""
_MOST_PIXELS = 16 << 20
_FORMATS = ("PNG", "JPEG", "WEBP")
_JPEG_QUALITY = 90
_LOSSLESS_HEIGHT = 128


def encoded(frame: np.ndarray) -> bytes:
    """(H, W, 3) uint8 as PNG if it is small, since every pixel counts there, else as JPEG."""
    buffer = io.BytesIO()
    if frame.shape[0] <= _LOSSLESS_HEIGHT:
        Image.fromarray(frame).save(buffer, "PNG", compress_level=1)
    else:
        Image.fromarray(frame).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()


def as_png(frame: np.ndarray) -> bytes:
    """(H, W, 3) uint8, without loss."""
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def decoded(content: bytes, size: tuple[int, int]) -> np.ndarray:
    """A PNG, JPEG or WebP file as a frame (H, W, 3) uint8 that fills `size`; what hangs over is cut.

    The size is read before anything is decoded. Raises `UserError` for what is no such picture, or too large.
    """
    if len(content) > MOST_BYTES:
        raise UserError(f"picture: has {len(content)} bytes; give one of at most {MOST_BYTES}.")
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(content), formats=_FORMATS) as picture:
            warnings.simplefilter("ignore")
            width, height = picture.size
            if width * height > _MOST_PIXELS or max(width, height) > 64 * min(width, height):
                raise UserError(f"picture: is {width} x {height}; give one of at most 16 megapixels.")
            picture.draft("RGB", (2 * size[1], 2 * size[0]))
            upright = ImageOps.exif_transpose(picture.convert("RGB"))
    except UserError:
        raise
    except Exception as error:  # decoders raise whatever they like on damaged files
        raise UserError(f"picture: cannot be read ({' '.join(str(error).split())[:200]}).") from None
    return fit(np.array(upright)[None], size, "crop")[0]
