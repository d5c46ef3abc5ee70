"""LeRobot v3 datasets: exact round trips, alignment shown by the pictures, options, and what is refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import yaml

pytest.importorskip("pyarrow")

from pyarrow import parquet  # noqa: E402

from reverie.data.actions import ActionSpace, Binary, Categorical, Continuous  # noqa: E402
from reverie.data.errors import UserError  # noqa: E402
from reverie.data.loading.loader import Loader, LoaderConfig  # noqa: E402
from reverie.data.shards.index import ShardIndex  # noqa: E402
from reverie.data.shards.reader import Clip, read_clip  # noqa: E402
from reverie.data.sources.corpus import find_corpus, inspect  # noqa: E402
from reverie.data.sources.lerobot.dataset import LeRobotOptions  # noqa: E402
from reverie.data.sources.lerobot.meta import expand  # noqa: E402
from reverie.data.video.display import Display  # noqa: E402
from reverie.data.video.shown import ShownSpan  # noqa: E402
from reverie.data.video.track import read_packets  # noqa: E402
from reverie.pipelines.cli import main  # noqa: E402
from reverie.pipelines.datasets.planning import STAGING  # noqa: E402
from reverie.pipelines.datasets.prepare import PrepareConfig, prepare  # noqa: E402
from tests.data import lerobot_corpus as corpus  # noqa: E402
from tests.data.lerobot_corpus import CAMERAS, LENGTHS, NAMES, SIZE, TASKS, Dataset, write_dataset  # noqa: E402

ROOT = Path(__file__).parents[4]
ACTIONS = "action,mode,buttons"


def options(**given: Any) -> LeRobotOptions:
    return LeRobotOptions(**{"camera": CAMERAS[0], "action": ACTIONS, **given})


def run(source: Path, out: Path, chosen: LeRobotOptions | None = None, **more: Any) -> ShardIndex:
    prepare(PrepareConfig(source=source, out=out, workers=1, lerobot=chosen or options(), **more))
    return ShardIndex.load(out)


def skipped(index: ShardIndex) -> dict[str, str]:
    return {entry["source"]: entry["reason"] for entry in index.content["skipped"]}


def clips(index: ShardIndex) -> dict[int, list[Clip]]:
    """Episode -> its clips."""
    found = [episode for split in index.splits for episode in index.episodes(split)]
    return {int(e.name[-6:]): [read_clip(index, sample) for sample in e.samples] for e in found}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("lerobot"))


@pytest.fixture(scope="module")
def shards(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> ShardIndex:
    return run(dataset, tmp_path_factory.mktemp("shards"), clip_length=8, validation_fraction=0.2)


def check_pictures(index: ShardIndex, camera: int, lengths: tuple[int, ...] = LENGTHS) -> None:
    found = clips(index)
    assert sorted(found) == list(range(len(lengths)))
    for episode, parts in found.items():
        frames = np.concatenate([part.frames for part in parts if part.frames is not None])
        shown = [corpus.read_picture(frame) for frame in frames]
        assert shown == [(camera, episode, i) for i in range(lengths[episode])]


def test_every_frame_is_the_one_of_its_row(dataset: Path, shards: ShardIndex, tmp_path: Path) -> None:
    assert not shards.content["skipped"] and shards.fps == corpus.FPS and shards.frame_size == SIZE
    check_pictures(shards, 0)
    check_pictures(run(dataset, tmp_path / "wrist", options(camera="wrist")), 1)


def test_videos_joined_by_copying_packets(tmp_path: Path) -> None:
    """As LeRobot makes them, in which keyframes stand where episodes begin."""
    source = write_dataset(tmp_path / "raw", Dataset(concatenate=True, task_column="task"))
    check_pictures(run(source, tmp_path / "out"), 0)


def test_actions_come_back_exactly(shards: ShardIndex) -> None:
    logged = [corpus.rows(episode, n) for episode, n in enumerate(LENGTHS)]
    actions = np.concatenate([part["action"] for part in logged])
    assert shards.action_space == ActionSpace(
        {
            "action": Continuous(3, float(actions.min()), float(actions.max()), NAMES),
            "mode": Categorical(4),
            "buttons": Binary(2, ("a", "b")),
        }
    )
    for episode, parts in clips(shards).items():
        n = LENGTHS[episode]
        for name in shards.action_space.components:
            there = np.concatenate([part.steps.actions[name] for part in parts])
            np.testing.assert_array_equal(there[:-1], logged[episode][name][:-1])
        known = np.concatenate([part.steps.action_mask for part in parts])
        assert known.tolist() == [i < n - 1 for i in range(n)]


def test_what_a_step_brings_stands_at_the_frame_behind_it(shards: ShardIndex) -> None:
    assert shards.tasks == list(TASKS)
    for episode, parts in clips(shards).items():
        n, logged = LENGTHS[episode], corpus.rows(episode, LENGTHS[episode])
        reward = np.concatenate([part.steps.reward for part in parts])
        known = np.concatenate([part.steps.reward_mask for part in parts])
        np.testing.assert_array_equal(reward[1:], logged["next.reward"][:-1])
        assert known.tolist() == [i > 0 for i in range(n)]
        events = np.argwhere(np.concatenate([part.steps.events for part in parts])).tolist()
        # Rows n - 3 to n - 1 say so: it came true on arriving at n - 2. Row n - 1 alone: at a frame that is not there.
        at = {0: [n - 2], 1: [n - 1], 2: []}[episode % 3]
        assert events == [[frame, corpus.task_of(episode)] for frame in at]
        assert parts[-1].meta["is_terminal"] == (episode % 2 == 0)


def test_actions_lead_to_the_next_picture_in_batches(shards: ShardIndex) -> None:
    logged = [corpus.rows(episode, n)["action"] for episode, n in enumerate(LENGTHS)]
    checked = 0
    for _, batch in zip(range(4), Loader(shards, LoaderConfig(batch_size=4, length=8))):
        for row, t in np.argwhere(batch.action_mask.numpy()):
            _, episode, i = corpus.read_picture(batch.frames[row, t].numpy())
            np.testing.assert_array_equal(batch.actions["action"][row, t].numpy(), logged[episode][i - 1])
            checked += 1
    assert checked > 50


def test_success_may_be_claimed_for_demonstrations(tmp_path: Path) -> None:
    source = write_dataset(
        tmp_path / "raw", task_index=lambda episode, _: np.arange(LENGTHS[episode]) // 6 % 3
    )
    info = json.loads((source / "meta" / "info.json").read_text())
    del info["features"]["next.success"]
    (source / "meta" / "info.json").write_text(json.dumps(info))
    index = run(source, tmp_path / "plain")
    assert index.tasks == [] and all(s.events is None for split in index.splits for s in index.samples(split))
    index = run(source, tmp_path / "claimed", options(demonstrations=True))
    assert index.tasks == list(TASKS)
    for episode, parts in clips(index).items():
        n = LENGTHS[episode]
        runs = [[frame, frame // 6 - 1] for frame in range(6, n, 6)]
        events = np.argwhere(np.concatenate([part.steps.events for part in parts])).tolist()
        assert events == [*runs, [n - 1, (n - 1) // 6]]
        assert parts[-1].meta["is_terminal"] == (episode % 2 == 0)


def test_ranges_come_from_the_rows_without_statistics(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_dataset(tmp_path / "raw")
    told = find_corpus(source, None, options()).action_space
    (source / "meta" / "stats.json").unlink()
    assert find_corpus(source, None, options()).action_space == told
    (source / "meta" / "stats.json").write_text('{"action": {"min": [NaN], "max": []}, "mode": 3}')
    assert find_corpus(source, None, options()).action_space == told
    run(source, tmp_path / "out")
    printed = yaml.safe_load(capsys.readouterr().out.partition("train:")[0])
    assert ActionSpace.from_json(printed["action_space"]) == told and printed["tasks"] == list(TASKS)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["x", "y", "z"], ("x", "y", "z")),
        ([["x", "y", "z"]], ("x", "y", "z")),
        ({"axes": ["x", "y", "z"]}, ("x", "y", "z")),
        ({"z": 2, "x": 0, "y": 1}, ("x", "y", "z")),
        (None, ()),
        (["x", "y"], ()),
        ([1, 2, 3], ()),
        ({"a": ["x"], "b": ["y"]}, ()),
    ],
)
def test_names_of_numbers(names: Any, expected: tuple[str, ...], dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(dataset / "meta", tmp_path / "meta")
    shutil.copytree(dataset / "data", tmp_path / "data")
    info = json.loads((dataset / "meta" / "info.json").read_text())
    info["features"]["action"]["names"] = names
    (tmp_path / "meta" / "info.json").write_text(json.dumps(info))
    component = find_corpus(tmp_path, None, options()).action_space.components["action"]
    assert component.names == expected and component.n == 3


@pytest.mark.parametrize("codec", ["libsvtav1", "libx265"])
def test_parts_of_videos_in_other_codecs(codec: str, tmp_path: Path) -> None:
    """AV1 is LeRobot's default."""
    if codec not in av.codecs_available:
        pytest.skip(f"this build of PyAV has no {codec}")
    path, big = tmp_path / "a.mp4", np.ones((4, 4, 1), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30, options={"x265-params": "log-level=none"})
        stream.height, stream.width, stream.pix_fmt = 96, 256, "yuv420p"
        for i in range(90):
            frame = av.VideoFrame.from_ndarray(np.kron(corpus.picture(0, 1, i), big), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    times = read_packets(path)
    for start, stop in ((0, 31), (31, 64), (64, 90)):
        assert numbers(path, times.pts[start:stop], shrink=4) == list(range(start, stop))


def numbers(path: Path, pts: np.ndarray, shrink: int = 1) -> list[int | None]:
    """The numbers of the pictures at `pts`, None for damaged ones; as many as the file accounts for."""
    span, display = ShownSpan(path, pts), Display()
    found: dict[int, int] = {}
    for shown in span:
        if shown.is_good:
            picture = display.picture(shown.frame)[::shrink, ::shrink]
            found[shown.place] = corpus.read_picture(picture)[2]
    return [found.get(place) for place in range(span.total)]


def test_a_declaration_overrules_the_statistics(tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "raw")
    stats = json.loads((source / "meta" / "stats.json").read_text())
    stats["action"]["max"] = [1.0, 1.0, 1.0]
    (source / "meta" / "stats.json").write_text(json.dumps(stats))
    with pytest.raises(UserError, match=r"outside its range \[-\d\.\d+, 1\.0\]; declare the true range"):
        run(source, tmp_path / "out")
    space = {"action": {"kind": "continuous", "n": 3, "low": -2, "high": 3}}
    (source / "actions.yaml").write_text(yaml.safe_dump({"action_space": space}))
    index = run(source, tmp_path / "declared", options(action="action"))
    assert index.action_space == ActionSpace({"action": Continuous(3, -2, 3)}) and index.tasks == list(TASKS)
    assert not index.content["skipped"]


def test_plain_video_is_converted_to_other_rates(tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "raw")
    with pytest.raises(UserError, match="logs frames at 10 Hz, which cannot be converted to 5 Hz"):
        run(source, tmp_path / "logged", fps=5)
    info = json.loads((source / "meta" / "info.json").read_text())
    for name in ("reward", "done", "success"):
        del info["features"][f"next.{name}"]
    (source / "meta" / "info.json").write_text(json.dumps(info))
    index = run(source, tmp_path / "out", options(action=""), fps=5, size=(12, 32))
    assert index.frame_size == (12, 32) and index.action_space == ActionSpace() and index.tasks == []
    assert {episode: sum(clip.meta["n"] for clip in parts) for episode, parts in clips(index).items()} == {
        episode: (n + 1) // 2 for episode, n in enumerate(LENGTHS)
    }
    stored = run(source, tmp_path / "half", options(action=""), fps=5)
    for episode, parts in clips(stored).items():
        assert parts[0].frames is not None
        shown = [corpus.read_picture(frame) for frame in parts[0].frames]
        assert shown == [(0, episode, 2 * i) for i in range((LENGTHS[episode] + 1) // 2)]


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        (
            LeRobotOptions(),
            r"has several cameras; choose with --lerobot\.camera one, .* or all: obs.*\.top, obs.*\.wrist\.",
        ),
        (options(camera="side"), r"has no one camera 'side'; --lerobot\.camera is one of: obs.*\.top, "),
        (
            options(action="ee"),
            r"no feature 'ee' for --lerobot\.action; choose of action, buttons, mode, next",
        ),
        (
            options(action=CAMERAS[0]),
            r"feature 'observation.images.top' has dtype 'video'.*only vectors of numbers",
        ),
        (options(reward="score"), r"no feature 'score' for --lerobot\.reward; choose of action, "),
        (options(success="won"), r"no feature 'won' for --lerobot\.success; choose of "),
    ],
)
def test_options_that_do_not_fit(dataset: Path, chosen: LeRobotOptions, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        find_corpus(dataset, None, chosen)


def test_one_camera_is_taken(tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "raw", Dataset(lengths=(5, 4), cameras=CAMERAS[:1]))
    check_pictures(run(source, tmp_path / "out", LeRobotOptions()), 0, (5, 4))


@pytest.mark.parametrize(
    ("version", "sentence"),
    [
        (
            "v1.6",
            "is of LeRobot's version v1.6, and v2 and v3 are read; convert it with LeRobot's own scripts",
        ),
        ("v1.0", "convert it"),
        ("v4.0", "has codebase_version 'v4.0', and v2 and v3 are read"),
        (3, "has codebase_version 3, and v2 and v3 are read"),
        (None, "has codebase_version None"),
    ],
)
def test_other_versions(version: Any, sentence: str, dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "meta" / "episodes").mkdir(parents=True)
    (tmp_path / "meta" / "info.json").write_text(json.dumps({"codebase_version": version}))
    with pytest.raises(UserError, match=rf"meta/info\.json: .*{sentence}"):
        find_corpus(tmp_path)
    for text in ("", "{", "[]", "\ufeff", '{"codebase_version": "\\ud800"}', "[" * 100_000):
        (tmp_path / "meta" / "info.json").write_text(text)
        with pytest.raises(UserError, match=r"meta/info\.json: "):
            find_corpus(tmp_path)


def test_other_folders_are_no_lerobot(tmp_path: Path) -> None:
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "info.json").write_text('{"fps": 30}')
    corpus.encode(tmp_path / "a.mp4", [corpus.picture(0, 0, i) for i in range(3)])
    assert find_corpus(tmp_path).kind == "videos"


def test_without_pyarrow(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(
        UserError, match=r"reading parquet needs pyarrow; install it with: pip install 'reverie\[parquet\]'"
    ):
        find_corpus(dataset, None, options())


@pytest.mark.parametrize(
    "template", ["{chunk_index.__class__}", "{chunk_index:999999999d}", "{nothing}", "a{", 3]
)
def test_templates_are_not_trusted(template: Any) -> None:
    with pytest.raises(UserError, match="path template .* is not understood"):
        expand(template, Path("info.json"), "{file_index}", 1, 2)


def test_templates_are_filled() -> None:
    filled = expand("v/{video_key}/{chunk_index:03d}-{file_index}.mp4", Path("i"), "{file_index}", 7, 12)
    assert filled == "v/{file_index}/007-12.mp4"


def test_other_templates_unicode_and_spaces(tmp_path: Path) -> None:
    paths = {
        "data_path": "rows \u00fc/{file_index:06d} {chunk_index}.pq",
        "video_path": "films/\u65e5\u672c {video_key}/{chunk_index}_{file_index}.mp4",
    }
    source = write_dataset(
        tmp_path / "my data \u00fc", Dataset(lengths=(5, 4, 6, 3), data_files=1, info=paths)
    )
    written = Dataset(lengths=(5, 4, 6, 3), data_files=1)
    for episode in range(4):
        chunk, file = written.place(episode, 1)
        moves = {written.data_file(episode): paths["data_path"].format(chunk_index=chunk, file_index=file)}
        chunk, file = written.place(episode, 2)
        moves[written.video_file(episode)] = paths["video_path"].format(
            video_key=CAMERAS[0], chunk_index=chunk, file_index=file
        )
        for old, new in moves.items():
            (source / new).parent.mkdir(parents=True, exist_ok=True)
            if (source / old).exists():
                (source / old).rename(source / new)
    check_pictures(run(source, tmp_path / "out"), 0, (5, 4, 6, 3))


LEAVING = {
    "dots": ("video_path", "../outside.mp4"),
    "absolute": ("video_path", "/outside.mp4"),
    "rows": ("data_path", "data/../../outside.parquet"),
    "zero": ("data_path", "data/\x00.parquet"),
    "long": ("data_path", "x" * 300),
}


@pytest.mark.parametrize("way", LEAVING)
def test_paths_that_leave_the_folder(way: str, tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "raw", Dataset(lengths=(5, 4), info=dict([LEAVING[way]])))
    (tmp_path / "outside.mp4").write_bytes((source / Dataset().video_file(0)).read_bytes())
    (tmp_path / "outside.parquet").write_bytes((source / Dataset().data_file(0)).read_bytes())
    with pytest.raises(
        UserError, match="none of its 2 videos can be used, .*(leads out of the folder|is no path|missing)"
    ):
        run(source, tmp_path / "out")


@pytest.mark.parametrize("what", ["video", "rows", "meta"])
def test_links_that_lead_out(what: str, tmp_path: Path) -> None:
    source, written = write_dataset(tmp_path / "raw"), Dataset()
    relative = {"video": written.video_file(3), "rows": written.data_file(3), "meta": written.meta_file(4)}[
        what
    ]
    (source / relative).rename(tmp_path / "elsewhere")
    (source / relative).symlink_to(tmp_path / "elsewhere")
    index = run(source, tmp_path / "out")
    lost = {"video": {2, 3}, "rows": {3, 4, 5}, "meta": {4, 5, 6}}[what]
    assert set(clips(index)) == set(range(7)) - lost
    names = {f"episode_{episode:06d}" for episode in lost} if what != "meta" else {relative, "meta/episodes"}
    assert set(skipped(index)) == names
    assert f"{relative}: leads out of the folder; copy the dataset with its links resolved" in str(
        skipped(index)
    )


def change_entries(source: Path, episode: int, **values: Any) -> None:
    path = source / Dataset().meta_file(episode)
    entries = parquet.read_table(path).to_pylist()
    for entry in entries:
        if entry["episode_index"] == episode:
            entry |= values
    parquet.write_table(corpus.pa.Table.from_pylist(entries), path)


TOP = f"videos/{CAMERAS[0]}"
WRONG = {
    "length": ({"length": 16}, "row 2: has length 16, but rows 21 to 38"),
    "no frames": ({"length": 0, "dataset_to_index": 21}, "row 2: has length 0"),
    "rows of others": ({"length": 18, "dataset_to_index": 39}, "has 17 rows of episode_000002, not 18"),
    "first row": ({"dataset_from_index": 20, "dataset_to_index": 37}, "do not count on from 20"),
    "later": ({f"{TOP}/from_timestamp": 0.1}, "leave its part of the video"),
    "beyond": (
        {f"{TOP}/from_timestamp": 9.0, f"{TOP}/to_timestamp": 11.0},
        "has 25 frames, episode_000002 needs frame",
    ),
    "nan": (
        {f"{TOP}/from_timestamp": float("nan")},
        "has videos/observation.images.top/from_timestamp nan, no time in seconds",
    ),
    "file": ({f"{TOP}/file_index": 9}, "file-009.mp4: is missing"),
    "null": ({"data/chunk_index": None}, "has data/chunk_index None, no whole number"),
}


@pytest.mark.parametrize("way", WRONG)
def test_one_wrong_entry_loses_one_episode(way: str, tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "raw")
    values, sentence = WRONG[way]
    change_entries(source, 2, **values)
    index = run(source, tmp_path / "out")
    assert list(skipped(index)) == ["episode_000002"] and sentence in skipped(index)["episode_000002"]
    assert set(clips(index)) == {0, 1, 3, 4, 5, 6}
    assert str(tmp_path) not in json.dumps(index.content)


def test_rows_that_are_not_one_frame_apart(tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "raw", Dataset(info={"fps": 11}))
    with pytest.raises(UserError, match="are not one frame apart"):
        run(source, tmp_path / "out")

    def gap(episode: int, times: np.ndarray) -> np.ndarray:
        return times if episode != 1 else times - np.float32(0.1) * (np.arange(len(times)) > 4)

    index = run(write_dataset(tmp_path / "gap", timestamp=gap), tmp_path / "left")
    assert list(skipped(index)) == ["episode_000001"]


def test_off_by_less_than_half_a_frame_is_taken(tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "raw", timestamp=lambda _, times: times + np.float32(0.04))
    check_pictures(run(source, tmp_path / "out"), 0)


def test_off_by_more_than_half_a_frame_is_refused(tmp_path: Path) -> None:
    """A video in which one frame was never recorded: those behind it stand a frame later than their number says."""
    source = write_dataset(tmp_path / "raw")
    pictures = [corpus.picture(0, e, i) for e in (2, 3) for i in range(LENGTHS[e])]
    corpus.encode(source / Dataset().video_file(2), pictures, missing=4)
    index = run(source, tmp_path / "out")
    reasons = skipped(index)
    assert list(reasons) == ["episode_000002", "episode_000003"]
    assert (
        "s, row" in reasons["episode_000002"] and "video and rows do not belong" in reasons["episode_000002"]
    )
    assert "has 24 frames, episode_000003 needs frame 24" in reasons["episode_000003"]
    assert set(clips(index)) == {0, 1, 4, 5, 6}


def test_a_part_is_read_without_what_lies_before_it(dataset: Path, tmp_path: Path) -> None:
    """The packets of the first episodes are destroyed: whoever decodes from the start of the file meets damage."""
    path = tmp_path / "long.mp4"
    corpus.encode(path, [corpus.picture(0, 0, i) for i in range(90)])
    whole, times = path.read_bytes(), read_packets(path)
    start = whole.index(b"mdat")
    for first in (60, 70, 88):
        # Everything before the keyframe at 60 goes.
        size = packet_offset(path, 60)
        path.write_bytes(whole[: start + 4] + bytes(size - start - 4) + whole[size:])
        assert numbers(path, times.pts) != list(range(90))
        assert numbers(path, times.pts[first:]) == list(range(first, 90))


def packet_offset(path: Path, number: int) -> int:
    """Where the packet of frame `number` begins in the file."""
    with corpus.av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.pts is not None]
        shown = sorted(p.pts for p in packets)
        return next(int(p.pos) for p in packets if p.pts == shown[number])


def test_what_lies_behind_a_part_does_not_spoil_it(tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    corpus.encode(path, [corpus.picture(0, 0, i) for i in range(90)])
    times = read_packets(path)
    content, cut = path.read_bytes(), packet_offset(path, 60)
    end = packet_offset(path, 81)
    path.write_bytes(
        content[:cut] + b"\x00\x00\x01\xff" * ((end - cut) // 4) + content[cut + (end - cut) // 4 * 4 :]
    )
    assert numbers(path, times.pts[40:60]) == list(range(40, 60))
    assert numbers(path, times.pts[40:62]) == [*range(40, 60), None, None]


def test_inspecting_decodes_one_frame(dataset: Path, tmp_path: Path) -> None:
    """With all but the first frames of a video destroyed, places and times of frames are still known."""
    source = write_dataset(tmp_path / "raw")
    path = source / Dataset().video_file(0)
    content = path.read_bytes()
    start = packet_offset(path, 2)
    end = content.index(b"moov") - 4
    path.write_bytes(content[:start] + bytes(end - start) + content[end:])
    found = find_corpus(source, None, options())
    for source_ in found.sources[:2]:
        pts = inspect(source_, found).pts
        assert pts is not None and len(pts) == LENGTHS[int(source_.name[-1])]


def test_other_settings_and_changed_data_are_refused(tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "raw", Dataset(lengths=(6, 5)))
    first = run(source, tmp_path / "out")
    assert run(source, tmp_path / "out").hash() == first.hash()
    for chosen in (options(camera="wrist"), options(done="next.success")):
        with pytest.raises(UserError, match="out: was made with lerobot = "):
            run(source, tmp_path / "out", chosen)


KILLED = """
import sys
from pathlib import Path
from reverie.data.sources.lerobot.dataset import LeRobotOptions
from reverie.pipelines.datasets.prepare import PrepareConfig, prepare
options = LeRobotOptions(camera="top")
prepare(PrepareConfig(source=Path(sys.argv[1]), out=Path(sys.argv[2]), clip_length=4, workers=1, lerobot=options))
"""


@pytest.mark.slow
def test_kill_and_continue_equals_the_undisturbed_run(tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "raw", Dataset(lengths=(40,) * 8))
    settings = {"clip_length": 4, "lerobot": LeRobotOptions(camera="top"), "workers": 1}
    prepare(PrepareConfig(source=source, out=tmp_path / "whole", **settings))
    out = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(source), str(out)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )
    while process.poll() is None and len(list((out / STAGING).glob("episode-*"))) < 3:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL
    prepare(PrepareConfig(source=source, out=out, **settings))
    contents = [{p.name: p.read_bytes() for p in folder.iterdir()} for folder in (tmp_path / "whole", out)]
    assert contents[0] == contents[1] and len(contents[0]) == 3


def test_the_command_line(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["prepare", "--source", str(dataset), "--out", str(tmp_path / "out")]
    assert main(arguments) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert main([*arguments, "--lerobot.camera", "top", "--lerobot.action", "mode,action"]) == 0
    assert set(ShardIndex.load(tmp_path / "out").action_space.components) == {"mode", "action"}
