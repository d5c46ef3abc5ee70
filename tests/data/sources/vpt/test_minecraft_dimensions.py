"""Recordings of the Overworld and of the Nether or End: marked by item events, shown or hidden by group."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reverie.data.errors import UserError
from reverie.data.loading.loader import Loader, LoaderConfig
from reverie.data.shards.index import ShardIndex
from reverie.data.shards.latents import LatentWriter
from reverie.data.sources.vpt.dimensions import BEYOND_OVERWORLD, dimension_group
from reverie.data.sources.vpt.tasks import risen
from reverie.evaluation.windows import select
from reverie.pipelines.cli import main
from reverie.pipelines.datasets.prepare import PrepareConfig, prepare
from reverie.pipelines.training.batches import BatchesConfig, Mixture, training_batches
from tests.data.vpt_corpus import session_tick, write_log, write_segment

CONFIG = LoaderConfig(batch_size=4, length=10)


@pytest.mark.parametrize(
    ("statistic", "group"),
    [
        *[("mine_block:netherrack", "nether_end"), ("pickup:blaze_rod", "nether_end")],
        *[("picked_up:end_stone", "nether_end"), ("mine_block:chorus_plant", "nether_end")],
        *[("mine_block:stone", "overworld"), ("mine_block:obsidian", "overworld")],
        *[("use_item:netherrack", "overworld"), ("craft_item:end_rod", "overworld")],
    ],
)
def test_which_statistics_tell(statistic: str, group: str) -> None:
    key = "minecraft." + statistic.replace(":", ":minecraft.")
    assert dimension_group(risen([{key: 1}, None, {key: 1}, {key: 2}])) == group
    assert dimension_group(risen([{key: 5}, {key: 5}])) == "overworld", "counted before this recording"
    assert len(BEYOND_OVERWORLD) == 3 * len({name.split(":")[1] for name in BEYOND_OVERWORLD})


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> ShardIndex:
    """Eight recordings; p1, p4 and p6 mine netherrack, and p7 has no statistics."""
    folder = tmp_path_factory.mktemp("dimensions")
    for number in range(8):
        path = write_segment(folder / "raw", f"p{number}-s", 0, 30)
        lines: list[dict[str, Any]] = [session_tick(t) for t in range(30)]
        if number in (1, 4, 6):
            lines[20]["stats"] = {**lines[19]["stats"], "minecraft.mine_block:minecraft.netherrack": 1}
        if number == 7:
            lines = [{name: value for name, value in line.items() if name != "stats"} for line in lines]
        write_log(path.with_suffix(".jsonl"), *lines)
    prepare(
        PrepareConfig(
            source=folder / "raw", out=folder / "out", validation_fraction=0.4, clip_length=16, seed=2
        )
    )
    return ShardIndex.load(folder / "out")


def groups(index: ShardIndex) -> dict[str, str | None]:
    return {e.name[:2]: e.group for split in index.splits for e in index.episodes(split)}


def test_recordings_are_marked(index: ShardIndex) -> None:
    expected: dict[str, str | None] = {f"p{number}": "overworld" for number in range(7)}
    expected |= {"p1": "nether_end", "p4": "nether_end", "p6": "nether_end", "p7": None}
    assert groups(index) == expected
    assert all(s.labelled for split in index.splits for s in index.samples(split)), (
        "nothing is hidden on disk"
    )


def test_actions_of_one_group_are_shown(index: ShardIndex) -> None:
    shown = {name for name, group in groups(index).items() if group == "overworld"}
    train = {episode.name[:2] for episode in index.episodes("train")}
    assert shown & train and train - shown
    config = BatchesConfig(batch_size=4, length=10, labelled_group="overworld")
    batches = training_batches(index, config, seed=0, mixture=Mixture())
    known: dict[str, set[bool]] = {}
    for step in range(20):
        batch = batches.next(step)
        for row, key in enumerate(batch.key):
            piece = (batch.segment[row] == 0) & ~batch.is_first[row]
            known.setdefault(key[:2], set()).update(batch.action_mask[row][piece].tolist())
    assert {name for name, states in known.items() if states == {True}} == shown & train
    assert {name for name, states in known.items() if states == {False}} == train - shown


def test_a_share_of_one_group(index: ShardIndex) -> None:
    loader = Loader(
        index, LoaderConfig(**{**CONFIG.__dict__, "labelled_group": "overworld", "labelled_fraction": 0.0})
    )
    assert not next(iter(loader)).action_mask.any()
    with pytest.raises(
        UserError, match=r"split 'train' has no episode of group 'end' with actions; it has such of: "
    ):
        Loader(index, LoaderConfig(**{**CONFIG.__dict__, "labelled_group": "end"}))


def test_the_other_group_is_scored(index: ShardIndex) -> None:
    held_out = {e.name[:2] for e in index.episodes("validation") if e.group == "nether_end"}
    assert held_out, "the seed holds some out"
    chosen = select(index.of_group("nether_end"), 10, 100, 0, "validation")
    assert {sample.episode[:2] for sample, _ in chosen.places} == held_out
    assert index.of_group(None) is index
    with pytest.raises(UserError, match="has no group 'moon'; its groups are: nether_end, overworld"):
        index.of_group("moon")


def test_latents_keep_the_group_and_info_counts_it(
    index: ShardIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with LatentWriter(tmp_path, index, tokenizer_sha256="abc", latent_shape=(2, 3)) as writer:
        for split in index.splits:
            for sample in index.samples(split):
                writer.add(sample, np.zeros((sample.n, 2, 3)))
        writer.finish()
    assert groups(ShardIndex.load(tmp_path)) == groups(index)
    assert main(["data", "info", str(tmp_path)]) == 0
    words = capsys.readouterr().out.split()
    assert words[words.index("nether_end") :][:7:2] == ["nether_end", "0.001", "3", "3"]


def test_a_joined_episode_is_of_one_group(tmp_path: Path) -> None:
    for start in (0, 20, 40):
        path = write_segment(tmp_path / "raw", "p-s", start, start + 20)
        lines: list[dict[str, Any]] = [session_tick(t) for t in range(start, start + 20)]
        for line in lines:
            line["stats"]["minecraft.mine_block:minecraft.end_stone"] = int(line["tick"] >= 30)
        write_log(path.with_suffix(".jsonl"), *lines)
    prepare(PrepareConfig(source=tmp_path / "raw", out=tmp_path / "out", validation_fraction=0))
    index = ShardIndex.load(tmp_path / "out")
    assert len(index.episodes("train")) == 1
    assert [sample.group for sample in index.samples("train")] == ["nether_end"] * 3
