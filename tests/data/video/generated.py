"""Videos of every kind, drawn by a seed: container, codec, keyframes, B-frames, times, orientation, trimming, pixel aspect."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.data.video.made import encode, ffmpeg, pictures, with_times

CODECS: dict[str, tuple[str, ...]] = {
    "mp4": ("h264", "hevc", "vp9", "av1", "mpeg4", "mjpeg"),
    "mkv": ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mjpeg", "ffv1"),
    "webm": ("vp8", "vp9", "av1"),
    "avi": ("h264", "mpeg4", "mjpeg", "ffv1"),
    "mov": ("h264", "hevc", "mpeg4", "mjpeg"),
    "ts": ("h264", "hevc", "mpeg2"),
    "flv": ("h264", "flv1"),
    "gif": ("gif",),
}
ENCODERS = {
    "h264": ("libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"),
    "hevc": ("libx265", "-preset", "ultrafast", "-pix_fmt", "yuv420p"),
    "vp8": ("libvpx", "-deadline", "realtime", "-cpu-used", "8", "-b:v", "400k"),
    "vp9": ("libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-b:v", "400k"),
    "av1": ("libsvtav1", "-preset", "12"),
    "mpeg4": ("mpeg4", "-q:v", "3"),
    "mjpeg": ("mjpeg", "-q:v", "3", "-pix_fmt", "yuvj420p"),
    "ffv1": ("ffv1", "-level", "3"),
    "mpeg2": ("mpeg2video", "-q:v", "3"),
    "flv1": ("flv1", "-q:v", "3"),
    "gif": ("gif",),
}
REORDERS = {"h264", "hevc", "mpeg4", "mpeg2"}
RATES = {
    "constant": "N/30/TB",
    "ntsc": "N*1001/30000/TB",
    "variable": "(N+0.4*sin(N*N))/25/TB",
    "sparse": "floor(N*N/11+N)/30/TB",
    "gaps": "(N/30+5*gte(N\\,9)+90*gte(N\\,20))/TB",
    "late": "(N/25+3.7)/TB",
    "equal": "N/30/TB",
}
TURNS = [
    (1, 0, 0, 1),
    (-1, 0, 0, 1),
    (1, 0, 0, -1),
    (-1, 0, 0, -1),
    (0, 1, 1, 0),
    (0, -1, 1, 0),
    (0, 1, -1, 0),
    (0, -1, -1, 0),
]
"""Display matrices (a, b, c, d): all ways to lay a picture down."""
N = 36


@dataclass(frozen=True)
class Kind:
    """What is drawn for one video."""

    container: str
    codec: str
    keyframes: int
    b_frames: int
    rate: str
    turn: tuple[int, int, int, int]
    trim: tuple[float, float] | None
    aspect: str


def draw(seed: int) -> Kind:
    """The `seed`-th video."""
    rng = np.random.default_rng(seed)
    container = list(CODECS)[seed % len(CODECS)]
    codec = str(rng.choice(CODECS[container]))
    b_frames = int(rng.choice([0, 0, 2, 3])) if codec in REORDERS else 0
    rate = str(rng.choice(list(RATES)))
    if rate == "equal" and (container != "mkv" or b_frames or codec == "av1"):
        rate = "constant"
    if codec in ("mpeg4", "mpeg2", "flv1") or container == "avi":  # their clocks count frames
        rate = "constant"
    turn = TURNS[rng.integers(8)] if container in ("mp4", "mov") else TURNS[0]
    trim = (float(rng.uniform(0.1, 0.5)), float(rng.uniform(0.5, 0.9))) if rng.random() < 0.4 else None
    tells_aspect = container not in ("gif", "flv", "avi", "webm") and codec != "mpeg2" and rate != "equal"
    aspect = str(rng.choice(["1", "1", "4/3", "8/9"])) if tells_aspect else "1"
    return Kind(container, codec, int(rng.choice([1, 5, 12, 250])), b_frames, rate, turn, trim, aspect)


def make(kind: Kind, folder: Path) -> Path:
    """Writes the video."""
    path = folder / f"video.{kind.container}"
    arguments = [
        "-vf",
        f"settb=1/16000,setpts={RATES[kind.rate]},setsar={kind.aspect}",
        "-fps_mode",
        "passthrough",
    ]
    arguments += ["-c:v", *ENCODERS[kind.codec], *_structure(kind)]
    if kind.container == "gif":
        arguments[1] += ",split[a][b];[a]palettegen[p];[b][p]paletteuse"
    if kind.container not in ("avi", "gif", "flv") and kind.codec not in ("mpeg4", "mpeg2", "flv1"):
        arguments += ["-enc_time_base", "1/16000"]
    encode(path, pictures(N), arguments)
    if kind.rate == "equal":
        path = _equal(path, folder / "equal.mkv")
    if kind.trim is not None:
        start, length = kind.trim
        cut = folder / f"cut.{kind.container}"
        ffmpeg("-ss", f"{start:.3f}", "-i", path, "-t", f"{length:.3f}", "-c", "copy", cut)
        path = cut
    if kind.turn != TURNS[0]:
        lay_down(path, kind.turn)
    return path


def lay_down(path: Path, turn: tuple[int, int, int, int]) -> None:
    """Writes a display matrix into the track header of an mp4."""
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40
    a, b, c, d = turn
    numbers = [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]
    content[at : at + 36] = np.array(numbers, ">i4").tobytes()
    path.write_bytes(content)


def _structure(kind: Kind) -> list[str]:
    codec, distance = kind.codec, str(kind.keyframes)
    if codec == "hevc":
        bframes = f"bframes={kind.b_frames}:keyint={distance}:log-level=none"
        return ["-x265-params", bframes]
    if codec in ("mjpeg", "gif"):
        return []
    if codec == "ffv1":
        return ["-g", "1"]
    return ["-g", distance, *(["-bf", str(kind.b_frames)] if codec in REORDERS else [])]


def _equal(source: Path, target: Path) -> Path:
    """Some frames get the time of the one before."""
    seconds = np.arange(N) / 30
    seconds[[8, 20, 21]] = seconds[[7, 19, 19]]
    return with_times(source, target, seconds.tolist())


def has_encoders() -> bool:
    """Whether the command line has all that is needed."""
    listed = subprocess.run(["ffmpeg", "-hide_banner", "-encoders"], capture_output=True, text=True).stdout
    return all(arguments[0] in listed for arguments in ENCODERS.values())
