"""Videos made by ffmpeg's command line, each frame of which carries its own number, and what that command line shows of them."""

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

BITS, HEIGHT, WIDTH = 12, 64, 96

needs_ffmpeg = pytest.mark.skipif(
    shutil.which("ffmpeg") is None or shutil.which("ffprobe") is None,
    reason="ffmpeg's command line is not installed (apt-get install ffmpeg)",
)


def pictures(n: int, first: int = 0, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """(n, height, width, 3) uint8: the number as blocks along the top, colours that tell the corners apart, a moving block."""
    y, x = np.mgrid[:height, :width]
    frames = np.zeros((n, height, width, 3), np.uint8)
    block = height // 4
    for number, frame in enumerate(frames, first):
        frame[..., 0], frame[..., 1], frame[..., 2] = (
            40 + 150 * x / width,
            40 + 150 * y / height,
            60 + number * 5 % 120,
        )
        left = number * 3 % (width - width // 8)
        frame[height // 2 : height // 2 + height // 6, left : left + width // 8] = (220, 40, 30)
        frame[-height // 6 :, : width // 6] = (30, 200, 40)
        frame[:block] = 0
        for bit in range(BITS):
            if number >> bit & 1:
                frame[:block, bit * width // BITS : (bit + 1) * width // BITS] = 255
    return frames


def numbers(frames: np.ndarray) -> list[int]:
    """What the blocks of (n, h, w, 3) frames say."""
    width = frames.shape[2]
    row = frames[:, frames.shape[1] // 8]
    bits = [row[:, int((bit + 0.5) * width / BITS)].mean(-1) > 127 for bit in range(BITS)]
    return [int(number) for number in sum(bit.astype(int) << place for place, bit in enumerate(bits))]


def ffmpeg(*arguments: Any, content: bytes | None = None) -> bytes:
    """Runs the command line; returns what it wrote."""
    command = ["ffmpeg", "-v", "error", "-y", "-threads", "1", *map(str, arguments)]
    return subprocess.run(command, input=content, check=True, capture_output=True).stdout


def encode(
    path: Path, frames: np.ndarray, arguments: Sequence[Any] = (), fps: Any = 30, before: Sequence[Any] = ()
) -> Path:
    """Frames at a constant rate, by the command line."""
    size = f"{frames.shape[2]}x{frames.shape[1]}"
    source = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", fps, *before, "-i", "-")
    ffmpeg(*source, *arguments, path, content=frames.tobytes())
    return path


def with_times(source: Path, target: Path, seconds: Sequence[float], **options: str) -> Path:
    """The packets of `source`, which has no B-frames, at other times; without decoding."""
    with av.open(str(source)) as there, av.open(str(target), "w", options=options) as here:
        stream = here.add_stream_from_template(there.streams.video[0])
        packets = [packet for packet in there.demux(video=0) if packet.size]
        unit = Fraction(1, 16000)
        for packet, time in zip(packets, seconds, strict=True):
            packet.stream, packet.time_base = stream, unit
            packet.pts = packet.dts = round(time / unit)
            packet.duration = 0
            here.mux(packet)
    return target


@dataclass(frozen=True)
class Reference:
    """What ffmpeg's command line shows.

    frames   (n, h, w, 3) uint8, turned upright
    seconds  (n,) when; nan where it does not know
    """

    frames: np.ndarray
    seconds: np.ndarray


def reference(path: Path) -> Reference:
    """Decodes with the command line: all frames, none repeated or left out, upright."""
    try:
        ppm = ffmpeg("-i", path, "-fps_mode", "passthrough", "-f", "image2pipe", "-c:v", "ppm", "-")
    except subprocess.CalledProcessError:  # it does not like to show nothing
        return Reference(np.zeros((0, 0, 0, 3), np.uint8), np.zeros(0))
    frames, at = [], 0
    while at < len(ppm):
        end = ppm.index(b"255\n", at) + 4
        width, height = map(int, ppm[at:end].split()[1:3])
        size = width * height * 3
        frames.append(np.frombuffer(ppm, np.uint8, size, end).reshape(height, width, 3))
        at = end + size
    told = _probe(path, "frame=best_effort_timestamp_time")["frames"]
    seconds = np.array([float(frame.get("best_effort_timestamp_time", "nan")) for frame in told])
    kept = ~np.isin(seconds, _discarded(path))
    return Reference(np.array(frames)[kept], seconds[kept])


def _discarded(path: Path) -> list[float]:
    """Times of packets that an edit list hides. FFmpeg 5 still shows those of some codecs (mjpeg, av1), later ones do not."""
    packets = _probe(path, "packet=pts_time,flags")["packets"]
    return [float(p["pts_time"]) for p in packets if "D" in p["flags"] and "pts_time" in p]


def _probe(path: Path, entries: str) -> dict[str, Any]:
    command = ["ffprobe", "-v", "error", "-threads", "1", "-select_streams", "v", "-show_entries", entries]
    done = subprocess.run([*command, "-of", "json", str(path)], check=True, capture_output=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found
