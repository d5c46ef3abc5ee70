"""Joined segments are what the session would have been in one file; gaps and damage split it, and nothing good is lost."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reverie.data.loading.loader import Loader, LoaderConfig
from reverie.data.shards.index import ShardIndex
from reverie.data.shards.reader import ShardReader
from reverie.data.shards.steps import Steps
from reverie.data.sources.vpt.recordings import VPTOptions
from reverie.data.sources.vpt.segments import Edges, Tick, continues
from reverie.data.sources.vpt.tasks import TASKS
from reverie.data.video.codec import encode_video
from reverie.pipelines.cli import main
from reverie.pipelines.datasets.prepare import PrepareConfig, prepare
from tests.data.vpt_corpus import session_tick, write_log, write_segment

ROOT = Path(__file__).parents[4]
CUTS = [0, 30, 61, 100]


def run(source: Path, out: Path, **changes: Any) -> ShardIndex:
    prepare(
        PrepareConfig(source=source, out=out, **{"clip_length": 16, "validation_fraction": 0.0, **changes})
    )
    return ShardIndex.load(out)


def episodes(index: ShardIndex) -> dict[str, tuple[np.ndarray, Steps]]:
    """Episode -> what its frames show, and the steps of all its clips laid end to end."""
    reader, found = ShardReader(index), {}
    for episode in index.episodes("train"):
        assert [s.start for s in episode.samples] == np.cumsum([0] + [s.n for s in episode.samples])[
            :-1
        ].tolist()
        assert [s.is_first for s in episode.samples] == [True] + [False] * (len(episode.samples) - 1)
        assert [s.is_last for s in episode.samples] == [False] * (len(episode.samples) - 1) + [True]
        shown = np.concatenate([reader.frames(s, 0, s.n)[:, 0, 0, 0] for s in episode.samples])
        clips = [reader.steps(s) for s in episode.samples]
        for before, clip in zip(clips, clips[1:], strict=False):
            assert clip.action_mask_before == before.action_mask[-1]
            for name, value in clip.action_before.items():
                np.testing.assert_array_equal(value, before.actions[name][-1])
        found[episode.name] = shown, _concatenated(clips)
        for sample, steps in zip(episode.samples, clips, strict=True):
            assert [list(event) for event in sample.events or ()] == np.argwhere(steps.events).tolist()
    return found


def _concatenated(clips: list[Steps]) -> Steps:
    rows = ("action_mask", "reward", "reward_mask", "events")
    joined = {name: np.concatenate([getattr(clip, name) for clip in clips]) for name in rows}
    actions = {name: np.concatenate([clip.actions[name] for clip in clips]) for name in clips[0].actions}
    return replace(clips[0], actions=actions, **joined)


def assert_same(found: Steps, expected: Steps) -> None:
    for name in ("action_mask", "reward", "reward_mask", "events", "action_mask_before"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)
    for name, value in expected.actions.items():
        np.testing.assert_array_equal(found.actions[name], value, name)


def test_joined_segments_equal_the_uncut_session(tmp_path: Path) -> None:
    """Actions over the borders, changed hotbar slots, tasks accomplished there, flags: everything."""
    write_segment(tmp_path / "whole", "p-s", 0, CUTS[-1])
    for start, stop in zip(CUTS, CUTS[1:], strict=False):
        write_segment(tmp_path / "cut", "p-s", start, stop)
    shown, whole = episodes(run(tmp_path / "whole", tmp_path / "a"))["p-s-20210806-000000"]
    index = run(tmp_path / "cut", tmp_path / "b")
    joined = episodes(index)
    assert list(joined) == ["p-s-20210806-000000"]
    np.testing.assert_array_equal(joined["p-s-20210806-000000"][0], shown)
    assert shown.tolist() == list(range(100))
    assert_same(joined["p-s-20210806-000000"][1], whole)
    assert whole.action_mask.tolist() == [True] * 99 + [False]
    assert {s.source for s in index.samples("train")} == {f"p-s-20210806-{t:06d}.mp4" for t in CUTS[:-1]}
    mined = np.flatnonzero(whole.events[:, TASKS.index("mine_log")]).tolist()
    assert mined == list(range(5, 100, 5)) and 30 in mined, "also at a border"


def test_shards_of_joined_segments_pass_every_check(tmp_path: Path) -> None:
    for start, stop in zip(CUTS, CUTS[1:], strict=False):
        write_segment(tmp_path / "raw", "p-s", start, stop)
    run(tmp_path / "raw", tmp_path / "out")
    before = (tmp_path / "out" / "index.json").read_bytes()
    assert main(["data", "check", str(tmp_path / "out")]) == 0
    assert main(["data", "check", "--repair", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "index.json").read_bytes() == before, "meta.json tells the same"


def test_windows_run_over_the_borders(tmp_path: Path) -> None:
    for start, stop in zip(CUTS, CUTS[1:], strict=False):
        write_segment(tmp_path / "raw", "p-s", start, stop)
    index = run(tmp_path / "raw", tmp_path / "out")
    batch = next(iter(Loader(index, LoaderConfig(batch_size=4, length=25))))
    assert batch.frames is not None
    t = batch.frames[..., 0, 0, 0].long()
    inside = batch.segment[:, 1:] == batch.segment[:, :-1]
    assert (t[:, 1:] - t[:, :-1])[inside].unique().tolist() == [1]
    assert batch.action_mask[:, 1:][inside].all() and batch.is_first.sum() + batch.is_last.sum() <= 2
    keys = batch.actions["keys"].long()
    pressed = keys[..., 11:20]  # hotbar.1 to 9
    for row, column in inside.nonzero().tolist():
        led = int(t[row, column + 1]) - 1
        assert pressed[row, column + 1, (7 * led) % 9] == 1


def test_a_missing_segment_splits_the_episode(tmp_path: Path) -> None:
    for start, stop in ((0, 20), (20, 40), (60, 80), (80, 100)):
        write_segment(tmp_path / "raw", "p-s", start, stop)
    found = episodes(run(tmp_path / "raw", tmp_path / "out"))
    assert {name: shown.tolist() for name, (shown, _) in found.items()} == {
        "p-s-20210806-000000": list(range(40)),
        "p-s-20210806-000060": list(range(60, 100)),
    }
    assert all(
        steps.action_mask.tolist() == [True] * (len(steps) - 1) + [False] for _, steps in found.values()
    )


def damage(path: Path, start: float) -> None:
    """A video whose bytes from that share of its length on are destroyed."""
    noise = np.random.default_rng(0).integers(0, 256, (20, 32, 64, 3), dtype=np.uint8)
    encode_video(path, noise, 20, quality="lossless")
    content = bytearray(path.read_bytes())
    begin, end = max(int(len(content) * start), content.index(b"mdat") + 4), content.index(b"moov") - 4
    content[begin:end] = bytes(end - begin)
    path.write_bytes(content)


@pytest.mark.parametrize("damaged", ["video", "log"])
def test_a_damaged_segment_splits_the_episode(tmp_path: Path, damaged: str) -> None:
    paths = [write_segment(tmp_path / "raw", "p-s", start, start + 20) for start in range(0, 100, 20)]
    if damaged == "video":
        damage(paths[2], 0.0)
    else:
        log = paths[2].with_suffix(".jsonl")
        log.write_bytes(log.read_bytes()[: log.stat().st_size // 2])
    index = run(tmp_path / "raw", tmp_path / "out")
    assert [entry["source"] for entry in index.content["skipped"]] == ["p-s-20210806-000040.mp4"]
    found = episodes(index)
    assert [shown.tolist() for shown, _ in found.values()] == [list(range(40)), list(range(60, 100))]


def test_what_is_sound_of_a_damaged_segment_is_an_episode_of_its_own(tmp_path: Path) -> None:
    paths = [write_segment(tmp_path / "raw", "p-s", start, start + 20) for start in range(0, 60, 20)]
    damage(paths[1], 0.5)
    index = run(tmp_path / "raw", tmp_path / "out")
    assert [e.n for e in index.episodes("train")] == [20, 10, 20] and not index.content["skipped"]
    assert "10 of 20 frames are damaged" in index.content["notes"][0]["note"]


def test_a_log_without_its_last_line(tmp_path: Path) -> None:
    """The action at the border is not known, but the episode goes on."""
    write_segment(tmp_path / "raw", "p-s", 0, 20, missing=1)
    write_segment(tmp_path / "raw", "p-s", 20, 40)
    (_, steps), *others = episodes(run(tmp_path / "raw", tmp_path / "out")).values()
    assert not others and np.flatnonzero(~steps.action_mask).tolist() == [19, 39]


def test_sessions_and_switched_off(tmp_path: Path) -> None:
    for session in ("p-s", "p-t", "q-s"):
        for start in (0, 20):
            write_segment(tmp_path / "raw", session, start, start + 20)
    assert len(episodes(run(tmp_path / "raw", tmp_path / "on"))) == 3
    apart = episodes(run(tmp_path / "raw", tmp_path / "off", vpt=VPTOptions(join_segments=False)))
    assert len(apart) == 6
    assert all(steps.action_mask.sum() == 19 and not steps.events[0].any() for _, steps in apart.values())
    split = run(tmp_path / "raw", tmp_path / "split", validation_fraction=0.3)
    names = {split_name: [e.name for e in split.episodes(split_name)] for split_name in split.splits}
    assert [len(names[name]) for name in ("train", "validation")] == [2, 1]


def test_killed_and_continued_gives_the_same_bytes(tmp_path: Path) -> None:
    for session in range(5):
        for start in range(0, 60, 20):
            write_segment(tmp_path / "raw", f"p-s{session}", start, start + 20)
    options = [
        "--source",
        str(tmp_path / "raw"),
        "--clip_length",
        "10",
        "--shard_mb",
        "0.02",
        "--workers",
        "1",
    ]
    undisturbed, out = tmp_path / "undisturbed", tmp_path / "out"
    assert main(["prepare", *options, "--out", str(undisturbed)]) == 0
    command = [sys.executable, "-m", "reverie.pipelines.cli", "prepare", *options, "--out", str(out)]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT / "src")})
    while process.poll() is None and not list(out.glob("train-*.tar")):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not (out / "index.json").exists()
    assert main(["prepare", *options, "--out", str(out)]) == 0
    for path in sorted(undisturbed.iterdir()):
        assert (out / path.name).read_bytes() == path.read_bytes(), path.name


def edges(**changes: Any) -> Edges:
    """A segment whose first and last line are one tick, 100, or as `changes` say."""
    line = {**session_tick(100), **changes}
    return Edges(first=Tick.of(line), last=Tick.of(line), action=None)


LAST = session_tick(100)
STATS = LAST["stats"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"serverTick": 801, "milli": LAST["milli"] + 50}, True),
        ({"serverTick": 803, "milli": LAST["milli"] + 150}, True),
        ({"serverTick": 800, "milli": LAST["milli"] + 60}, True),  # a server tick that took longer
        ({"serverTick": 801, "milli": None}, True),
        ({"serverTick": None, "milli": LAST["milli"] + 50}, True),
        ({"serverTick": 804, "milli": LAST["milli"] + 50}, False),
        ({"serverTick": 801, "milli": LAST["milli"] + 151}, False),
        ({"serverTick": 799, "milli": LAST["milli"] + 50}, False),
        ({"serverTick": 801, "milli": LAST["milli"] - 1}, False),
        ({"serverTick": None, "milli": None}, False),
        ({"serverTick": "801", "milli": [1]}, False),
        ({"serverTick": True, "milli": float("nan")}, False),
        ({"serverTick": 801, "milli": 10**400}, True),  # no time at all, so the other clock counts
        ({"serverTick": 801, "stats": {**STATS, "minecraft.custom:minecraft.jump": 99}}, False),
        ({"serverTick": 801, "stats": {}}, False),
        ({"serverTick": 801, "stats": None}, False),
        ({}, False),  # the same tick again
    ],
)
def test_what_counts_as_contiguous(changes: dict[str, Any], expected: bool) -> None:
    if "milli" not in changes and changes:
        changes = {"milli": LAST["milli"] + 50, **changes}
    assert continues(edges(), edges(**changes)) is expected


def test_damaged_border_lines_join_nothing(tmp_path: Path) -> None:
    path = write_segment(tmp_path / "raw", "p-s", 0, 20)
    write_segment(tmp_path / "raw", "p-s", 20, 40)
    write_log(path.with_suffix(".jsonl"), *[session_tick(t) for t in range(19)], "{")
    assert len(episodes(run(tmp_path / "raw", tmp_path / "out"))) == 2
