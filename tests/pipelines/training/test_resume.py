"""Killed at any moment, the same command ends where an undisturbed run ends, bit for bit."""

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from reverie.data.files.lock import sole_writer
from reverie.pipelines.training.checkpoints import latest_checkpoint
from tests.pipelines.small_stages import TIMEOUT, Corpus, run_stage, wait_for

CLOCK = ("train/steps_per_second", "speed/")
TRAINED = ("tokenizer", "dynamics", "clone", "imagine", "v1", "online")


@pytest.mark.parametrize("stage", TRAINED)
def test_killed_training_ends_like_an_undisturbed_run(stage: str, corpus: Corpus, tmp_path: Path) -> None:
    config = corpus.config(stage, tmp_path / "run")
    process = run_stage(stage, config)
    wait_for(lambda: latest_checkpoint(config.out / "checkpoints") is not None, process)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL, "the stage ended before it could be killed"
    _finish(stage, config)
    assert_same_run(config.out, corpus.finished(stage))


def test_killed_encoding_ends_like_an_undisturbed_run(corpus: Corpus, tmp_path: Path) -> None:
    config = corpus.config("encode", tmp_path / "latents")
    process = run_stage("encode", config)
    wait_for(lambda: any(config.out.glob("train-*.tar")), process)
    process.kill()
    process.join()
    _finish("encode", config)
    undisturbed = corpus.finished("encode")
    names = sorted(path.name for path in undisturbed.iterdir() if path.suffix in (".tar", ".json"))
    assert len(names) > 3, "several shards, so that the kill falls between them"
    for name in names:
        assert (config.out / name).read_bytes() == (undisturbed / name).read_bytes(), name


def test_ctrl_c_saves_the_present_step_and_continues(corpus: Corpus, tmp_path: Path) -> None:
    config = corpus.config("dynamics", tmp_path / "run")
    process = run_stage("dynamics", config)
    wait_for(config.out.joinpath("metrics.jsonl").is_file, process)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    process.join(TIMEOUT)
    assert process.exitcode == 130
    saved = latest_checkpoint(config.out / "checkpoints")
    assert saved is not None and 1 <= int(saved.name) < config.training.steps
    _finish("dynamics", config)
    assert_same_run(config.out, corpus.finished("dynamics"))


def test_a_full_disk_keeps_the_former_checkpoint(corpus: Corpus, tmp_path: Path) -> None:
    config = corpus.config("tokenizer", tmp_path / "run")
    process = run_stage("tokenizer", config, max_file_bytes=20_000)
    process.join(TIMEOUT)
    assert process.exitcode == 1
    assert latest_checkpoint(config.out / "checkpoints") is None
    _finish("tokenizer", config)
    assert_same_run(config.out, corpus.finished("tokenizer"))


def test_a_run_that_another_process_trains_is_left_alone(corpus: Corpus, tmp_path: Path) -> None:
    config = corpus.config("dynamics", tmp_path / "run")
    shutil.copytree(corpus.finished("dynamics"), config.out)
    longer = replace(config, training=replace(config.training, steps=config.training.steps + 2))
    with sole_writer(config.out):
        process = run_stage("dynamics", longer)
        process.join(TIMEOUT)
    assert process.exitcode == 1
    assert_same_run(config.out, corpus.finished("dynamics"))
    _finish("dynamics", longer)
    latest = latest_checkpoint(config.out / "checkpoints")
    assert latest is not None and int(latest.name) == longer.training.steps


def assert_same_run(run: Path, undisturbed: Path) -> None:
    """Weights, optimiser, normalisers, positions and metrics are equal, byte for byte."""
    found, expected = latest_checkpoint(run / "checkpoints"), latest_checkpoint(undisturbed / "checkpoints")
    assert found is not None and expected is not None and found.name == expected.name
    for path in sorted(expected.rglob("*")):
        if path.is_file():
            same = (found / path.relative_to(expected)).read_bytes() == path.read_bytes()
            assert same, path.relative_to(expected)
    assert metrics(run) == metrics(undisturbed)


def metrics(run: Path) -> list[dict[str, float]]:
    """All rows of metrics.jsonl without the clock."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: x for name, x in row.items() if not name.startswith(CLOCK)} for row in rows]


def _finish(stage: str, config: object) -> None:
    process = run_stage(stage, config)
    process.join(TIMEOUT)
    assert process.exitcode == 0
