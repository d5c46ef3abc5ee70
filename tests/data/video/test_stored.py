"""What `prepare` stores of videos that say more than a row of pictures: by the numbers that the frames themselves carry."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from reverie.data.errors import UserError
from reverie.data.shards.index import ShardIndex
from reverie.data.shards.reader import read_clip
from reverie.data.video.shown import ShownFrames
from reverie.pipelines.datasets.prepare import PrepareConfig, prepare
from tests.data.video.generated import TURNS, lay_down
from tests.data.video.made import encode, ffmpeg, needs_ffmpeg, numbers, pictures, reference, with_times

pytestmark = needs_ffmpeg
X264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-preset", "ultrafast", "-threads", "1")


def slow(*values: Any) -> list[Any]:
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


def stored(source: Path, **options: Any) -> dict[str, np.ndarray]:
    """Name of each episode -> its frames."""
    settings = {"validation_fraction": 0, "workers": 1, "quality": "lossless", "clip_length": 16, **options}
    prepare(PrepareConfig(source=source, out=source.parent / "out", **settings))
    index = ShardIndex.load(source.parent / "out")
    return {
        episode.name: np.concatenate([frames_of(index, sample) for sample in episode.samples])
        for split in index.splits
        for episode in index.episodes(split)
    }


def frames_of(index: ShardIndex, sample: Any) -> np.ndarray:
    frames = read_clip(index, sample).frames
    assert frames is not None
    return frames


def notes(source: Path) -> str:
    content = ShardIndex.load(source.parent / "out").content
    return " ".join(entry["note"] for entry in content.get("notes", []))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def write_log(path: Path, n: int) -> None:
    path.write_text("".join(json.dumps({"action/move": i % 5, "reward": i}) + "\n" for i in range(n)))


def logged_rewards(folder: Path) -> dict[str, list[int]]:
    index = ShardIndex.load(folder.parent / "out")
    return {
        episode.name: [int(r) for sample in episode.samples for r in read_clip(index, sample).steps.reward]
        for episode in index.episodes("train")
    }


def test_a_trimmed_mp4_keeps_what_its_edit_list_shows(folder: Path, tmp_path: Path) -> None:
    whole = encode(tmp_path / "whole.mp4", pictures(60), (*X264, "-g", "30", "-bf", "2"))
    ffmpeg("-ss", "0.7", "-i", whole, "-t", "1", "-c", "copy", folder / "cut.mp4")
    wanted = numbers(reference(folder / "cut.mp4").frames)
    assert len(wanted) < 60 and wanted[0] == 21
    write_log(folder / "cut.jsonl", len(wanted))
    assert numbers(stored(folder)["cut"]) == wanted


def test_a_trimmed_mp4_without_a_log_keeps_each_frame_once(folder: Path, tmp_path: Path) -> None:
    """Some of the last frames were cut off with their reference, so their moments are missing."""
    whole = encode(tmp_path / "whole.mp4", pictures(150), (*X264, "-g", "30", "-bf", "2"))
    ffmpeg("-ss", "1.5", "-i", whole, "-t", "2", "-c", "copy", folder / "cut.mp4")
    wanted = numbers(reference(folder / "cut.mp4").frames)
    assert np.diff(wanted).max() > 1
    assert numbers(stored(folder, fps=30)["cut"]) == wanted


def test_a_frame_that_is_missing_in_the_middle_costs_no_time(folder: Path) -> None:
    encode(
        folder / "hole.mkv",
        pictures(40),
        (*X264, "-vf", "select=not(eq(n\\,20))", "-fps_mode", "passthrough"),
    )
    assert numbers(reference(folder / "hole.mkv").frames) == [*range(20), *range(21, 40)]
    assert numbers(stored(folder, fps=30)["hole"]) == [*range(20), 19, *range(21, 40)]


def test_packets_before_the_first_keyframe_show_nothing(folder: Path, tmp_path: Path) -> None:
    whole = encode(tmp_path / "whole.mkv", pictures(60), (*X264, "-g", "20", "-bf", "0"))
    with av.open(str(whole)) as there, av.open(str(folder / "late.mkv"), "w") as here:
        stream = here.add_stream_from_template(there.streams.video[0])
        for number, packet in enumerate(there.demux(video=0)):
            if number >= 7 and packet.size:
                packet.stream = stream
                here.mux(packet)
    wanted = numbers(reference(folder / "late.mkv").frames)
    assert wanted == list(range(20, 60))
    write_log(folder / "late.jsonl", len(wanted))
    assert numbers(stored(folder)["late"]) == wanted


def test_frames_of_vp8_that_are_only_references_are_none(folder: Path) -> None:
    arguments = (
        "-c:v",
        "libvpx",
        "-auto-alt-ref",
        "1",
        "-lag-in-frames",
        "16",
        "-b:v",
        "300k",
        "-threads",
        "1",
    )
    for number in ("1", "2"):  # only the second pass makes them
        passes = ("-pass", number, "-passlogfile", folder.parent / "log")
        path = encode(folder / "a.webm", pictures(50), (*arguments, *passes))
    with av.open(str(path)) as container:
        assert sum(packet.size > 0 for packet in container.demux(video=0)) > 50
    write_log(folder / "a.jsonl", 50)
    assert numbers(stored(folder, decoder="decord")["a"]) == list(range(50))


@pytest.mark.parametrize("name", ["a.264", *slow("a.hevc")])
def test_a_bare_stream_without_times_has_its_rate(folder: Path, name: str) -> None:
    encode(folder / name, pictures(40), ("-pix_fmt", "yuv420p"), fps=20)  # with B-frames
    write_log(folder / "a.jsonl", 40)
    (found,) = stored(folder).values()
    assert numbers(found) == list(range(40)) and ShardIndex.load(folder.parent / "out").fps == 20
    assert logged_rewards(folder)["a"] == list(range(40))


def test_frames_of_one_time_are_different_frames(folder: Path, tmp_path: Path) -> None:
    plain = encode(tmp_path / "plain.mkv", pictures(30), (*X264, "-bf", "0"))
    seconds = np.arange(30) / 30
    seconds[[12, 20]] = seconds[[11, 19]]
    for name in ("logged", "bare"):
        with_times(plain, folder / f"{name}.mkv", seconds.tolist())
    write_log(folder / "logged.jsonl", 30)
    found = stored(folder, fps=30)
    assert {name: numbers(frames) for name, frames in found.items()} == dict.fromkeys(found, list(range(30)))
    assert logged_rewards(folder)["logged"] == list(range(30))


def test_a_moment_shows_the_last_frame_whose_time_has_come(folder: Path, tmp_path: Path) -> None:
    seconds = [0, 0.09, 0.21, 0.3, 0.55, 0.6]
    plain = encode(tmp_path / "plain.mp4", pictures(6), (*X264, "-bf", "0"))
    with_times(plain, folder / "a.mp4", seconds)
    shown = numbers(stored(folder, fps=20)["a"])
    assert shown[:13] == [int(np.searchsorted(seconds, k / 20 + 1e-6, "right")) - 1 for k in range(13)]


def test_a_variable_rate_loses_no_frame_and_says_so(folder: Path, tmp_path: Path) -> None:
    seconds = np.cumsum([0, 1, 3, 1, 5, 1, 1, 8]) / 10
    plain = encode(tmp_path / "plain.mp4", pictures(8), (*X264, "-bf", "0"))
    with_times(plain, folder / "a.mp4", seconds.tolist())
    shown = numbers(stored(folder)["a"])
    assert sorted(set(shown)) == list(range(8)) and shown[:6] == [0, 1, 1, 1, 2, 3]
    assert "stored at 10 Hz, which keeps 100 % of its frames" in notes(folder)


def test_a_rate_that_thins_says_how_much_is_kept(folder: Path, tmp_path: Path) -> None:
    plain = encode(tmp_path / "plain.mp4", pictures(8), (*X264, "-bf", "0"))
    with_times(plain, folder / "a.mp4", (np.cumsum([0, 1, 3, 1, 5, 1, 1, 8]) / 10).tolist())
    kept = len(set(numbers(stored(folder, fps=2)["a"])))
    assert kept < 8 and f"keeps {100 * kept / 8:.1f} % of its frames" in notes(folder)


def test_too_quick_a_variable_rate_asks_for_one(folder: Path, tmp_path: Path) -> None:
    plain = encode(tmp_path / "plain.mp4", pictures(5), (*X264, "-bf", "0"))
    with_times(plain, folder / "a.mp4", [0, 0.131, 0.1325, 0.3, 0.4])
    with pytest.raises(UserError, match=r"a\.mp4: has a variable rate .* choose a rate with --fps"):
        stored(folder)


def test_the_delays_of_a_gif_hold_to_the_last(folder: Path) -> None:
    delays = [0.1, 0.3, 0.1, 0.5, 0.1, 2.0]
    encode_gif(folder / "a.gif", delays)
    wanted = [number for number, delay in enumerate(delays) for _ in range(round(delay * 10))]
    assert numbers(stored(folder)["a"]) == wanted


def test_short_delays_of_a_gif_are_those_of_players(folder: Path) -> None:
    encode_gif(folder / "a.gif", [0.01] * 6)
    assert numbers(stored(folder)["a"]) == list(range(6))
    assert ShardIndex.load(folder.parent / "out").fps == pytest.approx(10)


def encode_gif(path: Path, delays: Sequence[float]) -> None:
    """A gif whose delays are written into its graphic control extensions."""
    encode(path, pictures(len(delays)), ("-vf", "split[a][b];[a]palettegen[p];[b][p]paletteuse"), fps=10)
    content, at = bytearray(path.read_bytes()), 0
    for delay in delays:
        at = content.index(b"\x21\xf9\x04", at) + 4
        content[at : at + 2] = round(delay * 100).to_bytes(2, "little")
    path.write_bytes(content)


def test_a_gap_ends_an_episode_and_costs_nothing(folder: Path, tmp_path: Path) -> None:
    plain = encode(tmp_path / "plain.mp4", pictures(40), (*X264, "-bf", "0"))
    seconds = np.arange(40) / 20 + 600 * (np.arange(40) >= 25)
    with_times(plain, folder / "bare.mp4", seconds.tolist())
    with_times(plain, folder / "logged.mp4", seconds.tolist())
    write_log(folder / "logged.jsonl", 40)
    found = {name: numbers(frames) for name, frames in stored(folder).items()}
    parts = [list(range(25)), list(range(25, 40))]
    assert list(found.values()).count(parts[0]) == list(found.values()).count(parts[1]) == 2
    assert logged_rewards(folder)["logged@00000025"] == parts[1]
    assert "for 600 s at most" in notes(folder)
    index = ShardIndex.load(folder.parent / "out")
    second = next(e for e in index.episodes("train") if e.name == "logged@00000025")
    steps = read_clip(index, second.samples[0]).steps
    assert second.samples[0].is_first and second.samples[0].start == 0 and not steps.action_mask_before
    first = next(e for e in index.episodes("train") if e.name == "logged@00000000")
    last = read_clip(index, first.samples[-1]).steps
    assert not last.action_mask[-1] and last.action_mask[-2]


def test_a_gap_is_read_at_another_rate(folder: Path, tmp_path: Path) -> None:
    plain = encode(tmp_path / "plain.mp4", pictures(60), (*X264, "-bf", "0"))
    seconds = np.arange(60) / 30 + 600 * (np.arange(60) >= 30)
    with_times(plain, folder / "a.mp4", seconds.tolist())
    every = [int(k * 1.5) for k in range(20)]
    assert [numbers(frames) for frames in stored(folder, fps=20).values()] == [every, [30 + k for k in every]]


@pytest.mark.parametrize("turn", [*TURNS[1:6:2], *slow(*TURNS[::2], TURNS[7])])
def test_all_eight_ways_to_lie(folder: Path, turn: tuple[int, int, int, int]) -> None:
    lay_down(encode(folder / "a.mp4", pictures(4), X264), turn)
    wanted = reference(folder / "a.mp4").frames
    found = stored(folder)["a"]
    assert found.shape == wanted.shape and np.abs(found.astype(int) - wanted).mean() < 3


@pytest.mark.parametrize(("aspect", "size"), [("2/1", (64, 192)), ("1/2", (128, 96)), ("1/1", (64, 96))])
def test_pixels_that_are_not_square(folder: Path, aspect: str, size: tuple[int, int]) -> None:
    encode(folder / "a.mp4", pictures(4), ("-vf", f"setsar={aspect}", *X264))
    assert stored(folder)["a"].shape[1:3] == size


def test_a_wide_picture_fills_a_wide_frame(folder: Path) -> None:
    encode(folder / "a.mp4", pictures(4), ("-vf", "setsar=2/1", *X264))
    frame = stored(folder, size=(64, 192))["a"][0]
    assert (frame[20, [0, -1]].sum(-1) > 0).all()  # no bars


def test_the_default_track_is_the_video(folder: Path, tmp_path: Path) -> None:
    small = encode(tmp_path / "small.mp4", pictures(10, 500, 64, 64), X264)
    main = encode(tmp_path / "main.mp4", pictures(20), X264)
    ffmpeg(
        *("-i", small, "-i", main, "-map", "0:v", "-map", "1:v", "-c", "copy"),
        *("-disposition:v:0", "0", "-disposition:v:1", "default", folder / "a.mp4"),
    )
    assert numbers(stored(folder)["a"]) == list(range(20))


@pytest.mark.parametrize("attached", [True, False])
def test_a_cover_picture_is_no_video(folder: Path, tmp_path: Path, attached: bool) -> None:
    main = encode(tmp_path / "main.mkv", pictures(20), X264)
    encode(tmp_path / "cover.png", pictures(1, 999, 300, 300), ("-frames:v", "1"))
    mark = ("-disposition:v:0", "attached_pic") if attached else ()
    ffmpeg(
        *("-i", tmp_path / "cover.png", "-i", main, "-map", "0:v", "-map", "1:v", "-c:v:0", "mjpeg"),
        *("-c:v:1", "copy", *mark, folder / ("a.mp4" if attached else "a.mkv")),
    )
    assert numbers(stored(folder)["a"]) == list(range(20))


def test_only_a_cover_picture(folder: Path, tmp_path: Path) -> None:
    encode(tmp_path / "cover.png", pictures(1), ("-frames:v", "1"))
    ffmpeg(
        *("-f", "lavfi", "-i", "sine=d=0.2", "-i", tmp_path / "cover.png", "-map", "0:a", "-map", "1:v"),
        *("-c:v", "copy", "-disposition:v:0", "attached_pic", folder / "a.mp4"),
    )
    with pytest.raises(UserError, match=r"a\.mp4: holds no video track but a cover picture"):
        stored(folder)


def spoil(path: Path, number: int, share: float = 0.5) -> None:
    """That share of a packet, its end, is gone."""
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][number]
        payload = bytes(packet)
    content = bytearray(path.read_bytes())
    end, lost = content.index(payload) + packet.size, round(packet.size * share)
    content[end - lost : end] = bytes(lost)
    path.write_bytes(content)


def detailed(n: int) -> np.ndarray:
    """Pictures whose packets are long."""
    frames = pictures(n, height=96, width=192)
    rng = np.random.default_rng(0)
    frames[:, 32:] = frames[:, 32:] // 2 + rng.integers(0, 120, frames[:, 32:].shape, dtype=np.uint8)
    return frames


@pytest.mark.parametrize("container", ["mp4", "mkv", *slow("flv", "mov")])
def test_damage_is_cut_out_up_to_the_next_keyframe(folder: Path, container: str) -> None:
    for name in ("bare", "logged"):
        path = encode(folder / f"{name}.{container}", detailed(60), (*X264, "-g", "20", "-bf", "0"))
        spoil(path, 25)
    write_log(folder / "logged.jsonl", 60)
    found = {name: numbers(frames) for name, frames in stored(folder).items()}
    for name in ("bare", "logged"):
        assert found[f"{name}@00000000"] == list(range(25)) and found[f"{name}@00000040"] == list(
            range(40, 60)
        )
    assert logged_rewards(folder)["logged@00000040"] == list(range(40, 60))
    assert (
        "15 of 60 frames are damaged, or follow damage before the next keyframe (frames 25 to 39)"
        in notes(folder)
    )


@pytest.mark.parametrize(
    ("name", "arguments", "good"),
    [
        ("a.avi", ("-c:v", "mjpeg", "-q:v", "3", "-pix_fmt", "yuvj420p"), [*range(25), *range(26, 60)]),
        ("a.mkv", ("-c:v", "ffv1", "-level", "3", "-slicecrc", "1", "-g", "1"), [*range(25), *range(26, 60)]),
        ("b.avi", ("-c:v", "mpeg4", "-g", "20", "-q:v", "3"), [*range(25), *range(40, 60)]),
    ],
)
def test_damage_in_other_codecs(folder: Path, name: str, arguments: tuple[str, ...], good: list[int]) -> None:
    spoil(encode(folder / name, detailed(60), arguments), 25)
    assert sorted(number for frames in stored(folder).values() for number in numbers(frames)) == good


@pytest.mark.parametrize("first", [1850, 3650])
def test_a_frame_that_damage_holds_back_is_lost(folder: Path, first: int) -> None:
    """Torn frames that the decoder neither marks nor shows in their turn."""
    arguments = ("-c:v", "libx264", "-g", "15", "-threads", "1")
    path = encode(folder / "a.mp4", pictures(60, height=96, width=160), arguments)
    content = bytearray(path.read_bytes())
    content[first : first + 4000] = b"\xff" * 4000
    path.write_bytes(content)
    shown = list(ShownFrames(path))
    newest = np.maximum.accumulate([one.frame.pts for one in shown])
    good = [(one.frame.pts, new) for one, new in zip(shown, newest, strict=True) if one.is_good]
    assert len(good) > 10 and all(time == new for time, new in good)


@pytest.mark.parametrize("container", ["mkv", "ts", "flv", "mp4"])
def test_what_came_before_a_crash_is_kept(folder: Path, container: str) -> None:
    fragments = ("-movflags", "frag_keyframe+empty_moov") if container == "mp4" else ()
    path = encode(folder / f"a.{container}", detailed(60), (*X264, "-g", "10", "-bf", "0", *fragments))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    (found,) = stored(folder).values()
    shown = numbers(found)
    assert shown == list(range(len(shown))) and len(shown) >= 25


def test_interlaced_and_hdr_are_told_or_refused(folder: Path) -> None:
    encode(
        folder / "fields.mp4", pictures(6), (*X264, "-flags", "+ildct+ilme", "-x264-params", "interlaced=1")
    )
    colors = ("-color_primaries", "bt2020", "-color_trc", "smpte2084", "-colorspace", "bt2020nc")
    encode(folder / "bright.mp4", pictures(6), (*X264, *colors))
    encode(folder / "plain.mp4", pictures(6), X264)
    assert len(stored(folder)) == 3
    assert "is interlaced: each frame" in notes(folder) and "is HDR (PQ): stored without" in notes(folder)
    prepare(
        PrepareConfig(
            source=folder, out=folder.parent / "strict", interlaced="refuse", hdr="refuse", workers=1
        )
    )
    content = ShardIndex.load(folder.parent / "strict").content
    assert content["sources"] == ["plain.mp4"]
    assert [entry["source"] for entry in content["skipped"]] == ["bright.mp4", "fields.mp4"]
