"""What FFmpeg's command line complains of is not stored as good, and nothing else is left out."""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest

from reverie.data.video.shown import ShownFrames
from tests.data.video.made import encode, ffmpeg, needs_ffmpeg, numbers, pictures, reference

pytestmark = needs_ffmpeg
N = 36
GROUP = ("-g", "12")
HEVC = ("-c:v", "libx265", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-x265-params")
X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", *GROUP)
CODECS = {
    "ffv1.mkv": ("-c:v", "ffv1", "-level", "3", "-g", "1"),
    "ffv1.avi": ("-c:v", "ffv1", "-level", "3", "-g", "1"),
    "hevc.mov": (*HEVC, "keyint=12:bframes=2:log-level=none"),
    "cavlc.mp4": X264,
    "mpeg4.mkv": ("-c:v", "mpeg4", "-q:v", "3", *GROUP),
    "mjpeg.mkv": ("-c:v", "mjpeg", "-q:v", "3", "-pix_fmt", "yuvj420p"),
    "vp8.mkv": ("-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-b:v", "800k", *GROUP),
}


def detailed(n: int) -> np.ndarray:
    """Pictures whose packets are long enough to be hit."""
    frames, rng = pictures(n), np.random.default_rng(0)
    frames[:, 16:] = frames[:, 16:] // 2 + rng.integers(0, 100, frames[:, 16:].shape, np.uint8)
    return frames


def hit(path: Path, seed: int) -> int:
    """Random bytes inside of one packet, not at its ends; returns its number."""
    rng = np.random.default_rng(seed)
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size > 60]
    number, content = int(rng.integers(6, len(packets) - 6)), bytearray(path.read_bytes())
    at = content.index(packets[number]) + int(rng.integers(20, len(packets[number]) - 30))
    content[at : at + 24] = rng.bytes(24)
    path.write_bytes(content)
    return number


def complaints(path: Path) -> str:
    command = ["ffmpeg", "-v", "error", "-threads", "1", "-i", str(path), "-f", "null", "-"]
    return subprocess.run(command, capture_output=True, text=True).stderr


@pytest.mark.parametrize("name", CODECS)
def test_what_the_command_line_complains_of_is_left_out(name: str, tmp_path: Path) -> None:
    whole = encode(tmp_path / name, detailed(N), CODECS[name]).read_bytes()
    for seed in range(6):
        path = tmp_path / f"{seed}{name}"
        path.write_bytes(whole)
        number = hit(path, seed)
        good = [shown.frame.opaque for shown in ShownFrames(path) if shown.is_good]
        assert not complaints(path) or number not in good
        assert len(good) >= N - 24, "at most the group with the damage, and frames before it that build on it"


def test_a_damaged_video_beside_sound_ones(tmp_path: Path) -> None:
    sound = encode(tmp_path / "sound.mkv", detailed(N), CODECS["ffv1.mkv"])
    bad = tmp_path / "bad.mkv"
    bad.write_bytes(sound.read_bytes())
    hit(bad, 0)

    def num_good(path: Path) -> int:
        return sum(shown.is_good for shown in ShownFrames(path))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(num_good, [sound, bad] * 6)) == [N, N - 1] * 6


def test_the_log_is_as_before(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = encode(tmp_path / "a.mkv", detailed(N), CODECS["ffv1.mkv"])
    hit(path, 0)
    before = av.logging.get_level(), av.logging.get_skip_repeated()
    list(ShownFrames(path))
    assert (av.logging.get_level(), av.logging.get_skip_repeated()) == before
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("container", ["mp4", "mkv"])
@pytest.mark.parametrize("codec", ["hevc", "h264"])
def test_a_cut_between_open_groups(codec: str, container: str, tmp_path: Path) -> None:
    """The keyframe's leading pictures build on frames that were cut off: they are no frames, and no damage."""
    structure = "keyint=12:min-keyint=12:bframes=3:b-adapt=0:scenecut=0:open-gop=1"
    arguments = (*HEVC, f"{structure}:log-level=none")
    if codec == "h264":
        arguments = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-x264-params", structure)
    whole = encode(tmp_path / f"whole.{container}", detailed(60), arguments)
    cut = tmp_path / f"cut.{container}"
    ffmpeg("-ss", "0.9", "-i", whole, "-c", "copy", cut)
    shown, wanted = list(ShownFrames(cut)), reference(cut)
    assert len(wanted.frames) > 30 and all(one.is_good for one in shown)
    pixels = np.stack([one.frame.to_ndarray(format="rgb24") for one in shown])
    assert numbers(pixels) == numbers(wanted.frames)
