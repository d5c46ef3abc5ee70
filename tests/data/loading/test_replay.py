"""Episodes in memory give the rows that the loader makes of the same episodes in shards."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

from reverie.data.loading.config import LoaderConfig
from reverie.data.loading.corpora import Corpora
from reverie.data.loading.loader import collate
from reverie.data.loading.replay import Replay
from reverie.data.loading.rings import CorpusRings, Ring
from reverie.data.loading.streams import Piece
from reverie.data.shards.index import ShardIndex
from reverie.data.sources.episodes import Recording, complete_episodes
from reverie.pipelines.datasets.prepare import PrepareConfig, prepare
from reverie.pipelines.datasets.record import RecordConfig, record

LENGTH = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("replay")
    record(RecordConfig(out=folder / "episodes", env="minigrid-empty-5x5", episodes=6, max_steps=20))
    prepare(
        PrepareConfig(source=folder / "episodes", out=folder / "shards", workers=1, validation_fraction=0)
    )
    return folder


def filled(folder: Path, memory: int = 10**6, task: int = -1) -> Replay:
    replay = Replay(folder / "episodes", Recording.load(folder / "episodes"), memory, task)
    for name in complete_episodes(folder / "episodes"):
        replay.add(name)
    return replay


@pytest.mark.parametrize("task", [-1, 0])
def test_windows_equal_those_of_the_loader(folder: Path, task: int) -> None:
    replay = filled(folder, task=task)
    names = [episode.name for episode in replay.episodes]
    lengths = np.array([len(episode.frames) for episode in replay.episodes])
    before = np.concatenate([[0], lengths.cumsum()])
    ring = shard_ring(folder)
    numbers = {
        Path(e.name).stem: i for i, e in enumerate(ShardIndex.load(folder / "shards").episodes("train"))
    }
    batch = replay.batch(16, LENGTH, np.random.default_rng(0))
    assert batch.segment.max() >= 2, "a window that holds three pieces"
    for row, key in enumerate(batch.key):
        name, start = key.split(":")
        number, frame, missing, pieces = names.index(name), int(start), LENGTH, []
        while missing:
            n = min(missing, int(lengths[number]) - frame)
            pieces.append(Piece(numbers[names[number]], frame, n, task))
            number, frame, missing = (number + 1) % len(names), 0, missing - n
        expected = collate([ring.rows.row(pieces)], [key], torch.zeros(1, dtype=torch.bool))
        found = batch.rows(slice(row, row + 1))
        for field in fields(found):
            assert_equal(getattr(found, field.name), getattr(expected, field.name), field.name)
    assert before[-1] == replay.frames


def test_memory_keeps_the_newest_and_is_restored(folder: Path) -> None:
    everything = [len(episode.frames) for episode in filled(folder).episodes]
    memory = sum(everything[-3:]) - 1
    replay = filled(folder, memory)
    assert [len(episode.frames) for episode in replay.episodes] == everything[-3:]
    again = Replay(folder / "episodes", Recording.load(folder / "episodes"), memory)
    again.restore(complete_episodes(folder / "episodes"))
    assert [e.name for e in again.episodes] == [e.name for e in replay.episodes]
    a, b = (x.batch(4, 10, np.random.default_rng(3)) for x in (replay, again))
    assert a.key == b.key and torch.equal(a.frames, b.frames)  # type: ignore[arg-type]


def shard_ring(folder: Path) -> Ring:
    corpora = Corpora.load(folder / "shards")
    return CorpusRings(corpora, 0, LoaderConfig(batch_size=1, length=1), cache_bytes=0).uniform()


def assert_equal(found: object, expected: object, name: str) -> None:
    if isinstance(found, dict) and isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in found:
            assert_equal(found[key], expected[key], f"{name}.{key}")
    elif isinstance(found, torch.Tensor) and isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype and torch.equal(found, expected), name
    else:
        assert found == expected, name
