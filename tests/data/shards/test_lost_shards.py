"""One slow, truncated or missing shard costs its own clips, and nothing else."""

import itertools
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reverie.data.batch import Batch
from reverie.data.errors import UserError
from reverie.data.loading.corpora import Corpora
from reverie.data.loading.loader import Loader, LoaderConfig
from reverie.data.shards.index import Sample, ShardIndex
from reverie.data.shards.reader import ShardReader
from tests.data.corpus import read_cells
from tests.data.mixing import write_mixture
from tests.data.reading import digests

CONFIG = LoaderConfig(batch_size=4, length=16)
STEPS = 20
"""More than an epoch."""


@pytest.fixture
def copy(shards: ShardIndex, tmp_path: Path) -> ShardIndex:
    return ShardIndex.load(shutil.copytree(shards.folder, tmp_path / "copy"))


def paths(index: ShardIndex, split: str = "train") -> list[Path]:
    return [index.folder / name for name in dict.fromkeys(s.shard for s in index.samples(split))]


def take(loader: Loader, count: int = STEPS) -> list[Batch]:
    return list(itertools.islice(loader, count))


def shown(batch: Batch) -> set[tuple[int, int]]:
    """(episode, frame) of every picture."""
    assert batch.frames is not None
    return {tuple(read_cells(frame)[:2]) for row in batch.frames.numpy() for frame in row}  # type: ignore[misc]


def frames_of(samples: list[Sample]) -> set[tuple[int, int]]:
    return {(int(s.episode[-3:]), s.start + i) for s in samples for i in range(s.n)}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_missing_shard_is_left_out_and_listed_once(
    workers: int, shards: ShardIndex, copy: ShardIndex
) -> None:
    lost = paths(copy)[2]
    lost.unlink()
    loader = Loader(copy, replace(CONFIG, num_workers=workers))
    batches = take(loader)
    clips = [s for s in copy.samples("train") if s.shard == lost.name]
    assert loader.skipped == [
        f"{lost}: cannot be opened (No such file or directory), so none of its {len(clips)} clips can be read; "
        f"restore it or prepare the data again."
    ]
    seen = set().union(*(shown(batch) for batch in batches))
    assert not seen & frames_of(clips)
    for found, whole in zip(batches, take(Loader(shards, CONFIG)), strict=True):
        for a, b, row in zip(digests(found), digests(whole), range(4), strict=True):
            assert whole.frames is not None
            pictures = {tuple(read_cells(frame)[:2]) for frame in whole.frames[row].numpy()}
            assert (a == b) == (not pictures & frames_of(clips)), "no other row changes"


def test_a_truncated_shard_gives_what_it_still_holds(copy: ShardIndex) -> None:
    path = max(paths(copy), key=lambda p: sum(s.shard == p.name for s in copy.samples("train")))
    clips = [s for s in copy.samples("train") if s.shard == path.name]
    assert len(clips) > 1
    os.truncate(path, clips[1].members["clip.mp4"][0] + 10)
    loader = Loader(copy, CONFIG)
    seen = set().union(*(shown(batch) for batch in take(loader)))
    assert seen & frames_of(clips[:1]) and not seen & frames_of(clips[1:])
    assert len(loader.skipped) == len(clips) - 1
    assert all("the shard ends after" in sentence for sentence in loader.skipped)


def make_hang(path: Path) -> None:
    """Whoever opens `path` waits until somebody writes to it."""
    path.unlink()
    os.mkfifo(path)


@pytest.fixture
def released(copy: ShardIndex) -> Iterator[None]:
    """Afterwards lets go of the threads that hang."""
    yield
    for path in copy.folder.iterdir():
        if path.is_fifo():
            os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_hanging_shard_costs_one_wait(
    workers: int, shards: ShardIndex, copy: ShardIndex, released: None
) -> None:
    lost, patience = paths(copy)[2], 0.3
    make_hang(lost)
    loader = Loader(copy, replace(CONFIG, num_workers=workers, patience=patience))
    began = time.monotonic()
    batches = take(loader)
    elapsed = time.monotonic() - began
    assert elapsed > patience, "it did hang"
    assert len(loader.skipped) == 1 and f"{lost}: did not answer within 0.3 s" in loader.skipped[0]
    clips = [s for s in copy.samples("train") if s.shard == lost.name]
    assert not set().union(*(shown(batch) for batch in batches)) & frames_of(clips)
    again = take(Loader(copy, replace(CONFIG, patience=patience)))
    assert [digests(a) for a in batches] == [digests(b) for b in again], "the same rows take its place"
    reader = ShardReader(copy, patience=patience)
    waits = []
    for _ in range(3):
        began = time.monotonic()
        with pytest.raises(UserError, match="did not answer"):
            reader.steps(clips[0])
        waits.append(time.monotonic() - began)
    assert waits[0] >= patience > 10 * max(waits[1:]), "nobody waits for it twice"


def test_a_run_goes_on_with_one_shard_of_many(shards: ShardIndex, copy: ShardIndex) -> None:
    """Far more than a few windows in a row are broken."""
    kept = max(paths(copy), key=lambda p: sum(s.n for s in copy.samples("train") if s.shard == p.name))
    for path in paths(copy):
        if path != kept:
            path.unlink()
    loader = Loader(copy, CONFIG)
    seen = set().union(*(shown(batch) for batch in take(loader)))
    assert seen and seen <= frames_of([s for s in copy.samples("train") if s.shard == kept.name])
    assert 1 < len(loader.skipped) <= len(paths(copy)) - 1


@pytest.mark.parametrize("workers", [0, 2])
def test_nothing_left_is_one_sentence(workers: int, copy: ShardIndex, plain: ShardIndex) -> None:
    for path in paths(copy):
        path.unlink()
    mixture = write_mixture(copy.folder.with_name("m.yaml"), {plain.folder: 9, copy.folder: 1})
    for data in (Corpora.of(copy), Corpora.load(mixture)):
        with pytest.raises(
            UserError, match="windows in a row could not be read, the last because: "
        ) as caught:
            take(Loader(data, replace(CONFIG, num_workers=workers)))
        assert "\n" not in str(caught.value) and str(copy.folder) in str(caught.value)


def test_a_folder_that_hangs_stops_the_run(copy: ShardIndex, released: None) -> None:
    assert len(paths(copy)) >= 5
    for path in paths(copy):
        make_hang(path)
    began = time.monotonic()
    with pytest.raises(UserError, match="5 shards did not answer, each for 0.05 s; check the disk or mount"):
        take(Loader(copy, replace(CONFIG, patience=0.05)))
    assert time.monotonic() - began < 5
