"""Alignment, packing, order and resume of the loader, on frames that show what they are."""

import itertools
import multiprocessing
import os
import signal
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from reverie.data.batch import Batch
from reverie.data.errors import UserError
from reverie.data.loading.loader import Loader, LoaderConfig
from reverie.data.shards.index import ShardIndex
from tests.data.corpus import EVENTS, LENGTHS, NO_ACTION, read_cells
from tests.data.reading import digests

CONFIG = LoaderConfig(batch_size=6, length=16)


def take(loader: Loader, count: int) -> list[Batch]:
    return list(itertools.islice(loader, count))


def tensors(batch: Batch) -> dict[str, torch.Tensor]:
    fields = {name: value for name, value in vars(batch).items() if isinstance(value, torch.Tensor)}
    return {**fields, **{f"action/{name}": value for name, value in batch.actions.items()}}


def assert_equal(a: Batch, b: Batch) -> None:
    assert a.key == b.key
    assert tensors(a).keys() == tensors(b).keys()
    for name, value in tensors(a).items():
        assert torch.equal(value, tensors(b)[name]), name


def shown(batch: Batch) -> np.ndarray:
    """(B, T, 9): the numbers in the frames."""
    assert batch.frames is not None
    return np.array([[read_cells(frame) for frame in row] for row in batch.frames.numpy()])


def test_actions_led_to_the_frames_that_show_them(shards: ShardIndex) -> None:
    first_frames = 0
    for batch in take(Loader(shards, replace(CONFIG, relevant_fraction=0.3)), 30):
        cells = shown(batch)
        first = cells[:, :, 1] + cells[:, :, 2] * 256 == 0
        np.testing.assert_array_equal(batch.is_first, first)
        np.testing.assert_array_equal(batch.action_mask, ~first)
        assert (cells[first][:, 3:] == NO_ACTION).all()
        known = cells[~first]
        np.testing.assert_array_equal(batch.actions["move"][~first], known[:, 3])
        np.testing.assert_array_equal(batch.actions["keys"][~first], known[:, 4:7])
        np.testing.assert_array_equal(((batch.actions["stick"][~first] + 1) * 100).round(), known[:, 7:9])
        for value in batch.actions.values():
            assert not value[torch.from_numpy(first)].any()  # null at an episode's first frame
        first_frames += first.sum()
    assert first_frames > 10


def test_field_types_and_shapes(shards: ShardIndex) -> None:
    batch = take(Loader(shards, CONFIG), 1)[0]
    assert batch.frames is not None and batch.latents is None
    assert batch.frames.dtype == torch.uint8 and batch.frames.shape == (6, 16, 24, 40, 3)
    assert {name: value.dtype for name, value in batch.actions.items()} == {
        "move": torch.int64,
        "keys": torch.bool,
        "stick": torch.float32,
    }
    assert batch.reward.dtype == torch.float32 and batch.task.dtype == batch.segment.dtype == torch.int64
    for flag in ("action_mask", "reward_mask", "is_first", "is_last", "is_terminal"):
        assert getattr(batch, flag).dtype == torch.bool and getattr(batch, flag).shape == (6, 16)
    assert batch.relevant.shape == (6,) and len(batch.key) == 6


def test_segments_are_contiguous_pieces_of_one_episode(shards: ShardIndex) -> None:
    spanning = 0
    for batch in take(Loader(shards, CONFIG), 20):
        cells, segment = shown(batch), batch.segment.numpy()
        index = cells[:, :, 1] + cells[:, :, 2] * 256
        same = segment[:, 1:] == segment[:, :-1]
        assert (segment[:, 0] == 0).all() and np.isin(np.diff(segment), [0, 1]).all()
        assert (np.diff(cells[:, :, 0])[same] == 0).all() and (np.diff(index)[same] == 1).all()
        lengths = np.array(LENGTHS)[cells[:, :, 0]]
        np.testing.assert_array_equal(batch.is_last, index == lengths - 1)
        np.testing.assert_array_equal(batch.is_terminal, (index == lengths - 1) & (cells[:, :, 0] % 2 == 0))
        spanning += int(((index[:, 1:] % 32 == 0) & same).sum())
        for key, cell, start in zip(batch.key, cells[:, 0], index[:, 0], strict=True):
            assert key == f"episodes/episode-{cell[0]:03d}:{start}"
    assert spanning > 0  # windows run on across the clips of an episode


def test_an_epoch_shows_every_frame_once(shards: ShardIndex) -> None:
    total = sum(sample.n for sample in shards.samples("train"))
    windows = total // 16
    seen: Counter[tuple[int, int]] = Counter()
    for batch in take(Loader(shards, replace(CONFIG, batch_size=1)), windows):
        seen.update((int(c[0]), int(c[1])) for c in shown(batch)[0])
    assert set(seen.values()) == {1}
    assert len(seen) == windows * 16 > total - 16


def test_splits_share_no_episode(shards: ShardIndex) -> None:
    names = [{episode.name for episode in shards.episodes(split)} for split in ("train", "validation")]
    assert names[0] and names[1] and not names[0] & names[1]


@pytest.mark.parametrize("relevant_fraction", [0.0, 0.5, 1.0])
def test_order_does_not_depend_on_workers(shards: ShardIndex, relevant_fraction: float) -> None:
    config = replace(CONFIG, relevant_fraction=relevant_fraction)
    alone = take(Loader(shards, config), 12)
    for workers in (1, 2):
        for a, b in zip(alone, take(Loader(shards, replace(config, num_workers=workers)), 12), strict=True):
            assert_equal(a, b)


def test_ranks_share_out_the_rows(shards: ShardIndex) -> None:
    config = replace(CONFIG, relevant_fraction=0.5)
    alone = take(Loader(shards, config), 5)
    for world_size in (2, 3):
        for rank in range(world_size):
            part = take(Loader(shards, config, rank=rank, world_size=world_size), 5)
            for whole, mine in zip(alone, part, strict=True):
                assert_equal(whole.rows(slice(rank, None, world_size)), mine)


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_at_any_batch_equals_the_uninterrupted_run(shards: ShardIndex, workers: int) -> None:
    config = replace(CONFIG, relevant_fraction=0.5, num_workers=workers)
    whole = take(Loader(shards, config), 20)  # more than two epochs
    for stop in (1, 12) if workers == 0 else (7,):
        first = Loader(shards, config)
        take(first, stop)
        state = first.state_dict()
        assert state["samples_consumed"] == stop * 6
        for rank in range(2):
            resumed = Loader(shards, replace(config, num_workers=0), rank=rank, world_size=2)
            resumed.load_state_dict(state)
            for a, b in zip(whole[stop:], take(resumed, 20 - stop), strict=True):
                assert_equal(a.rows(slice(rank, None, 2)), b)


def test_epochs_differ_and_are_counted(shards: ShardIndex) -> None:
    loader = Loader(shards, replace(CONFIG, batch_size=1))
    windows = sum(sample.n for sample in shards.samples("train")) // 16
    first = [batch.key for batch in take(loader, windows)]
    assert loader.state_dict()["epoch"] == 1
    assert first != [batch.key for batch in take(loader, windows)]
    other_seed = Loader(shards, replace(CONFIG, batch_size=1, seed=1))
    assert first != [batch.key for batch in take(other_seed, windows)]


@pytest.mark.parametrize("before", [None, 60])
def test_relevant_rows_lead_to_an_event_of_their_task(shards: ShardIndex, before: int | None) -> None:
    config = LoaderConfig(batch_size=8, length=24, relevant_fraction=0.25, relevant_before=before)
    events = {(episode, *event) for episode, listed in EVENTS.items() for event in listed}
    met: set[tuple[int, int, int]] = set()
    for batch in take(Loader(shards, config), 20):
        assert batch.relevant.tolist() == [False] * 6 + [True] * 2
        cells, tasks = shown(batch), batch.task.numpy()
        for row, t in itertools.product(range(8), range(24)):
            place = int(cells[row, t, 0]), int(cells[row, t, 1]), int(tasks[row, t])
            assert batch.reward[row, t] == float(place in events)
            if batch.relevant[row]:
                met |= {place} & events
                assert any(
                    (place[0], place[2]) == (episode, task) and -8 <= frame - place[1] < (before or 24)
                    for episode, frame, task in events
                )
    assert batch.reward_mask.all()
    train = {int(episode.name[-3:]) for episode in shards.episodes("train")}
    assert met == {event for event in events if event[0] in train}


def test_one_task(shards: ShardIndex) -> None:
    batch = take(Loader(shards, replace(CONFIG, task="goal", relevant_fraction=0.5)), 1)[0]
    assert (batch.task == 1).all()
    with pytest.raises(UserError, match="its tasks are: door, goal"):
        Loader(shards, replace(CONFIG, task="window"))


def test_labelled_fraction_hides_whole_episodes(shards: ShardIndex) -> None:
    known: dict[int, set[bool]] = {}
    for batch in take(Loader(shards, replace(CONFIG, labelled_fraction=0.5, seed=3)), 40):
        for row, cells in enumerate(shown(batch)):
            for t, cell in enumerate(cells):
                if not batch.is_first[row, t]:
                    known.setdefault(int(cell[0]), set()).add(bool(batch.action_mask[row, t]))
        hidden = ~batch.action_mask
        assert not any(value[hidden].any() for value in batch.actions.values())
        assert not (batch.reward_mask & (batch.task < 0)).any()
    assert all(len(states) == 1 for states in known.values())
    assert sum(states == {True} for states in known.values()) == round(0.5 * len(known))
    nothing = take(Loader(shards, replace(CONFIG, labelled_fraction=0.0)), 1)[0]
    assert not nothing.action_mask.any() and not nothing.reward_mask.any() and (nothing.task == -1).all()


def test_a_damaged_clip_is_replaced_and_reported(shards: ShardIndex, tmp_path) -> None:  # type: ignore[no-untyped-def]
    sample = shards.samples("train")[3]
    for path in shards.folder.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with (tmp_path / sample.shard).open("r+b") as shard:
        shard.seek(sample.members["clip.mp4"][0])
        shard.write(bytes(sample.members["clip.mp4"][1]))
    loaders = [Loader(ShardIndex.load(tmp_path), replace(CONFIG, num_workers=workers)) for workers in (0, 2)]
    batches = [take(loader, 12) for loader in loaders]
    for a, b in zip(*batches, strict=True):
        assert_equal(a, b)
    for loader in loaders:
        assert len(loader.skipped) == 1 and sample.key in loader.skipped[0]


def test_mistakes_are_one_sentence(shards: ShardIndex) -> None:
    for config, words in [
        (replace(CONFIG, split="test"), "has no split 'test', only train, validation"),
        (replace(CONFIG, length=10_000), "fewer than one window of 10000"),
    ]:
        with pytest.raises(UserError, match=words):
            Loader(shards, config)
    with pytest.raises(UserError, match="no multiple of the 4 processes"):
        Loader(shards, CONFIG, world_size=4)
    with pytest.raises(UserError, match=r"relevant_fraction: must be in \[0, 1\]"):
        LoaderConfig(batch_size=1, length=1, relevant_fraction=1.5)
    with pytest.raises(UserError, match="seed: the saved run used 5"):
        Loader(shards, CONFIG).load_state_dict({"seed": 5, "epoch": 0, "samples_consumed": 0})


def _kill_a_worker() -> None:
    children = [child for child in multiprocessing.active_children() if child.pid is not None]
    assert children and children[0].pid
    os.kill(children[0].pid, signal.SIGKILL)


def test_a_killed_worker_costs_no_batch(shards: ShardIndex, caplog: pytest.LogCaptureFixture) -> None:
    config = LoaderConfig(batch_size=2, length=8, num_workers=1)
    undisturbed = [digests(b) for b in itertools.islice(Loader(shards, replace(config, num_workers=0)), 8)]
    loader = Loader(shards, config)
    batches, found = iter(loader), []
    for number in range(8):
        if number in (2, 5):
            _kill_a_worker()
        found.append(digests(next(batches)))
    assert found == undisturbed and loader.state_dict()["samples_consumed"] == 16
    assert "a worker process of the loader died" in caplog.text


def test_workers_that_always_die_are_one_sentence(
    shards: ShardIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = Loader(shards, LoaderConfig(batch_size=2, length=8, num_workers=1))
    monkeypatch.setattr(type(loader._batches), "__getitem__", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(UserError, match="has died 4 times.*use fewer --batches.num_workers"):
        next(iter(loader))
