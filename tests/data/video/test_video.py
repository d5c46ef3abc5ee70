import io
from pathlib import Path

import av
import numpy as np
import pytest

from reverie.data.errors import UserError
from reverie.data.video.codec import encode_video, read_frames, storage_quality
from reverie.data.video.decoders import open_video
from reverie.data.video.source import VideoError


def encoded(frames: np.ndarray, fps: float = 20, quality: str = "lossless") -> bytes:
    target = io.BytesIO()
    encode_video(target, frames, fps, quality=quality)  # type: ignore[arg-type]
    return target.getvalue()


def noise(n: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("backend", ["decord", "pyav"])
@pytest.mark.parametrize("size", [(40, 40), (41, 72), (64, 64), (7, 5), (128, 100)])
def test_small_frames_survive_bit_for_bit(backend: str, size: tuple[int, int]) -> None:
    frames = noise(20, *size)
    video = encoded(frames, quality=storage_quality(size[0]))
    indices = [17, 0, 19, 3, 3]
    np.testing.assert_array_equal(read_frames(video, indices, size, backend), frames[indices])  # type: ignore[arg-type]


def test_same_frames_give_the_same_bytes() -> None:
    assert encoded(noise(20, 40, 40)) == encoded(noise(20, 40, 40))


@pytest.mark.parametrize("backend", ["decord", "pyav"])
def test_probe_knows_rate_and_times(backend: str) -> None:
    info = open_video(encoded(noise(30, 64, 64), fps=29.97), backend).probe()  # type: ignore[arg-type]
    assert (len(info), info.height, info.width) == (30, 64, 64)
    assert info.fps == pytest.approx(29.97, abs=1e-3)
    np.testing.assert_allclose(info.timestamps, np.arange(30) / 29.97, atol=1e-4)


def test_pyav_reads_the_widths_that_decord_refuses() -> None:
    target = io.BytesIO()
    with av.open(target, "w", format="mp4") as container:  # 72 pixels unpadded: decord refuses the stride
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 38, 72, "yuv420p"
        for frame in noise(5, 38, 72):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    with pytest.raises(VideoError):
        open_video(target.getvalue(), "decord").read([0])
    assert open_video(target.getvalue()).read([0, 4]).shape == (2, 38, 72, 3)


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [
        ("avi", "libx264"),
        ("mkv", "libx264"),
        ("webm", "libvpx"),
        ("ts", "mpeg2video"),
        ("wmv", "wmv2"),
        ("gif", "gif"),
    ],
)
def test_containers_with_and_without_times(suffix: str, codec: str, tmp_path: Path) -> None:
    path = tmp_path / f"video.{suffix}"
    frames = np.broadcast_to(np.arange(30, dtype=np.uint8)[:, None, None, None] * 8, (30, 64, 128, 3))
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = 64, 128, "rgb8" if codec == "gif" else "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame.copy(), format="rgb24")))
        container.mux(stream.encode(None))
    decoder = open_video(path)
    info = decoder.probe()
    assert len(info) == 30 and info.fps == pytest.approx(25)
    np.testing.assert_allclose(info.timestamps, np.arange(30) / 25, atol=2e-3)
    for indices in ([0, 1, 2, 17], [18, 29], [5, 3, 28]):
        read = decoder.read(indices).mean((1, 2, 3))
        np.testing.assert_allclose(read, np.array(indices) * 8, atol=20 if codec == "gif" else 6)
    decoder.close()


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_backends_agree_on_rotated_phone_videos(degrees: int) -> None:
    target, frames = io.BytesIO(), noise(4, 64, 128)
    with av.open(target, "w", format="mp4") as container:
        stream = container.add_stream("libx264rgb", rate=25, options={"crf": "0"})
        stream.height, stream.width, stream.pix_fmt = 64, 128, "rgb24"
        stream.set_display_rotation(degrees)
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    for backend in ("decord", "pyav"):
        decoder = open_video(target.getvalue(), backend)  # type: ignore[arg-type]
        read, info = decoder.read([2]), decoder.probe()
        np.testing.assert_array_equal(read[0], np.rot90(frames[2], degrees // 90))
        assert read.shape[1:3] == (info.height, info.width)


def test_backends_agree_on_real_clips(minecraft_clips: Path) -> None:
    for path in sorted(minecraft_clips.glob("*.mp4"))[:1]:
        indices = [300, 0, 301, 599]
        by_decord, by_pyav = (read_frames(path, indices, None, name) for name in ("decord", "pyav"))  # type: ignore[arg-type]
        np.testing.assert_array_equal(by_decord, by_pyav)
        assert len(open_video(path, "decord").probe()) == len(open_video(path, "pyav").probe()) == 600


def test_large_frames_are_stored_well(minecraft_clips: Path) -> None:
    frames = read_frames(next(minecraft_clips.glob("*.mp4")), range(16))
    back = read_frames(encoded(frames, quality=storage_quality(360)), range(16), (360, 640))
    assert 10 * np.log10(255**2 / np.square(back.astype(float) - frames).mean()) > 36


def test_errors_name_the_file(tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    with pytest.raises(VideoError, match=r"text\.mp4: cannot be read as video"):
        open_video(text).read([0])
    with pytest.raises(VideoError, match="has 20 frames"):
        open_video(encoded(noise(20, 64, 64)), "pyav").read([20])
    with pytest.raises(UserError, match="without frames"):
        encode_video(tmp_path / "empty.mp4", [], 20, quality="high")
    with pytest.raises(UserError, match="use pyav or decord"):
        open_video(text, "opencv")  # type: ignore[arg-type]


def test_damaged_text_in_a_file_is_no_error(tmp_path: Path) -> None:
    encode_video(tmp_path / "a.mp4", np.zeros((3, 32, 64, 3), np.uint8), 10, quality="lossless")
    content = (tmp_path / "a.mp4").read_bytes()
    assert content.count(b"VideoHandler") == 1
    (tmp_path / "a.mp4").write_bytes(content.replace(b"VideoHandler", b"Video\xe9andler"))
    assert len(open_video(tmp_path / "a.mp4").probe()) == 3


def test_an_unknown_codec_is_one_sentence(tmp_path: Path) -> None:
    encode_video(tmp_path / "a.mp4", np.zeros((3, 32, 64, 3), np.uint8), 10, quality="lossless")
    content = (tmp_path / "a.mp4").read_bytes()
    assert content.count(b"avc1") > 0
    (tmp_path / "a.mp4").write_bytes(content.replace(b"avc1", b"zzzz"))
    with pytest.raises(VideoError, match=r"a\.mp4: has a codec that is not known"):
        open_video(tmp_path / "a.mp4").probe()
