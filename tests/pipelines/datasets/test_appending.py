"""`prepare --base`: shards grow, no byte of the old ones changes, whatever is killed; what does not fit is refused."""

import json
import random
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reverie.data.errors import UserError
from reverie.data.shards.index import INDEX, ShardIndex
from reverie.data.shards.reader import ShardReader
from reverie.data.video.codec import read_frames
from reverie.pipelines.datasets.prepare import PrepareConfig, prepare
from tests.data.corpus import write_recording
from tests.data.shards.test_shards import contents
from tests.processes import finish, kill_group, start


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two recordings whose episodes have the same names."""
    root = tmp_path_factory.mktemp("recordings")
    return write_recording(root / "old", [30, 41, 25, 33]), write_recording(root / "new", [22, 28, 37])


@pytest.fixture
def shards(sources: tuple[Path, Path], tmp_path: Path) -> Path:
    prepare(first(sources, tmp_path / "shards"))
    return tmp_path / "shards"


def first(sources: tuple[Path, Path], out: Path) -> PrepareConfig:
    settings = {"clip_length": 20, "shard_mb": 0.02, "validation_fraction": 0.3, "workers": 1}
    return PrepareConfig(source=sources[0], out=out, **settings)  # type: ignore[arg-type]


def added(sources: tuple[Path, Path], base: Path, out: Path) -> PrepareConfig:
    return PrepareConfig(source=sources[1], base=base, out=out, workers=1)


def tars(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.tar")}


def test_shards_grow_and_old_ones_stay_byte_for_byte(sources: tuple[Path, Path], shards: Path) -> None:
    before, old = tars(shards), ShardIndex.load(shards)
    prepare(added(sources, shards, shards))
    after, index = tars(shards), ShardIndex.load(shards)
    assert {name: after[name] for name in before} == before and len(after) > len(before)
    assert index.content["samples"][: len(old.content["samples"])] == old.content["samples"]
    assert index.content["identity"] == old.content["identity"] and index.hash() != old.hash()
    assert sum(sample["n"] for sample in index.content["samples"]) == 30 + 41 + 25 + 33 + 22 + 28 + 37
    episodes = [e for split in index.splits for e in index.episodes(split)]
    assert len(episodes) == 7 and len({e.name for e in episodes}) == 7
    assert all(sample["n"] <= 20 for sample in index.content["samples"])  # in the form of the first ones
    assert not list(shards.glob(".*"))
    names = {sample["shard"] for sample in index.content["samples"]}
    assert names == {record["name"] for record in index.content["shards"]} == set(after)


def test_every_new_frame_and_action_is_there(sources: tuple[Path, Path], shards: Path) -> None:
    prepare(added(sources, shards, shards))
    index = ShardIndex.load(shards)
    reader = ShardReader(index)
    seen = 0
    for split in index.splits:
        for episode in index.episodes(split):
            if not episode.samples[0].source.startswith("added-1/"):
                continue
            name = Path(episode.samples[0].source).stem
            frames = np.concatenate([reader.frames(sample, 0, sample.n) for sample in episode.samples])
            truth = read_frames(sources[1] / "episodes" / f"{name}.mp4", range(len(frames)))
            assert np.array_equal(frames, truth[:, : frames.shape[1], : frames.shape[2]])
            seen += len(frames)
    assert seen == 22 + 28 + 37


def test_the_same_call_again_adds_nothing(sources: tuple[Path, Path], shards: Path) -> None:
    prepare(added(sources, shards, shards))
    before = contents(shards)
    prepare(added(sources, shards, shards))
    prepare(first(sources, shards))  # what made them is finished, too
    assert contents(shards) == before
    with pytest.raises(UserError, match="holds these sources already"):
        prepare(replace(added(sources, shards, shards.with_name("new")), source=sources[0]))


def test_a_new_folder_shares_the_files(sources: tuple[Path, Path], shards: Path, tmp_path: Path) -> None:
    before, out = contents(shards), tmp_path / "grown"
    prepare(added(sources, shards, out))
    assert contents(shards) == before
    for name in tars(shards):
        assert (out / name).samefile(shards / name)
    other = tmp_path / "other"
    shutil.copytree(shards, other)
    prepare(added(sources, other, other))
    assert contents(other) == contents(out)  # as in place
    with pytest.raises(UserError, match="holds shards already, without these sources"):
        prepare(replace(added(sources, shards, out), source=write_recording(tmp_path / "more", [22])))
    prepare(replace(added(sources, out, out), source=tmp_path / "more"))  # a third time
    content = json.loads((out / INDEX).read_text())
    assert [entry["clips"] for entry in content["appended"]] == [6, 2]
    assert any(sample["source"].startswith("added-2/") for sample in content["samples"])


def test_what_does_not_fit_is_refused(sources: tuple[Path, Path], shards: Path, tmp_path: Path) -> None:
    other = shutil.copytree(sources[1], tmp_path / "other")
    recording = json.loads((other / "recording.json").read_text())
    (other / "recording.json").write_text(json.dumps({**recording, "tasks": [*recording["tasks"], "fly"]}))
    before = contents(shards)
    with pytest.raises(UserError, match="has other tasks than .*; prepare that into a folder of its own"):
        prepare(replace(added(sources, shards, shards), source=other))
    with pytest.raises(UserError, match="no such folder; `reverie prepare` makes shards"):
        prepare(added(sources, tmp_path / "none", tmp_path / "out"))
    assert contents(shards) == before


@pytest.mark.slow
def test_a_killed_call_leaves_the_old_index_or_the_new_one(
    sources: tuple[Path, Path], shards: Path, tmp_path: Path
) -> None:
    before = contents(shards)
    undisturbed = Path(shutil.copytree(shards, tmp_path / "undisturbed"))
    finish(start(prepare, added(sources, undisturbed, undisturbed)))
    again = Path(shutil.copytree(shards, tmp_path / "again"))
    began = time.monotonic()  # the first process was slow to start
    finish(start(prepare, added(sources, again, again)))
    took, rng, seen = time.monotonic() - began, random.Random(0), set()
    for number in range(8):
        out = Path(shutil.copytree(shards, tmp_path / f"killed-{number}"))
        process = start(prepare, added(sources, out, out))
        time.sleep(rng.uniform(0, took))
        killed = kill_group(process)
        index = (out / INDEX).read_bytes()
        assert index in (before[INDEX], contents(undisturbed)[INDEX])
        ShardIndex.load(out)
        seen.add((killed, index == before[INDEX]))
        finish(start(prepare, added(sources, out, out)))
        assert contents(out) == contents(undisturbed)
    assert (True, True) in seen
