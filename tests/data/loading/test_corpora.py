"""Several corpora read as one: shares, actions, tasks, labels, and what does not go together."""

import itertools
import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reverie.data.batch import Batch
from reverie.data.errors import UserError
from reverie.data.loading.corpora import Corpora, turn
from reverie.data.loading.loader import Loader, LoaderConfig
from reverie.data.shards.index import ShardIndex
from reverie.pipelines.datasets.prepare import PrepareConfig, prepare
from tests.data.corpus import EVENTS, SPACE, read_cells, write_recording
from tests.data.mixing import OTHER_EVENTS, write_mixture
from tests.data.shards.test_shards import write_latents

CONFIG = LoaderConfig(batch_size=6, length=16)
TASKS = ["door", "goal", "window"]


def take(place: Path, config: LoaderConfig, count: int) -> list[Batch]:
    return list(itertools.islice(Loader(Corpora.load(place), config), count))


def first_cells(batch: Batch) -> list[list[int]]:
    """Per row the numbers in its first frame."""
    assert batch.frames is not None
    return [read_cells(row[0]) for row in batch.frames.numpy()]


def corpus_of(batch: Batch) -> list[int]:
    """Per row 0 for `shards`, 1 for `plain`, 2 for `other`, as its first frame shows."""
    return [cells[0] // 100 for cells in first_cells(batch)]


@settings(deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=5))
def test_turns_hold_the_weights_exactly(weights: list[int]) -> None:
    total = sum(weights)
    counts = [0] * len(weights)
    for number in range(3 * total):
        corpus, own = turn(number, weights)
        assert own == counts[corpus], "every corpus is read in order, without gaps"
        counts[corpus] += 1
        for count, weight in zip(counts, weights, strict=True):
            assert abs(count - (number + 1) * weight / total) < len(weights), "evenly spread"
        if (number + 1) % total == 0:
            assert counts == [weight * (number + 1) // total for weight in weights]
    assert turn(10**30 * total, weights)[1] == 10**30 * weights[turn(0, weights)[0]], "at any distance"


def test_rows_follow_the_weights(mixture: Path, shards: ShardIndex) -> None:
    corpora = Corpora.load(mixture)
    assert [share.weight for share in corpora.shares] == [4, 2, 1]
    batches = take(mixture, CONFIG, 35)
    assert Counter(c for batch in batches for c in corpus_of(batch)) == {0: 120, 1: 60, 2: 30}
    mixed = [key for batch in batches for key, c in zip(batch.key, corpus_of(batch), strict=True) if c == 0]
    alone = [key for batch in itertools.islice(Loader(shards, CONFIG), 20) for key in batch.key]
    assert sorted(mixed) == sorted(f"{shards.folder}/{key}" for key in alone), "the same windows as alone"


def test_no_process_is_left_with_one_corpus(mixture: Path) -> None:
    config = replace(CONFIG, batch_size=7)
    for rank in range(7):
        loader = Loader(Corpora.load(mixture), config, rank=rank, world_size=7)
        seen = [corpus_of(batch)[0] for batch in itertools.islice(loader, 7)]
        assert Counter(seen) == {0: 4, 1: 2, 2: 1}


def test_rows_of_plain_video_have_the_actions_of_all_as_unknown(mixture: Path) -> None:
    assert Corpora.load(mixture).action_space == SPACE
    for batch in take(mixture, CONFIG, 20):
        plain = torch.tensor(corpus_of(batch)) == 1
        assert not batch.action_mask[plain].any() and not batch.reward_mask[plain].any()
        assert (batch.task[plain] == -1).all()
        for name, value in batch.actions.items():
            assert torch.equal(value[plain], SPACE.null(*value[plain].shape[:2])[name])
        known = batch.action_mask & ~batch.is_first
        assert torch.equal(known[~plain], ~batch.is_first[~plain]), "those of the others are known"
        assert batch.frames is not None
        for row, t in torch.nonzero(known).tolist():
            assert batch.actions["move"][row, t] == read_cells(batch.frames[row, t].numpy())[3]


def test_actions_count_as_known_where_all_components_are(shards: ShardIndex, tmp_path: Path) -> None:
    """A corpus that logs one of three components: its pictures, rewards and events count, its actions do not."""
    space = type(SPACE)({"move": SPACE.components["move"]})
    write_recording(tmp_path / "raw", [50, 60], {200: [(9, 1)]}, first=200, space=space)
    prepare(PrepareConfig(source=tmp_path / "raw", out=tmp_path / "moves", validation_fraction=0))
    place = write_mixture(tmp_path / "m.yaml", {tmp_path / "moves": 1, shards.folder: 1})
    corpora = Corpora.load(place)
    assert corpora.action_space == SPACE and list(corpora.action_space.components) == sorted(SPACE.components)
    assert [corpora.knows_all_actions(share) for share in corpora.shares] == [False, True]
    for batch in take(place, CONFIG, 10):
        partly = torch.tensor(corpus_of(batch)) == 2
        assert partly.sum() == 3
        assert not batch.action_mask[partly].any() and not batch.actions["move"][partly].any()
        assert batch.reward_mask[partly].all() and (batch.task[partly] >= 0).all()


def test_tasks_are_united_by_name(mixture: Path) -> None:
    assert Corpora.load(mixture).tasks == TASKS
    events = {(e, frame, task) for e, listed in EVENTS.items() for frame, task in listed}
    events |= {(e, frame, task + 1) for e, listed in OTHER_EVENTS.items() for frame, task in listed}
    drawn: dict[int, set[int]] = {0: set(), 1: set(), 2: set()}
    rewarded = 0
    for batch in take(mixture, replace(CONFIG, relevant_fraction=0.5), 60):
        assert batch.frames is not None
        for row, frames in enumerate(batch.frames.numpy()):
            for t, frame in enumerate(frames):
                episode, index = read_cells(frame)[:2]
                task = int(batch.task[row, t])
                drawn[episode // 100].add(task)
                if task >= 0:
                    assert batch.reward[row, t] == float((episode, index, task) in events)
                    rewarded += int(batch.reward[row, t])
    assert drawn == {0: {0, 1}, 1: {-1}, 2: {1, 2}} and rewarded > 20


def test_relevant_rows_come_from_the_corpora_that_have_any(mixture: Path) -> None:
    batches = take(mixture, replace(CONFIG, batch_size=10, relevant_fraction=0.5), 14)
    relevant = Counter(c for b in batches for c, r in zip(corpus_of(b), b.relevant, strict=True) if r)
    uniform = Counter(c for b in batches for c, r in zip(corpus_of(b), b.relevant, strict=True) if not r)
    assert relevant == {0: 56, 2: 14}, "4 : 1, as `plain` accomplishes nothing"
    assert uniform == {0: 40, 1: 20, 2: 10}


def test_one_task_of_all_or_of_a_corpus(mixture: Path, shards: ShardIndex, other: ShardIndex) -> None:
    seen: dict[int, set[int]] = {0: set(), 1: set(), 2: set()}
    for batch in take(mixture, replace(CONFIG, task="door", relevant_fraction=0.5), 20):
        for corpus, tasks in zip(corpus_of(batch), batch.task.tolist(), strict=True):
            seen[corpus] |= set(tasks)
    assert seen == {0: {0}, 1: {-1}, 2: {-1}}, "other corpora know nothing of the task"
    with pytest.raises(UserError, match="has no task 'roof'; its tasks are: door, goal, window"):
        Loader(Corpora.load(mixture), replace(CONFIG, task="roof"))
    place = write_mixture(mixture.with_name("t.yaml"), {shards.folder: 1, other.folder: 1}, task="window")
    for batch in take(place, CONFIG, 10):
        assert all(set(t) == {2} for c, t in zip(corpus_of(batch), batch.task.tolist(), strict=True) if c)


def test_fewer_labels_of_all_or_of_a_corpus(shards: ShardIndex, other: ShardIndex, tmp_path: Path) -> None:
    def labelled(place: Path, config: LoaderConfig) -> dict[int, set[int]]:
        """Corpus -> episodes with a known action."""
        found: dict[int, set[int]] = {0: set(), 2: set()}
        for batch in take(place, config, 50):
            assert batch.frames is not None
            for row, t in torch.nonzero(batch.action_mask).tolist():
                episode = read_cells(batch.frames[row, t].numpy())[0]
                found[episode // 100].add(episode)
        return found

    both = {shards.folder: 1.0, other.folder: 1.0}
    count = {c: sum(e.labelled for e in i.episodes("train")) for c, i in ((0, shards), (2, other))}
    half = labelled(write_mixture(tmp_path / "a.yaml", both), replace(CONFIG, labelled_fraction=0.5))
    assert {c: len(episodes) for c, episodes in half.items()} == {c: round(n / 2) for c, n in count.items()}
    place = write_mixture(tmp_path / "b.yaml", both, labelled_fraction=0.0)
    own = labelled(place, replace(CONFIG, labelled_fraction=0.5))
    assert own == {0: half[0], 2: set()}, "what the file says holds for its corpus, the flag for the others"


def test_latents_mix_too(shards: ShardIndex, plain: ShardIndex, tmp_path: Path) -> None:
    for name, index in (("a", shards), ("b", plain)):
        write_latents(index, tmp_path / name)
    place = write_mixture(tmp_path / "m.yaml", {tmp_path / "a": 2, tmp_path / "b": 1})
    corpora = Corpora.load(place)
    assert (corpora.latent_shape, corpora.tokenizer_sha256, corpora.fps) == ((4, 3), "abc", 10)
    batch = take(place, CONFIG, 1)[0]
    assert batch.latents is not None and batch.latents.shape == (6, 16, 4, 3) and batch.frames is None
    assert Counter(Path(key).relative_to(tmp_path).parts[0] for key in batch.key) == {"a": 4, "b": 2}


def test_the_hash_covers_data_weights_and_settings(
    shards: ShardIndex, plain: ShardIndex, tmp_path: Path
) -> None:
    def hashed(weights: dict[Path, float], **fields: object) -> str:
        return Corpora.load(write_mixture(tmp_path / "m.yaml", weights, **fields)).hash()

    a, b = shards.folder, plain.folder
    moved = Path(shutil.copytree(b, tmp_path / "moved"))
    reference = hashed({a: 3, b: 1})
    assert hashed({a: 0.75, b: 0.25}) == reference == hashed({a: 3, moved: 1})
    others = [
        hashed({a: 1, b: 3}),
        hashed({b: 1, a: 3}),
        hashed({a: 3}),
        hashed({a: 3, b: 1}, labelled_fraction=1),
        hashed({b: 3, a: 1}, task="door"),
    ]
    assert len({reference, *others}) == 6
    assert hashed({a: 3}) == Corpora.load(a).hash() == shards.hash(), "a mixture of one is that corpus"


def changed(index: ShardIndex, folder: Path, **fields: object) -> Path:
    """Another folder whose index says something else."""
    folder.mkdir()
    text = json.dumps({**index.content, **fields})
    (folder / "index.json").write_text(
        text.replace("clip.mp4", "latents.npy") if "latent_shape" in fields else text
    )
    return folder


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"frame_size": [24, 48]}, r"frame_size is \(24, 40\) in .*, but \(24, 48\) in .*--size"),
        ({"fps": 20}, r"fps is 10.0 in .*, but 20.0 in .*--fps"),
        ({"latent_shape": [4, 3]}, "holds video and .* latents"),
        (
            {"action_space": {**SPACE.to_json(), "keys": {"kind": "binary", "n": 4}}},
            "define the action 'keys' with another n; declare it alike",
        ),
        (
            {"action_space": {**SPACE.to_json(), "keys": {"kind": "categorical", "n": 3}}},
            "define the action 'keys' with another kind",
        ),
    ],
)
def test_corpora_that_do_not_go_together(
    fields: dict[str, object], sentence: str, shards: ShardIndex, tmp_path: Path
) -> None:
    place = write_mixture(
        tmp_path / "m.yaml", {shards.folder: 1, changed(shards, tmp_path / "x", **fields): 1}
    )
    with pytest.raises(UserError, match=sentence) as caught:
        Corpora.load(place)
    assert str(caught.value).startswith(f"{place}: ") and "\n" not in str(caught.value)


def test_latents_of_different_tokenizers(shards: ShardIndex, tmp_path: Path) -> None:
    common = {"latent_shape": [4, 3]}
    folders = [
        changed(shards, tmp_path / name, **common, tokenizer_sha256=name) for name in ("first", "second")
    ]
    with pytest.raises(UserError, match="tokenizer_sha256 is first in .*, but second in .*one tokenizer"):
        Corpora.load(write_mixture(tmp_path / "m.yaml", dict.fromkeys(folders, 1)))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("corpora: [", "cannot be read as YAML"),
        ("data: x", "is no mixture; it should hold `corpora`"),
        ("corpora: []", "is no mixture"),
        ("{corpora: [{data: x}], seed: 1}", "is no mixture"),
        ("corpora: [{data: x, wieght: 1}]", "corpus 1: unknown field 'wieght'"),
        ("corpora: [{weight: 1}]", "corpus 1: data: should be the path"),
        ("corpora: [{data: x, weight: 0}]", "corpus 1: weight: should be a number above 0, got 0"),
        ("corpora: [{data: x, weight: .inf}]", "weight: should be a number above 0, got inf"),
        ("corpora: [{data: x, weight: two}]", "weight: should be a number above 0, got 'two'"),
        ("corpora: [{data: x, labelled_fraction: 2}]", r"labelled_fraction: should be a number in \[0, 1\]"),
        ("corpora: [{data: x, task: [a]}]", "task: should be the name of a task"),
        ("corpora: [{data: nowhere}]", "nowhere: no such folder"),
        ("corpora: [{data: m.yaml}]", "is a file, no folder of shards"),
    ],
)
def test_mistakes_in_a_mixture_are_one_sentence(
    content: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.yaml").write_text(content)
    with pytest.raises(UserError, match=sentence) as caught:
        Corpora.load("m.yaml")
    assert "\n" not in str(caught.value)


def test_a_task_that_the_corpus_does_not_have(shards: ShardIndex, tmp_path: Path) -> None:
    place = write_mixture(tmp_path / "m.yaml", {shards.folder: 1}, task="roof")
    with pytest.raises(UserError, match="has no task 'roof'; its tasks are: door, goal"):
        Corpora.load(place)
