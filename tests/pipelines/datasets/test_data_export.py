"""`reverie data export`: tables against what was recorded, and a round trip of logs and videos through `prepare`."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from reverie.data.actions import ActionSpace, Binary, Categorical, Continuous
from reverie.data.shards.index import ShardIndex
from reverie.data.shards.latents import LatentWriter
from reverie.data.shards.reader import ShardReader
from reverie.data.shards.tables import file_name, stretches
from reverie.data.sources.declaration import declare
from reverie.data.sources.episodes import EpisodeWriter
from reverie.data.video.codec import encode_video
from reverie.pipelines.cli import main
from reverie.pipelines.datasets.export import ExportConfig, export
from reverie.pipelines.datasets.prepare import PrepareConfig, prepare
from tests.data.corpus import EVENTS, LENGTHS, SPACE, TASKS, draw, taken_actions

ROOT = Path(__file__).parents[3]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def content_of(index: ShardIndex) -> dict[str, dict[str, Any]]:
    """Last part of an episode's name -> everything that is stored of it."""
    reader, found = ShardReader(index), {}
    for stretch in stretches(index):
        parts = [reader.steps(sample) for sample in stretch.samples]
        frames = [reader.frames(sample, 0, sample.n) for sample in stretch.samples]
        last = stretch.samples[-1]
        found[stretch.name.rpartition("/")[2]] = {
            "frames": np.concatenate(frames),
            **{f"action/{c}": np.concatenate([part.actions[c] for part in parts]) for c in parts[0].actions},
            **{
                name: np.concatenate([getattr(part, name) for part in parts])
                for name in ("action_mask", "reward", "reward_mask", "events")
            },
            "is_terminal": np.array(last.is_terminal),
            "logged": np.array(last.events is not None),
        }
    return found


def assert_same(a: ShardIndex, b: ShardIndex) -> None:
    assert (a.action_space, a.tasks, a.frame_size) == (b.action_space, b.tasks, b.frame_size)
    assert abs(a.fps - b.fps) < 0.01
    left, right = content_of(a), content_of(b)
    assert set(left) == set(right)
    for name in left:
        for field, value in left[name].items():
            there = right[name][field]
            assert value.dtype == there.dtype
            np.testing.assert_array_equal(value, there, err_msg=f"{name} {field}")


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_round_trip(form: str, prepared: Path, tmp_path: Path) -> None:
    """All kinds of actions, rewards, events and ends, in clips of 32 frames, bit for bit."""
    assert (
        main(
            [
                "data",
                "export",
                str(prepared),
                "--out",
                str(tmp_path / "out"),
                "--steps",
                form,
                "--videos",
                "lossless",
            ]
        )
        == 0
    )
    prepare(
        PrepareConfig(source=tmp_path / "out", out=tmp_path / "again", validation_fraction=0.2, workers=1)
    )
    again = ShardIndex.load(tmp_path / "again")
    assert {entry["source"] for entry in again.content["skipped"]} == {"*.csv", "*.md"}, "its tables"
    assert_same(ShardIndex.load(prepared), again)


ODD = ActionSpace(
    {
        "one key": Binary(1, ("jump",)),
        "stick": Continuous(2, -0.1, 0.1, ("x", "x")),
        "lever": Continuous(1, 0.3, 0.7),
        "move": Categorical(3, 2, ("a", "b", "c")),
        "numbered": Binary(2, ("1", "2")),
    }
)


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_round_trip_of_partial_knowledge_and_odd_sizes(form: str, tmp_path: Path) -> None:
    """Unknown rows, plain video beside logged, odd frame sizes, names with dots, spaces and letters of all kinds."""
    folder, rng, n = tmp_path / "raw", np.random.default_rng(0), 20
    for name in ("a.b c", "d\u00e9\u4e2d/e", "plain"):
        path = folder / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        frames = rng.integers(0, 256, (n, 24, 64, 3), dtype=np.uint8)
        encode_video(path, frames, 12.5, quality="lossless")
        if name == "plain":
            continue
        np.savez(
            path.with_name(f"{path.stem}.npz"),
            **{
                "action/one key": rng.integers(0, 2, (n, 1)),
                "action/stick": rng.choice([-0.1, 0.1, 0.05], (n, 2)),  # the ends of the range, in float64
                "action/lever": rng.choice([0.3, 0.7], (n, 1)),
                "action/move": rng.integers(0, 3, n),
                "action/numbered": rng.integers(0, 2, (n, 2)),
            },
            action_mask=rng.random(n) < 0.6,
            reward=rng.normal(size=n),
            reward_mask=rng.random(n) < 0.5,
        )
    content = {"action_space": ODD.to_json(), "tasks": ['open, the "door"', "2/3"]}
    (folder / "actions.json").write_text(json.dumps(content))
    config = {"size": (23, 41), "mode": "crop", "clip_length": 7, "validation_fraction": 0.0, "workers": 1}
    prepare(PrepareConfig(source=folder, out=tmp_path / "shards", **config))
    export(ExportConfig(path=tmp_path / "shards", out=tmp_path / "out", steps=form, videos="lossless"))
    assert not list((tmp_path / "out" / "episodes").glob(f"plain.{form}"))
    prepare(
        PrepareConfig(source=tmp_path / "out", out=tmp_path / "again", validation_fraction=0.0, workers=1)
    )
    assert_same(ShardIndex.load(tmp_path / "shards"), ShardIndex.load(tmp_path / "again"))
    assert {row["labelled"] for row in rows(tmp_path / "out" / "episodes.csv")} == {"0", "1"}


def test_a_lone_video_becomes_one_again(tmp_path: Path) -> None:
    """Its train and its validation part are one episode."""
    encode_video(tmp_path / "raw.mp4", draw(0, taken_actions(0, 50), 50), 10, quality="lossless")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw.mp4").rename(tmp_path / "raw" / "long.mp4")
    prepare(PrepareConfig(source=tmp_path / "raw", out=tmp_path / "shards", clip_length=16, workers=1))
    export(ExportConfig(path=tmp_path / "shards", out=tmp_path / "out", videos="high"))
    with av.open(str(tmp_path / "out" / "episodes" / "long.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 50
    assert [(row["split"], row["frames"]) for row in rows(tmp_path / "out" / "episodes.csv")] == [
        ("train", "45"),
        ("validation", "5"),
    ]


def test_tables_equal_what_was_recorded(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = json.loads((shards / "index.json").read_text())
    index["skipped"] = [{"source": "bad|one.mp4", "reason": "bad|one.mp4: holds no frames,\nnone."}]
    (shards / "index.json").write_text(json.dumps(index))
    out = tmp_path / "out"
    assert main(["data", "export", str(shards), "--out", str(out)]) == 0
    assert capsys.readouterr().out.splitlines() == [str(out / "README.md")]
    episodes = {int(row["episode"][-3:]): row for row in rows(out / "episodes.csv")}
    assert sorted(episodes) == list(range(len(LENGTHS)))
    for number, row in episodes.items():
        marks = EVENTS.get(number, [])
        assert int(row["frames"]) == LENGTHS[number] and row["seconds"] == f"{LENGTHS[number] / 10:.3f}"
        assert row["tasks_accomplished"] == "; ".join(dict.fromkeys(TASKS[task] for _, task in sorted(marks)))
        assert row["terminal"] == str(int(number % 2 == 0)) and row["labelled"] == "1"
        assert set(row["shards"].split()) <= {shard["name"] for shard in index["shards"]}
    listed = rows(out / "clips.csv")
    assert [row["key"] for row in listed] == [
        s["key"] for split in ("train", "validation") for s in index["samples"] if s["split"] == split
    ]
    assert sum(int(row["frames"]) for row in listed) == sum(LENGTHS)
    tasks = {row["task"]: row for row in rows(out / "tasks.csv")}
    for number, task in enumerate(TASKS):
        per_episode = [sum(t == number for _, t in marks) for marks in EVENTS.values()]
        assert int(tasks[task]["events"]) == sum(per_episode)
        assert int(tasks[task]["episodes"]) == sum(count > 0 for count in per_episode)
        assert int(tasks[task]["events"]) == int(tasks[task]["events_train"]) + int(
            tasks[task]["events_validation"]
        )
    assert rows(out / "skipped.csv") == [{"stage": "prepare", **index["skipped"][0]}]
    declared = declare(out, [])
    assert declared.action_space == SPACE and declared.tasks == TASKS
    text = (out / "README.md").read_text()
    assert "24 x 40 pixels at 10 frames a second, stored bit-exact" in text
    assert "| stick | continuous | 2 | -1 to 1 |  |" in text and "| door | 5 | 4 |" in text
    assert str(tmp_path) not in "".join(path.read_text() for path in out.iterdir())


def test_the_card_cannot_be_broken_by_names(shards: Path, tmp_path: Path) -> None:
    index = json.loads((shards / "index.json").read_text())
    index["tasks"] = ["do|or", "goal\n# Heading"]
    (shards / "index.json").write_text(json.dumps(index))
    export(ExportConfig(path=shards, out=tmp_path / "out"))
    lines = (tmp_path / "out" / "README.md").read_text().splitlines()
    assert "| do\\|or | 5 | 4 |" in lines and "| goal # Heading | 3 | 3 |" in lines


@pytest.mark.parametrize(
    "episode",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "a/../b",
        ".hidden",
        "a//b",
        "a\x00b",
        "a\\b",
        "x" * 300,
        "",
        "a\ud800",
    ],
)
def test_names_cannot_leave_the_folder(episode: str) -> None:
    name = file_name(episode)
    assert "/" not in name and not name.startswith(".") and len(name) < 60 and name.isascii()


def test_names_that_files_may_have_are_kept() -> None:
    for name in ("a", "deep/er/\u65e5\u672c \u00fc", "a.mp4", "v1.2"):
        assert file_name(name) == name


def test_a_damaged_clip_costs_its_episode_alone(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = ShardIndex.load(shards)
    sample = next(s for split in index.splits for s in index.samples(split) if s.n == 32)
    offset, size = sample.members["steps.npz"]
    content = bytearray((shards / sample.shard).read_bytes())
    content[offset : offset + size] = bytes(size)
    (shards / sample.shard).write_bytes(content)
    out = tmp_path / "out"
    assert (
        main(["data", "export", str(shards), "--out", str(out), "--steps", "csv", "--videos", "standard"])
        == 0
    )
    assert (
        f"skipped {sample.episode}: {sample.shard}: clip {sample.key} is damaged" in capsys.readouterr().out
    )
    assert [(row["stage"], row["source"]) for row in rows(out / "skipped.csv")] == [
        ("export", sample.episode)
    ]
    for suffix in ("csv", "mp4"):
        names = {path.stem for path in (out / "episodes").rglob(f"*.{suffix}")}
        assert names == {f"episode-{k:03d}" for k in range(len(LENGTHS))} - {sample.episode[-11:]}


def test_missing_clips_in_the_middle_divide_an_episode(shards: Path, tmp_path: Path) -> None:
    content = json.loads((shards / "index.json").read_text())
    gone = next(s for s in content["samples"] if s["episode"].endswith("002") and s["start"] == 32)
    content["samples"].remove(gone)
    (shards / "index.json").write_text(json.dumps(content))
    export(ExportConfig(path=shards, out=tmp_path / "out", steps="jsonl"))
    folder = tmp_path / "out" / "episodes" / "episodes"
    lines = {path.stem: len(path.read_text().splitlines()) for path in folder.glob("episode-002*")}
    assert lines == {"episode-002_00000000": 32, "episode-002_00000064": 36}


def test_latents_have_logs_and_no_videos(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = ShardIndex.load(prepared)
    with LatentWriter(tmp_path / "latents", index, tokenizer_sha256="abc", latent_shape=(4, 3)) as writer:
        for split in index.splits:
            for sample in index.samples(split):
                writer.add(sample, np.zeros((sample.n, 4, 3)))
        writer.finish()
    arguments = ["data", "export", str(tmp_path / "latents"), "--out"]
    assert main([*arguments, str(tmp_path / "a"), "--videos", "high"]) == 1
    assert "holds latents, not pictures" in capsys.readouterr().err
    assert main([*arguments, str(tmp_path / "b"), "--steps", "jsonl"]) == 0
    assert len(list((tmp_path / "b").rglob("*.jsonl"))) == len(LENGTHS)


def test_other_folders_are_left_alone(
    prepared: Path, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("precious")
    arguments = ["data", "export", str(prepared), "--out", str(out)]
    assert main(arguments) == 1 and "holds something else already" in capsys.readouterr().err
    assert contents(out) == {"mine.txt": b"precious"}
    (out / "mine.txt").unlink()
    assert main(arguments) == 0
    before = contents(out)
    assert main(arguments) == 0 and contents(out) == before
    capsys.readouterr()
    assert main([*arguments, "--steps", "csv"]) == 1
    assert "is of an export of other shards or with other settings" in capsys.readouterr().err
    for spoiled in (b"[" * 100_000, b"\xff", b" " * (17 << 20)):
        (out / "export.json").write_bytes(spoiled)
        assert main(arguments) == 1
        assert "is of an export of other shards or with other settings" in capsys.readouterr().err


KILLED = """
import sys
from pathlib import Path
from reverie.pipelines.datasets.export import ExportConfig, export
export(ExportConfig(path=Path(sys.argv[1]), out=Path(sys.argv[2]), steps="jsonl", videos="lossless"))
"""


def test_kill_and_continue_equals_the_undisturbed_export(tmp_path: Path) -> None:
    writer = EpisodeWriter(
        tmp_path / "raw", env="test", fps=10, frame_size=(24, 40), action_space=SPACE, tasks=TASKS
    )
    for k in range(12):
        actions = taken_actions(k, 60)
        blank = np.zeros((60, 2), np.uint8)
        writer.write(
            f"{k:03d}", draw(k, actions, 60), actions, np.zeros(60, np.float32), blank, False, "test"
        )
    prepare(PrepareConfig(source=tmp_path / "raw", out=tmp_path / "shards", workers=1))
    whole, out = tmp_path / "whole", tmp_path / "out"
    export(ExportConfig(path=tmp_path / "shards", out=whole, steps="jsonl", videos="lossless"))
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "shards"), str(out)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )
    while process.poll() is None and len(list(out.rglob("*.jsonl"))) < 3:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL and not (out / "README.md").exists()
    export(ExportConfig(path=tmp_path / "shards", out=out, steps="jsonl", videos="lossless"))
    assert contents(out) == contents(whole) and len(contents(whole)) == 12 * 2 + 7
