"""CONTRIBUTING.md's examples run as they stand there, in the places that it names."""

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import reverie.environments.make as make
from reverie.data.shards.index import ShardIndex
from reverie.data.shards.reader import read_clip
from reverie.data.video.codec import encode_video
from reverie.pipelines import cli
from reverie.pipelines.training.checkpoints import load_tokenizer

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
GAME, DOOR, IMPORTER, OBJECTIVE, STAGE, COMMAND = BLOCKS
UNKNOWN = '    raise UserError(f"game {name!r}: is not known'


def test_examples_are_short_and_all_are_run_here() -> None:
    assert len(BLOCKS) == 6
    assert all(sum(map(bool, block.splitlines())) <= 15 for block in BLOCKS)
    assert all(len(line) < 120 for block in BLOCKS for line in block.splitlines())


def test_a_new_game_is_recorded_and_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module("reverie.environments.walk.game", GAME, monkeypatch)
    source = Path(make.__file__).read_text()
    assert source.count(UNKNOWN) == 1
    there = module("reverie.environments.make", source.replace(UNKNOWN, DOOR + UNKNOWN), monkeypatch)
    monkeypatch.setattr("reverie.pipelines.datasets.record.make_env", there.make_env)
    run(
        *("record", "--env", "walk", "--episodes", "12", "--players", "{random: 1}", "--workers", "1"),
        *("--out", tmp_path / "walk"),
    )
    index = shards_of(tmp_path / "walk", tmp_path / "shards")
    assert index.tasks == ["end"] and index.frame_size == (8, 64)
    clips = [read_clip(index, sample) for split in index.splits for sample in index.samples(split)]
    assert sum(clip.steps.events.sum() for clip in clips) > 0
    for clip in clips:
        assert clip.frames is not None
        # What the picture shows is where the recorded actions lead.
        cells = clip.frames[:, 4, 4::8, 0].argmax(1)
        moved = np.array([0, -1, 1])[clip.steps.actions["action"][:-1]]
        assert (cells[:-1] + moved == cells[1:]).all()
        assert (clip.steps.reward == (cells == 7)).all() and cells[-1] in (0, 7)


def test_a_new_importer_makes_episodes_that_can_be_prepared(tmp_path: Path) -> None:
    takes, rng = tmp_path / "takes", np.random.default_rng(0)
    takes.mkdir()
    lines = ["left", "left jump", "", "right", "jump right", "", "", "left"]
    for name in ("a", "b"):
        with (takes / f"{name}.mp4").open("wb") as file:
            encode_video(file, rng.integers(0, 256, (8, 32, 48, 3), np.uint8), 10.0, quality="lossless")
        (takes / f"{name}.keys").write_text("\n".join(lines))
    names: dict[str, Any] = {}
    exec(IMPORTER, names)
    for _ in range(2):  # the second time nothing is left to do
        names["import_takes"](takes, tmp_path / "episodes")
    index = shards_of(tmp_path / "episodes", tmp_path / "shards")
    samples = [sample for split in index.splits for sample in index.samples(split)]
    assert sum(sample.n for sample in samples) == 16
    held = [["left" in row.split(), "right" in row.split(), "jump" in row.split()] for row in lines]
    for sample in samples:
        steps = read_clip(index, sample).steps
        np.testing.assert_array_equal(steps.actions["keys"][:-1], held[:-1])
        assert steps.action_mask[:-1].all()


def test_a_new_objective_is_trained_by_its_command(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module("reverie.tokenizer.absolute", OBJECTIVE, monkeypatch)
    module("reverie.pipelines.stages.absolute", STAGE, monkeypatch)
    for name, command in eval("{" + COMMAND + "}", {"Command": cli.Command}).items():
        monkeypatch.setitem(cli.COMMANDS, name, command)
    settings = {"steps": 2, "log_every": 1, "evaluate_every": 0}
    flags = [word for name, value in settings.items() for word in (f"--training.{name}", value)]
    small = ("--batches.batch_size", 2, "--batches.length", 4, "--fabric.accelerator", "cpu")
    run("absolute", "--data", prepared, "--out", tmp_path / "run", *flags, *small)
    assert (tmp_path / "run/metrics.jsonl").read_text().count("train/loss") >= 2
    tokenizer = load_tokenizer(tmp_path / "run")
    assert tokenizer.config.frame_size == ShardIndex.load(prepared).frame_size


def module(name: str, source: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`source` as a module that can be imported by `name` until the test ends."""
    made = ModuleType(name)
    monkeypatch.setitem(sys.modules, name, made)
    exec(compile(source, name, "exec"), made.__dict__)
    return made


def run(*arguments: object) -> None:
    """A command of `reverie` that must succeed."""
    assert cli.main([str(argument) for argument in arguments]) == 0


def shards_of(source: Path, out: Path) -> ShardIndex:
    """What `reverie prepare` makes of a folder, none of it skipped."""
    run("prepare", "--source", source, "--out", out, "--workers", 1)
    index = ShardIndex.load(out)
    assert not index.content["skipped"]
    return index
