"""Whatever a game draws, as one picture (H, W, 3) uint8: converted exactly, or refused with what was seen.

| drawn                                    | becomes                                                                    |
|------------------------------------------|----------------------------------------------------------------------------|
| (H, W), (H, W, 1), (H, W, 3), (H, W, 4)  | gray three times; RGB; RGB without its alpha                               |
| (3, H, W), (1, H, W)                     | channels last, where the last axis cannot be channels                      |
| a list or batch of one; tensors; PIL     | the one inside; its numbers                                                |
| uint8, other whole numbers 0 .. 255      | as they are                                                                |
| bool                                     | 0 and 255                                                                  |
| float                                    | times 255 where the game's first picture that is not black stays up to 1   |
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from reverie.data.errors import UserError

_CHANNELS = (1, 3, 4)
_ROUNDING = 1e-3
"""Floats in [0, 1] may lie so far beyond their ends."""
_LARGEST_SIDE = 16384


class NoPicture(UserError):
    """What was drawn shows nothing at all; a game that drew before has failed."""


class Pictures:
    """The pictures of one game. What its numbers mean is settled by the first one that is not black.

    Args:
      place: names the game in errors.
      drawn_range: (low, high) that stand for black and white, where the game's numbers do not tell; values beyond are clipped.
    """

    def __init__(self, place: str, drawn_range: Sequence[float] | None = None) -> None:
        self._place = place
        self._range = _checked_range(drawn_range, place)
        self._white: float | None = None

    def convert(self, drawn: Any) -> np.ndarray:
        """(H, W, 3) uint8, of memory of its own. Raises `UserError` for what is no picture, or another kind than before."""
        values = self._array(drawn)
        image = self._channels_last(values)
        if image.size == 0 or max(image.shape[:2]) > _LARGEST_SIDE:
            raise self._refused(values, f"a side of 1 to {_LARGEST_SIDE} pixels is needed")
        bytes_ = self._bytes(image, values)
        return np.array(np.broadcast_to(bytes_, (*bytes_.shape[:2], 3)))

    def _array(self, drawn: Any) -> np.ndarray:
        if isinstance(drawn, (list, tuple)) and len(drawn) == 1:
            return self._array(drawn[0])
        if drawn is None:
            raise NoPicture(
                f"{self._place}: draws nothing in the render mode 'rgb_array'; if its observation is the picture, give the "
                f"option picture: observation."
            )
        if hasattr(drawn, "detach"):
            drawn = drawn.detach().cpu()
            drawn = drawn.float().numpy() if "bfloat16" in str(drawn.dtype) else drawn.numpy()
        if hasattr(drawn, "getbands"):  # PIL, whose palettes and masks are not pixels
            drawn = drawn.convert("RGB")
        try:
            values = np.asarray(drawn)
        except Exception:
            values = np.asarray(None)
        if values.dtype.kind not in "buif":
            raise NoPicture(f"{self._place}: draws {_words(drawn)}, which is no picture of numbers.")
        return values[0] if values.ndim == 4 and len(values) == 1 else values

    def _channels_last(self, values: np.ndarray) -> np.ndarray:
        """(H, W, 1 or 3)."""
        if values.ndim == 2:
            return values[..., None]
        if values.ndim != 3:
            raise self._refused(values, "a picture has 2 or 3 axes")
        first, last = values.shape[0], values.shape[2]
        if last == 3 or (last in _CHANNELS and first not in _CHANNELS):
            if last == 4 and np.ptp(values[..., 3].astype(np.float64)) > 0:
                raise self._refused(
                    values, "the fourth channel varies: this is transparent, or four gray pictures"
                )
            return values[..., :3]
        if last in _CHANNELS:
            raise self._refused(values, "channels may come first or last")
        if first in (1, 3):
            return values.transpose(1, 2, 0)
        if first == 4:
            raise self._refused(values, "this may be RGBA or four gray pictures")
        raise self._refused(values, "no axis has 1, 3 or 4 channels")

    def _bytes(self, image: np.ndarray, seen: np.ndarray) -> np.ndarray:
        if not np.isfinite(image).all():
            raise NoPicture(str(self._refused(seen, "numbers must be finite")))
        if self._range is not None:
            low, high = self._range
            unit = (image.astype(np.float64) - low) / (high - low)
            return np.rint(unit.clip(0, 1) * 255).astype(np.uint8)
        if image.dtype == np.bool_:
            return image.astype(np.uint8) * np.uint8(255)
        low, high = float(image.min()), float(image.max())
        self._settle(image, high, seen)
        white = self._white or 255.0
        slack = _ROUNDING * white if image.dtype.kind == "f" else 0.0
        if low < -slack or high > white + slack:
            hint = "they went up to 1 before" if white == 1 else "they should lie in [0, 1] or [0, 255]"
            raise self._refused(seen, f"{hint}; give the option drawn_range: [black, white]")
        if image.dtype == np.uint8:
            return image
        return np.rint(image.astype(np.float64) * (255 / white)).clip(0, 255).astype(np.uint8)

    def _settle(self, image: np.ndarray, high: float, seen: np.ndarray) -> None:
        """What stands for white, once a picture is not black."""
        if self._white is not None or high <= 0:
            return
        if high > 1 + _ROUNDING:
            self._white = 255.0
        elif image.dtype.kind == "f":
            self._white = 1.0
        else:
            raise self._refused(
                seen,
                "whole numbers up to 1 may be a mask or nearly black; give the option drawn_range: [black, white]",
            )

    def _refused(self, values: np.ndarray, why: str) -> UserError:
        finite = values[np.isfinite(values)]
        span = f"numbers from {finite.min():g} to {finite.max():g}" if finite.size else "no finite numbers"
        return UserError(f"{self._place}: draws {values.dtype} of shape {values.shape} with {span}; {why}.")


def _checked_range(drawn_range: Sequence[float] | None, place: str) -> tuple[float, float] | None:
    if drawn_range is None:
        return None
    try:
        low, high = (float(bound) for bound in drawn_range)
    except (TypeError, ValueError):
        low = high = np.nan
    if not (np.isfinite([low, high]).all() and low != high):
        raise UserError(
            f"{place}: drawn_range must be [black, white], two different numbers, got {drawn_range!r}."
        )
    return low, high


def _words(drawn: Any) -> str:
    kind = type(drawn).__name__
    return f"a {kind} of {len(drawn)}" if isinstance(drawn, (list, tuple, dict, str)) else f"a {kind}"
