"""Every training stage on a mixture, and what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from reverie.data.errors import UserError
from reverie.data.loading.corpora import Corpora
from reverie.data.shards.index import ShardIndex
from reverie.data.shards.latents import LatentWriter
from reverie.pipelines.cli import main
from reverie.pipelines.datasets.prepare import PrepareConfig, prepare
from reverie.pipelines.datasets.record import RecordConfig, record
from reverie.pipelines.runs.configs import to_plain
from reverie.pipelines.stages.dynamics import train_dynamics
from reverie.pipelines.training.batches import BatchesConfig, Mixture, heldout_batches
from reverie.pipelines.training.checkpoints import latest_checkpoint, read_card
from reverie.pipelines.training.metrics import read_metrics
from reverie.pipelines.training.stage import require_known_actions, require_same_tasks
from tests.data.corpus import SPACE, write_recording
from tests.data.mixing import write_mixture
from tests.pipelines.small_stages import Corpus, run_stage, shorter
from tests.processes import finish


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Video shards of the game of `corpus`, of other episodes."""
    root = tmp_path_factory.mktemp("second")
    record(RecordConfig(out=root / "episodes", env="minigrid-doorkey", episodes=4, seed=7, skill=(0.9, 1.0)))
    prepare(PrepareConfig(source=root / "episodes", out=root / "shards", workers=1))
    return root / "shards"


def run(stage: str, config: Any) -> list[dict[str, Any]]:
    finish(run_stage(stage, config))
    return list(read_metrics(config.out / "metrics.jsonl")) if stage != "encode" else []


@pytest.mark.slow
def test_every_stage_learns_from_a_mixture(corpus: Corpus, second: Path, tmp_path: Path) -> None:
    video = write_mixture(tmp_path / "video.yaml", {corpus.shards: 2, second: 1})
    tokenizer = replace(corpus.config("tokenizer", tmp_path / "tokenizer"), data=video)
    found = {"tokenizer": run("tokenizer", shorter(tokenizer, steps=6))}
    folders = {}
    for name, data in (("first", corpus.shards), ("second", second)):
        config = replace(corpus.config("encode", tmp_path / name), data=data, tokenizer=tokenizer.out)
        run("encode", config)
        folders[config.out] = 1.0
    latents = write_mixture(tmp_path / "latents.yaml", folders)
    parents = {"clone": {"dynamics": tmp_path / "dynamics"}, "imagine": {"agent": tmp_path / "clone"}}
    for stage in ("dynamics", "clone", "imagine"):
        config = replace(corpus.config(stage, tmp_path / stage), data=latents, **parents.get(stage, {}))
        found[stage] = run(stage, shorter(config, steps=3, evaluate_every=3))
    for stage, rows in found.items():
        assert any("train/loss" in row for row in rows), stage
        assert any("heldout/loss" in row for row in rows), f"{stage}: the validation splits were used"
    identity = json.loads((tmp_path / "dynamics" / "provenance.json").read_text())["identity"]
    assert identity["inputs"]["data"] == Corpora.load(latents).hash()
    assert read_card(tmp_path / "clone").tasks == Corpora.load(latents).tasks


def test_another_mixture_is_refused_when_continuing(
    corpus: Corpus, second: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = write_mixture(tmp_path / "m.yaml", {corpus.shards: 2, second: 1})
    config = shorter(replace(corpus.config("tokenizer", tmp_path / "run"), data=place), steps=1)
    run("tokenizer", config)
    write_mixture(place, {corpus.shards: 4, second: 2})
    run("tokenizer", shorter(config, steps=2))
    arguments = ["tokenizer", "--config", str(config.out / "config.yaml"), "--training.steps", "3"]
    for weight, fields in ((2.0, {}), (1.0, {"labelled_fraction": 0.5})):
        write_mixture(place, {corpus.shards: 2, second: weight}, **fields)
        assert main(arguments) == 1
        said = capsys.readouterr().err
        assert "this run was made differently (inputs.data: " in said and len(said.splitlines()) == 1
    saved = latest_checkpoint(config.out / "checkpoints")
    assert saved is not None and int(saved.name) == 2


def test_encode_takes_one_corpus_at_a_time(
    corpus: Corpus, second: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = write_mixture(tmp_path / "m.yaml", {corpus.shards: 1, second: 1})
    for command in (
        ["encode", "--data", str(place), "--tokenizer", "t", "--out", str(tmp_path / "out")],
        ["data", "check", str(place)],
    ):
        assert main(command) == 1
        said = capsys.readouterr().err
        assert "other commands such as encode take its corpora one by one" in said
        assert len(said.splitlines()) == 1


def test_info_of_a_mixture(
    corpus: Corpus, second: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = write_mixture(tmp_path / "m.yaml", {corpus.shards: 3, second: 1}, labelled_fraction=0.25)
    assert main(["data", "info", str(place)]) == 0
    said = capsys.readouterr().out
    assert "mixture of 2 corpora" in said and "75.0%" in said and "25.0%" in said and "0.25" in said
    assert f"hash: {Corpora.load(place).hash()}" in said
    assert said.count("sources: ") == 2, "each corpus by itself as well"


def test_held_out_batches_follow_the_weights_and_show_all_labels(prepared: Path, tmp_path: Path) -> None:
    write_recording(tmp_path / "raw", [60, 60, 60], first=200)
    prepare(PrepareConfig(source=tmp_path / "raw", out=tmp_path / "other"))
    place = write_mixture(tmp_path / "m.yaml", {prepared: 3, tmp_path / "other": 1}, labelled_fraction=0)
    config = BatchesConfig(batch_size=4, length=16, labelled_fraction=0.1)
    batches = heldout_batches(Corpora.load(place), config, 3, Mixture())
    folders = [Path(key).parts[-3] for batch in batches for key in batch.key]
    assert len(batches) == 3 and folders.count("other") == 3
    assert all((batch.action_mask | batch.is_first).all() for batch in batches)


def test_a_corpus_without_validation_is_left_out_of_the_evaluation(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_recording(tmp_path / "raw", [60, 60], first=200)
    prepare(PrepareConfig(source=tmp_path / "raw", out=tmp_path / "other", validation_fraction=0))
    place = write_mixture(tmp_path / "m.yaml", {prepared: 3, tmp_path / "other": 1})
    batches = heldout_batches(Corpora.load(place), BatchesConfig(batch_size=4), 3, Mixture())
    keys = [key for batch in batches for key in batch.key]
    assert len(keys) == 12 and not any("episode-2" in key for key in keys)
    said = capsys.readouterr().err
    assert (
        said.startswith("No held-out evaluation on this corpus") and f"{tmp_path / 'other'}: has no" in said
    )
    alone = Corpora.load(tmp_path / "other")
    assert heldout_batches(alone, BatchesConfig(batch_size=4), 3, Mixture()) == []


def test_actions_that_no_corpus_logs_in_full(corpus: Corpus, tmp_path: Path) -> None:
    """Two corpora with different components: good for a tokenizer, but nothing would be labelled."""
    for name in ("move", "keys"):
        space = type(SPACE)({name: SPACE.components[name]})
        write_recording(tmp_path / f"raw-{name}", [40, 40], space=space)
        prepare(PrepareConfig(source=tmp_path / f"raw-{name}", out=tmp_path / name))
        index = ShardIndex.load(tmp_path / name)
        out = tmp_path / f"latents-{name}"
        with LatentWriter(out, index, tokenizer_sha256="a", latent_shape=(4, 3)) as writer:
            for sample in [sample for split in index.splits for sample in index.samples(split)]:
                writer.add(sample, torch.zeros(sample.n, 4, 3).numpy())
            writer.finish()
    place = write_mixture(tmp_path / "m.yaml", {tmp_path / "latents-move": 1, tmp_path / "latents-keys": 1})
    assert list(Corpora.load(place).action_space.components) == ["keys", "move"]
    with pytest.raises(UserError, match="no corpus logs all of the actions keys, move"):
        require_known_actions(Corpora.load(place))
    config = replace(corpus.config("dynamics", tmp_path / "run"), data=place)
    with pytest.raises(UserError, match="so none would count as known"):
        train_dynamics(config)


def test_an_agent_meets_the_tasks_it_was_cloned_for(corpus: Corpus, second: Path, tmp_path: Path) -> None:
    card = read_card(corpus.finished("clone"))
    place = write_mixture(tmp_path / "m.yaml", {corpus.shards: 1, second: 1})
    require_same_tasks(Corpora.load(place), card, tmp_path)
    with pytest.raises(UserError, match="give the data it was cloned from"):
        require_same_tasks(Corpora.load(place), replace(card, tasks=["another"]), tmp_path)


def test_a_run_goes_on_without_a_missing_shard(
    corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = corpus.config("dynamics", tmp_path / "run")
    index = ShardIndex.load(config.data)
    lost = index.samples("train")[-1].shard
    assert lost != index.samples("train")[0].shard
    copy = Path(shutil.copytree(index.folder, tmp_path / "latents"))
    (copy / lost).unlink()
    settings = tmp_path / "settings.yaml"
    settings.write_text(yaml.safe_dump(to_plain(replace(config, data=copy))))
    assert main(["dynamics", "--config", str(settings)]) == 0
    said = capsys.readouterr().err
    assert said.count(f"dynamics: skipped. {copy / lost}: cannot be opened") == 1
    saved = latest_checkpoint(config.out / "checkpoints")
    assert saved is not None and int(saved.name) == config.training.steps
