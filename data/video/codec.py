"""Frames to video bytes and back.

Clips are H.264 in mp4, padded by repeating the edge to a width multiple of 64 (see `data.video.decoders`) and an
even height; whoever stores a clip keeps its true size beside it and `read_frames` crops to that. Small frames
are stored without loss: in pixel art every pixel carries meaning.
"""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, Literal

import av
import numpy as np

from reverie.data.errors import UserError
from reverie.data.video.decoders import Backend, open_video
from reverie.data.video.source import VideoSource

Quality = Literal["lossless", "high", "standard"]

LOSSLESS_HEIGHT = 128
"""Frames up to this height are stored without loss."""
GOP = 16
"""Frames from keyframe to keyframe: reading a random window decodes at most this many frames too many."""

_REPRODUCIBLE = "no-mbtree=1"
"""x264's macroblock tree reads memory that nobody wrote, so the bytes, and decoded pixels by up to 18, would differ from run
to run. Without it frames of 200x320 take 14 % more bytes at the same PSNR, of 360x640 lose 0.35 dB at the same size; turning
the lookahead off gives the same pictures, at the same cost."""

# quality -> (codec, pixel format, constant rate factor). RGB at factor 0 is bit-exact through both decoders.
_CODECS: dict[str, tuple[str, str, str]] = {
    "lossless": ("libx264rgb", "rgb24", "0"),
    "high": ("libx264", "yuv420p", "18"),
    "standard": ("libx264", "yuv420p", "23"),
}


def storage_quality(height: int) -> Quality:
    """Lossless for frames up to `LOSSLESS_HEIGHT`, high above."""
    return "lossless" if height <= LOSSLESS_HEIGHT else "high"


def encode_video(
    target: Path | BinaryIO,
    frames: np.ndarray | Iterable[np.ndarray],
    fps: float,
    *,
    quality: Quality,
    gop: int = GOP,
    multiple: tuple[int, int] = (2, 64),
) -> None:
    """Writes frames as H.264 in mp4: a keyframe every `gop` frames, no B-frames, the same bytes every time.

    Args:
        target: a path, or a writable and seekable binary file.
        frames: (N, H, W, 3) uint8, or any iterable of (H, W, 3) uint8 frames of one size.
        fps: frames a second.
        quality: see `storage_quality`; "lossless" is bit-exact.
        gop: frames from keyframe to keyframe.
        multiple: height and width are padded to multiples of these, for decord; 4:2:0 needs even ones.

    Raises:
        UserError: there are no frames.
    """
    with VideoWriter(target, fps, quality=quality, gop=gop, multiple=multiple) as writer:
        for frame in frames:
            writer.add(frame)
    if not writer.num_frames:
        raise UserError(f"{target}: cannot write a video without frames; give at least one.")


class VideoWriter:
    """Writes a video frame by frame, in constant memory; arguments as in `encode_video`. A context manager."""

    def __init__(
        self,
        target: Path | BinaryIO,
        fps: float,
        *,
        quality: Quality,
        gop: int = GOP,
        multiple: tuple[int, int] = (2, 64),
    ) -> None:
        self.num_frames = 0
        self._codec, self._pixel_format, self._factor = _CODECS[quality]
        self._rate, self._gop, self._multiple = Fraction(fps).limit_denominator(100_000), gop, multiple
        self._container = av.open(str(target) if isinstance(target, Path) else target, "w", format="mp4")
        self._stream: Any = None

    def add(self, frame: np.ndarray) -> None:
        """Appends one frame (H, W, 3) uint8, of the same size as all others."""
        padded = _pad(frame, self._multiple)
        if self._stream is None:
            self._stream = self._open_stream(padded)
        image = av.VideoFrame.from_ndarray(padded, format="rgb24")
        self._container.mux(self._stream.encode(image))
        self.num_frames += 1

    def close(self) -> None:
        """Ends the video; without frames there is none."""
        if self._stream is not None:
            self._container.mux(self._stream.encode(None))
        self._container.close()

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close()

    def _open_stream(self, frame: np.ndarray) -> Any:
        options = {"crf": self._factor, "preset": "veryfast", "x264-params": _REPRODUCIBLE}
        stream: Any = self._container.add_stream(self._codec, rate=self._rate, options=options)
        stream.height, stream.width = frame.shape[:2]
        stream.pix_fmt = self._pixel_format
        stream.codec_context.gop_size = self._gop
        stream.codec_context.max_b_frames = 0
        stream.codec_context.thread_count = 1  # the bytes must not depend on the machine
        return stream


def read_frames(
    source: VideoSource,
    indices: Sequence[int],
    size: tuple[int, int] | None = None,
    backend: Backend = "pyav",
) -> np.ndarray:
    """(len(indices), H, W, 3) uint8 frames, cropped to the true `size` (H, W) if the file was padded.

    Raises `VideoError` when neither the file nor the frames can be read.
    """
    frames = open_video(source, backend).read(indices)
    return frames if size is None else np.ascontiguousarray(frames[:, : size[0], : size[1]])


def _pad(frame: np.ndarray, multiple: tuple[int, int]) -> np.ndarray:
    height, width = frame.shape[:2]
    bottom, right = -height % multiple[0], -width % multiple[1]
    return np.ascontiguousarray(np.pad(frame, ((0, bottom), (0, right), (0, 0)), mode="edge"))
