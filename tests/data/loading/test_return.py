"""The game's own reward as a task: which episodes are the better ones, and what the rows of `return` say."""

import itertools
import json
from collections import Counter
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch

from reverie.data.batch import RETURN, Batch
from reverie.data.errors import UserError
from reverie.data.loading.corpora import Corpora
from reverie.data.loading.loader import Loader, LoaderConfig
from reverie.data.loading.rewards import Brought, best_episodes, nothing_to_learn, rewards_of
from reverie.data.shards.index import ShardIndex
from reverie.data.sources.episodes import EpisodeWriter
from reverie.data.video.codec import encode_video
from reverie.pipelines.datasets.prepare import PrepareConfig, prepare
from tests.data.corpus import SPACE, TASKS, draw, read_cells, taken_actions
from tests.data.reading import digests

CONFIG = LoaderConfig(batch_size=8, length=8, relevant_fraction=0.5, best_fraction=0.5)


def take(data: Corpora | ShardIndex, config: LoaderConfig, count: int) -> list[Batch]:
    return list(itertools.islice(Loader(data, config), count))


@pytest.mark.parametrize(
    ("returns", "fraction", "best"),
    [
        ([3, 1, 4, 1, 5], 0.4, [2, 4]),
        ([-900, -1500, -200, -1200], 0.25, [2]),
        ([-900, -1500, -200, -1200], 0.3, [0, 2]),  # rounded up
        ([0, 0, 0, 1, 0, 0], 0.5, [3]),  # those as bad as the worst are no better part
        ([0, 0, 0, 1, 0, 0], 1.0, [0, 1, 2, 3, 4, 5]),
        ([7, 7, 7], 0.34, [0, 1]),  # all alike: then any
        ([2, 2, 1], 0.1, [0]),
        ([0.1] * 10 + [0.2] * 3, 0.3, [10, 11, 12]),
        ([], 0.3, []),
    ],
)
def test_the_better_part_of_the_episodes(returns: list[float], fraction: float, best: list[int]) -> None:
    assert best_episodes(dict(enumerate(returns)), fraction) == best


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ([None, None], "no rewards are known"),
        ([Brought(0.0, True, 0.0, 0.0)] * 2, "every reward is 0, and every episode brings 0"),
        ([Brought(-200.0, True, -1.0, -1.0)] * 3, "every reward is -1, and every episode brings -200"),
        # Longer episodes bring more, though each step brings the same; and one episode can be good in parts.
        ([Brought(20.0, True, 1.0, 1.0), Brought(31.0, True, 1.0, 1.0)], None),
        ([Brought(1.0, True, 0.0, 1.0)], None),
    ],
)
def test_rewards_that_teach_nothing(found: list[Brought | None], reason: str | None) -> None:
    told = nothing_to_learn(found)
    assert told is None if reason is None else reason in (told or "")


def test_rows_of_the_return_show_the_recorded_rewards(shards: ShardIndex) -> None:
    """Rewards are 0.1 x the frame's number in that corpus: the longest episodes bring most."""
    corpora = Corpora.of(shards).with_return()
    assert corpora.tasks == [*TASKS, RETURN] and corpora.hash() == Corpora.of(shards).hash()
    lengths = sorted((episode.n, episode.name) for episode in shards.episodes("train"))
    better = {name for _, name in lengths[len(lengths) // 2 :]}
    seen: Counter[tuple[bool, int]] = Counter()
    for batch in take(corpora, CONFIG, 60):
        assert batch.frames is not None
        cells = np.array([[read_cells(frame) for frame in row] for row in batch.frames.numpy()])
        frame = torch.from_numpy(cells[:, :, 1] + 256 * cells[:, :, 2])
        of_return = batch.task == 2
        torch.testing.assert_close(batch.reward[of_return], frame[of_return] / 10, check_dtype=False)
        assert batch.reward_mask[of_return].all() and (batch.reward[~of_return] % 1 == 0).all()
        for key, task, relevant in zip(batch.key, batch.task, batch.relevant, strict=True):
            seen[bool(relevant), int(task[0])] += 1
            if relevant and task[0] == 2:
                assert key.partition(":")[0] in better
    assert min(seen[relevant, task] for relevant in (True, False) for task in range(3)) > 20
    assert seen[True, 2] == 60 * 4 // 3  # one task among three


def test_the_return_alone(shards: ShardIndex) -> None:
    corpora = Corpora.of(shards).with_return()
    for batch in take(corpora, replace(CONFIG, task=RETURN), 5):
        assert (batch.task == 2).all() and batch.reward_mask.all()
    for batch in take(corpora, replace(CONFIG, task="goal"), 5):
        assert (batch.task == 1).all()


def test_hidden_episodes_are_not_imitated_for_their_return(shards: ShardIndex) -> None:
    corpora = Corpora.of(shards).with_return()
    config = replace(CONFIG, task=RETURN, labelled_fraction=0.4, best_fraction=1.0)
    for batch in take(corpora, config, 20):
        assert batch.reward_mask[batch.relevant].all() and (batch.task[batch.relevant] == 2).all()
        hidden = batch.task == -1
        assert not batch.reward_mask[hidden].any()


@pytest.mark.parametrize(
    ("task", "digest"),
    [
        (None, "33c7253be34fa2ff7eaea1cfc606ce19f920060c8dde7cdcc1914a2abf8fd5fb"),
        ("goal", "605d5a662ea34a4a9b30a9719cfb14a70f98bf350b2d6414ff5bb3b3f2f92182"),
    ],
)
def test_rows_without_the_return_are_as_ever(shards: ShardIndex, task: str | None, digest: str) -> None:
    """Keys, tasks, rewards and relevance, written down before there was a return."""
    config = LoaderConfig(batch_size=6, length=16, relevant_fraction=0.5, task=task)
    rows = [
        (key, batch.task[i].tolist(), batch.reward[i].tolist(), bool(batch.relevant[i]))
        for batch in take(shards, config, 20)
        for i, key in enumerate(batch.key)
    ]
    assert sha256(repr(rows).encode()).hexdigest() == digest


def test_workers_and_the_return(shards: ShardIndex) -> None:
    corpora = Corpora.of(shards).with_return()
    alone, helped = (take(corpora, replace(CONFIG, num_workers=n), 4) for n in (0, 1))
    assert [digests(batch) for batch in alone] == [digests(batch) for batch in helped]


def test_a_mixture_shares_out_rows_by_weight(shards: ShardIndex, other: ShardIndex, tmp_path: Path) -> None:
    """Of the corpora one has events in some episodes, both have returns: each keeps its weight."""
    mixture = tmp_path / "mixture.yaml"
    mixture.write_text(
        f"corpora:\n- {{data: {shards.folder}, weight: 2}}\n- {{data: {other.folder}, weight: 1, task: return}}\n"
    )
    corpora = Corpora.load(mixture).with_return()
    number, counted = len(corpora.tasks) - 1, Counter[bool]()
    for batch in take(corpora, replace(CONFIG, batch_size=12, relevant_fraction=1.0), 30):
        for key, task in zip(batch.key, batch.task, strict=True):
            foreign = key.startswith(str(other.folder))
            counted[foreign] += 1
            assert not foreign or (task == number).all()
    assert counted == {False: 240, True: 120}


def write(folder: Path, rewards: list[list[float]]) -> ShardIndex:
    writer = EpisodeWriter(
        folder / "episodes", env="test", fps=10, frame_size=(24, 40), action_space=SPACE, tasks=()
    )
    for episode, reward in enumerate(rewards):
        actions = taken_actions(episode, len(reward))
        frames = draw(episode, actions, len(reward))
        writer.write(f"e{episode}", frames, actions, np.array(reward, np.float32), None, False, "test")
    prepare(
        PrepareConfig(
            source=folder / "episodes", out=folder / "shards", clip_length=8, validation_fraction=0.0
        )
    )
    return ShardIndex.load(folder / "shards")


def test_returns_are_those_that_were_recorded(tmp_path: Path) -> None:
    """Of episodes in several clips; the first frame's reward is nobody's merit."""
    rewards = [[0.0, *[-1.5] * 19], [0.0, 2e5, -3.0], [5.0, 1.0]]
    found = {round(b.total, 3): b for b in rewards_of(write(tmp_path, rewards))["train"] if b is not None}
    assert set(found) == {-28.5, 199997.0, 6.0}
    assert (found[-28.5].low, found[-28.5].high) == (-1.5, -1.5)
    assert (found[6.0].low, found[6.0].whole) == (1.0, True)


def test_a_game_that_never_pays_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no return to learn: every reward is 0, and every episode brings 0"):
        Corpora.of(write(tmp_path, [[0.0] * 9, [0.0] * 20])).with_return()


def test_videos_without_rewards_are_refused_in_a_sentence(plain: ShardIndex) -> None:
    with pytest.raises(UserError, match="no return to learn: no rewards are known; log the game's `reward`"):
        Corpora.of(plain).with_return()


def test_the_name_is_reserved(shards: ShardIndex) -> None:
    taken = replace(shards, content={**shards.content, "tasks": ["door", RETURN]})
    with pytest.raises(UserError, match="has a task called 'return'"):
        Corpora.of(taken).with_return()


@pytest.mark.parametrize("fraction", [0.0, 1.5, -1.0])
def test_a_fraction_that_is_none_is_refused(fraction: float) -> None:
    with pytest.raises(UserError, match="best_fraction: must be above 0 and at most 1"):
        LoaderConfig(batch_size=1, length=1, best_fraction=fraction)


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "npz"])
def test_rewards_of_logs_beside_videos(suffix: str, tmp_path: Path) -> None:
    """Two films with logs of other people; a third whose rewards are no numbers is left out, with a reason."""
    source = tmp_path / "videos"
    source.mkdir()
    for name, rewards in (
        ("a", [0.0, 1.0, -4.0]),
        ("b", [0.0, 2.0, 0.5, 0.5]),
        ("c", [0.0, float("nan"), 1.0]),
    ):
        encode_video(
            source / f"{name}.mp4", np.zeros((len(rewards), 24, 40, 3), np.uint8), 10, quality="lossless"
        )
        write_log(source / f"{name}.{suffix}", {"action/key": [1] * len(rewards), "reward": rewards})
    (source / "d.mp4").write_bytes((source / "a.mp4").read_bytes())
    write_log(source / f"d.{suffix}", {"action/key": [1] * 2, "reward": [1.0] * 2})
    prepare(PrepareConfig(source=source, out=tmp_path / "shards", validation_fraction=0.0))
    index = ShardIndex.load(tmp_path / "shards")
    found = {e.name: b for e, b in zip(index.episodes("train"), rewards_of(index)["train"], strict=True)}
    known = {name: b.total for name, b in found.items() if b is not None and b.whole}
    assert sorted(known.values()) == [-3.0, 3.0]
    reasons = {entry["source"]: entry["reason"] for entry in index.content["skipped"]}
    assert reasons.keys() == {"c.mp4", "d.mp4"}
    assert "NaN" in reasons["c.mp4"] or "reward holds values that are not finite numbers" in reasons["c.mp4"]
    assert "expected (3" in reasons["d.mp4"]


def write_log(path: Path, columns: dict[str, list[float]]) -> None:
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if path.suffix == ".npz":
        np.savez(path, **{name: np.array(column) for name, column in columns.items()})
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows))
    else:
        lines = [",".join(columns), *(",".join(str(x) for x in row.values()) for row in rows)]
        path.write_text("\n".join(lines))
