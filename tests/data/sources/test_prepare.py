"""`prepare` on recorded episodes, on plain folders of videos, and on bad input."""

import json
from collections.abc import Callable
from fractions import Fraction
from hashlib import sha256
from pathlib import Path

import av
import numpy as np
import pytest
import webdataset

from reverie.data.errors import UserError
from reverie.data.shards.index import ShardIndex
from reverie.data.shards.reader import read_clip
from reverie.data.video.codec import encode_video, read_frames
from reverie.pipelines.datasets.prepare import PrepareConfig, prepare
from tests.data.corpus import EVENTS, LENGTHS, SPACE, TASKS, draw, taken_actions, write_recording


def run(source: Path, out: Path, **options: object) -> ShardIndex:
    prepare(PrepareConfig(source=source, out=out, **options))  # type: ignore[arg-type]
    return ShardIndex.load(out)


def write_video(
    path: Path, n: int, *, episode: int = 0, fps: float = 10, size: tuple[int, int] = (24, 40)
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = draw(episode, taken_actions(episode, n), n)
    encode_video(path, [np.resize(frame, (*size, 3)) for frame in frames], fps, quality="lossless")
    return path


def write_log(video: Path, n: int, episode: int = 0, **changes: np.ndarray) -> None:
    arrays = {f"action/{name}": value for name, value in taken_actions(episode, n).items()}
    np.savez(video.with_suffix(".npz"), **{**arrays, **changes})  # type: ignore[arg-type]


def declare(folder: Path) -> None:
    content = {"action_space": SPACE.to_json(), "tasks": list(TASKS)}
    (folder / "actions.json").write_text(json.dumps(content))


def test_recorded_episodes_come_back_whole(shards: ShardIndex) -> None:
    seen = 0
    for split in shards.splits:
        for episode in shards.episodes(split):
            number = int(episode.name[-3:])
            clips = [read_clip(shards, sample) for sample in episode.samples]
            n, actions = LENGTHS[number], taken_actions(number, LENGTHS[number])
            frames = np.concatenate([clip.frames for clip in clips if clip.frames is not None])
            # Padded to a width of 64 in the recording, cropped on the way in, stored, read: bit-exact.
            np.testing.assert_array_equal(frames, draw(number, actions, n))
            for name, value in actions.items():
                stored = np.concatenate([clip.steps.actions[name] for clip in clips])
                assert stored.dtype == value.dtype
                np.testing.assert_array_equal(stored, value)
            np.testing.assert_allclose(
                np.concatenate([clip.steps.reward for clip in clips]), np.arange(n) / 10, rtol=1e-6
            )
            events = np.argwhere(np.concatenate([clip.steps.events for clip in clips]))
            assert sorted(map(tuple, events.tolist())) == sorted(EVENTS.get(number, []))
            assert [clip.meta["start"] for clip in clips] == list(range(0, n, 32))
            assert clips[-1].meta["is_terminal"] == (number % 2 == 0)
            for before, clip in zip(clips, clips[1:], strict=False):
                for name in actions:
                    np.testing.assert_array_equal(
                        clip.steps.action_before[name], before.steps.actions[name][-1]
                    )
            seen += 1
    assert seen == len(LENGTHS)
    assert shards.storage_psnr > 40
    assert (shards.fps, shards.frame_size, shards.tasks) == (10, (24, 40), list(TASKS))
    assert shards.action_space == SPACE


def test_plain_webdataset_reads_the_shards(shards: ShardIndex) -> None:
    urls = [str(path) for path in sorted(shards.folder.glob("train-*.tar"))]
    assert len(urls) > 2
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == [sample.key for sample in shards.samples("train")]
    for sample, listed in zip(samples, shards.samples("train"), strict=True):
        assert set(sample) >= {"clip.mp4", "steps.npz", "meta.json"}
        assert json.loads(sample["meta.json"])["start"] == listed.start
        assert read_frames(sample["clip.mp4"], [listed.n - 1], shards.frame_size).shape == (1, 24, 40, 3)


def test_index_holds_checksums_and_no_paths(shards: ShardIndex) -> None:
    for shard in shards.content["shards"]:
        content = (shards.folder / shard["name"]).read_bytes()
        assert (sha256(content).hexdigest(), len(content)) == (shard["sha256"], shard["bytes"])
    assert "/tmp" not in json.dumps(shards.content) and str(shards.folder) not in json.dumps(shards.content)
    assert not [path.name for path in shards.folder.iterdir() if path.name.startswith(".")]


def test_folder_of_any_videos(tmp_path: Path) -> None:
    folder = tmp_path / "my videos"
    write_video(folder / "a b.mp4", 30)
    write_video(folder / "deep" / "er" / "日本 ü.mp4", 40, episode=1)
    write_video(folder / "deep" / "a b.mp4", 20, episode=2)
    (folder / "notes.txt").write_text("not a video")
    with av.open(str(folder / "other.MKV"), "w", format="matroska") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = 24, 40, "yuv420p"
        for frame in draw(3, taken_actions(3, 25), 25):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    index = run(folder, tmp_path / "out", size=(24, 40))
    frames = {e.name: e.n for split in index.splits for e in index.episodes(split)}
    assert frames == {"a b": 30, "deep/er/日本 ü": 40, "deep/a b": 20, "other": 25}
    assert index.splits == ["train", "validation"]
    (left,) = index.content["skipped"]
    assert left == {"source": "*.txt", "reason": "1 file is no video by the suffix, the first is notes.txt."}
    clip = read_clip(index, index.samples("train")[0])
    assert not clip.steps.action_mask.any() and not clip.steps.reward_mask.any() and clip.steps.actions == {}


def test_some_videos_have_logs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    declare(folder)
    for number in range(4):
        video = write_video(folder / f"{number}.mp4", 30, episode=number, size=(24, 64))
        if number % 2:
            write_log(video, 30, number)
    index = run(folder, tmp_path / "out", validation_fraction=0.0)
    assert {s.episode: s.labelled for s in index.samples("train")} == {
        "0": False,
        "1": True,
        "2": False,
        "3": True,
    }
    assert "4 episodes (2 with actions)" in capsys.readouterr().out
    labelled = read_clip(index, next(s for s in index.samples("train") if s.episode == "1"))
    np.testing.assert_array_equal(labelled.steps.actions["move"], taken_actions(1, 30)["move"])
    np.testing.assert_array_equal(labelled.steps.action_mask, np.arange(30) < 29)
    assert not labelled.steps.reward_mask.any()


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("pad", [[0, 0], [1, 1], [1, 1], [0, 0]]), ("crop", [[1, 1]] * 4), ("stretch", [[1, 1]] * 4)],
)
def test_resize(tmp_path: Path, mode: str, expected: list[list[int]]) -> None:
    encode_video(tmp_path / "wide.mp4", np.full((8, 32, 64, 3), 200, np.uint8), 10, quality="lossless")
    index = run(tmp_path, tmp_path / "out", size=(32, 32), mode=mode)
    assert index.resize_mode == mode
    frames = read_clip(index, index.samples("train")[0]).frames
    assert frames is not None and frames.shape[1:] == (32, 32, 3)
    bright = frames[0, 4::8, 8::16, 0] == 200
    np.testing.assert_array_equal(bright, np.array(expected, bool))


def test_rates_are_converted_by_timestamps(tmp_path: Path) -> None:
    write_video(tmp_path / "fast.mp4", 60, fps=30, size=(24, 64))
    write_video(tmp_path / "slow.mp4", 20, fps=10, size=(24, 64), episode=1)
    with pytest.raises(UserError, match=r"fps: the videos differ \(10 in slow.mp4, 30 in fast.mp4\)"):
        run(tmp_path, tmp_path / "out")
    index = run(tmp_path, tmp_path / "converted", fps=10, validation_fraction=0)
    for sample in index.samples("train"):
        there = read_clip(index, sample).frames
        taken = slice(None, None, 3 if sample.episode == "fast" else 1)
        source = read_frames(tmp_path / sample.source, range(60 if sample.episode == "fast" else 20))
        np.testing.assert_array_equal(there, source[taken])


def test_rows_of_a_log_stay_with_their_frames(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    write_log(write_video(folder / "a.mp4", 30, fps=30), 30)
    declare(folder)
    with pytest.raises(UserError, match=r"a\.npz: logs frames at 30 Hz, which cannot be converted to 10 Hz"):
        run(folder, tmp_path / "out", fps=10)


def test_variable_rate_video_is_read_by_time(tmp_path: Path) -> None:
    shown = [0, 1, 2, 10, 11, 19]  # in tenths of a second: frames 2 and 4 stay on screen
    with av.open(str(tmp_path / "still.mp4"), "w") as container:
        stream = container.add_stream("libx264rgb", rate=10, options={"crf": "0"})
        stream.height, stream.width, stream.pix_fmt = 64, 64, "rgb24"
        stream.codec_context.max_b_frames = 0
        for number, time in enumerate(shown):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), number * 20, np.uint8), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    index = run(tmp_path, tmp_path / "out", fps=10, validation_fraction=0)
    frames = read_clip(index, index.samples("train")[0]).frames
    assert frames is not None
    assert (frames[:20, 0, 0, 0] // 20).tolist() == [0, 1, *[2] * 8, 3, *[4] * 8, 5]


def test_sizes_must_agree_or_be_chosen(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", 5, size=(24, 64))
    write_video(tmp_path / "b.mp4", 5, size=(32, 64))
    with pytest.raises(UserError, match=r"size: the videos differ \(24x64 in a.mp4, 32x64 in b.mp4\)"):
        run(tmp_path, tmp_path / "out")


def test_a_lone_video_is_split_by_time(tmp_path: Path) -> None:
    write_video(tmp_path / "long.mp4", 100, size=(24, 64))
    index = run(tmp_path, tmp_path / "out", clip_length=32, validation_fraction=0.2)
    spans = {split: [(s.start, s.n) for s in index.samples(split)] for split in index.splits}
    assert spans == {"train": [(0, 32), (32, 32), (64, 16)], "validation": [(80, 20)]}
    assert index.samples("train")[-1].is_last and not index.samples("validation")[0].is_first


def _text(folder: Path) -> None:
    (folder / "bad.mp4").write_text("this is no video\n" * 50)


def _truncated(folder: Path) -> None:
    write_video(folder / "bad.mp4", 60)
    content = (folder / "bad.mp4").read_bytes()
    (folder / "bad.mp4").write_bytes(content[: len(content) // 2])


def _damaged_from_the_start(folder: Path) -> None:
    """Opens well, but none of it can be decoded."""
    frames = np.random.default_rng(0).integers(0, 256, (60, 24, 40, 3), dtype=np.uint8)
    encode_video(folder / "bad.mp4", frames, 10, quality="lossless")
    content = (folder / "bad.mp4").read_bytes()
    start, end = content.index(b"mdat") + 4, content.index(b"moov") - 4
    (folder / "bad.mp4").write_bytes(content[:start] + bytes(end - start) + content[end:])


def _short_log(folder: Path) -> None:
    write_log(write_video(folder / "bad.mp4", 30), 29)


def _wrong_name(folder: Path) -> None:
    write_log(write_video(folder / "bad.mp4", 30), 30, **{"action/jump": np.zeros(30, np.int64)})


def _nan(folder: Path) -> None:
    stick = np.zeros((30, 2), np.float32)
    stick[4, 1] = np.nan
    write_log(write_video(folder / "bad.mp4", 30), 30, **{"action/stick": stick})


def _nan_reward(folder: Path) -> None:
    write_log(write_video(folder / "bad.mp4", 30), 30, reward=np.full(30, np.nan))


def _broken_log(folder: Path) -> None:
    write_video(folder / "bad.mp4", 30)
    (folder / "bad.npz").write_bytes(b"PK not a zip")


def _no_frames(folder: Path) -> None:
    (folder / "bad.mp4").write_bytes(b"")


BAD = {
    _text: r"bad\.mp4: cannot be read as video",
    _truncated: r"bad\.mp4: cannot be read as video",
    _damaged_from_the_start: r"bad\.mp4: holds no frames",
    _short_log: r"bad\.npz: action 'move' has shape \(29,\), expected \(30,\)",
    _wrong_name: r"bad\.npz: unknown action 'jump'",
    _nan: r"bad\.npz: action 'stick' holds values that are not finite",
    _nan_reward: r"bad\.npz: reward holds values that are not finite",
    _broken_log: r"bad\.npz: is no readable log",
    _no_frames: r"bad\.mp4: is empty",
}


@pytest.mark.parametrize("make_bad", BAD, ids=lambda f: f.__name__[1:])
def test_one_bad_source_is_skipped_and_listed(
    make_bad: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    declare(folder)
    make_bad(folder)
    with pytest.raises(
        UserError, match=r"videos: none of its 1 videos can be used, the first because: " + BAD[make_bad]
    ):
        run(folder, tmp_path / "none", size=(24, 40))
    write_video(folder / "good.mp4", 30, episode=1)
    write_log(folder / "good.mp4", 30, 1)
    write_video(folder / "plain.mp4", 20, episode=2)
    index = run(folder, tmp_path / "out", size=(24, 40))
    assert index.content["sources"] == ["good.mp4", "plain.mp4"] and index.splits == ["train", "validation"]
    assert [entry["source"] for entry in index.content["skipped"]] == ["bad.mp4"]
    said = capsys.readouterr().out
    assert "skipped bad.mp4: " in said and said.rstrip().endswith("skipped 1 of 3 sources")


def test_the_only_good_video_is_still_split(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    write_video(folder / "good.mp4", 50, size=(24, 64))
    _text(folder)
    index = run(folder, tmp_path / "out")
    assert {split: index.episodes(split)[0].n for split in index.splits} == {"train": 45, "validation": 5}


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere: no such folder"):
        run(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: holds no videos"):
        run(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(UserError, match="out: no such folder; `reverie prepare` makes shards"):
        ShardIndex.load(tmp_path / "out")


def test_declared_kinds_must_exist(tmp_path: Path) -> None:
    write_log(write_video(tmp_path / "a.mp4", 10), 10)
    (tmp_path / "actions.json").write_text('{"action_space": {"move": {"kind": "discrete", "n": 3}}}')
    with pytest.raises(UserError, match="has kind 'discrete'; use one of categorical, binary, continuous"):
        run(tmp_path, tmp_path / "out")


def test_an_episode_whose_log_is_missing_is_skipped(tmp_path: Path) -> None:
    source = write_recording(tmp_path / "raw", [20, 20, 20])
    (source / "episodes" / "episode-001.npz").unlink()
    index = run(source, tmp_path / "out")
    assert [entry["reason"] for entry in index.content["skipped"]] == [
        "episodes/episode-001.mp4: has no log episode-001.npz; delete it or record this episode again."
    ]


def test_shards_of_something_else_are_refused(recording: Path, tmp_path: Path) -> None:
    source = write_recording(tmp_path / "raw", [20, 20])
    first = run(source, tmp_path / "out")
    assert run(source, tmp_path / "out").hash() == first.hash()  # again: nothing to do
    with pytest.raises(
        UserError, match="out: was made with clip_length = 256, not 16; use another output folder"
    ):
        run(source, tmp_path / "out", clip_length=16)
    with pytest.raises(UserError, match="out: was made with sources = "):
        run(recording, tmp_path / "out")


@pytest.mark.parametrize(
    ("mode", "size", "told"),
    [
        ("crop", (36, 64), "crop cuts 68% of each picture away (228x128 into 36x64)"),
        ("pad", (36, 64), "68% of each frame is black bars (228x128 into 36x64)"),
        ("stretch", (36, 64), "changed by a factor of 3.2 (228x128 into 36x64)"),
        ("crop", (57, 32), ""),
        ("pad", (228, 128), ""),
        ("stretch", (57, 36), ""),
    ],
)
def test_what_a_size_costs_the_picture_is_said_once(
    mode: str, size: tuple[int, int], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A portrait video; where bars are added, their share is counted in the frames themselves."""
    for name in ("a", "b"):
        write_video(tmp_path / "videos" / f"{name}.mp4", 4, size=(228, 128))
    index = run(tmp_path / "videos", tmp_path / "out", size=size, mode=mode)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note")]
    assert len(lines) == (1 if told else 0)
    assert not told or lines[0].startswith("note a.mp4 and 1 more: ") and told in lines[0]
    if mode == "pad" and told:
        frames = read_clip(index, index.samples("train")[0]).frames
        assert frames is not None
        dark = (frames.max(axis=(0, 1, 3)) == 0).mean()
        assert dark == pytest.approx(0.68, abs=0.02)
