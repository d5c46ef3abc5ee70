"""Two processes: copies (DDP) and shards (FSDP) learn the same, and one process can continue what two began."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from reverie.nn.compilation import cannot_compile
from reverie.pipelines.runs.configs import to_plain
from reverie.pipelines.training.metrics import read_metrics
from reverie.pipelines.training.snapshots import read_snapshot
from tests.pipelines.small_stages import Corpus, shorter

pytestmark = pytest.mark.slow


def test_copies_and_shards_learn_the_same(corpus: Corpus, tmp_path: Path) -> None:
    for strategy in ("ddp", "fsdp"):
        _train(corpus, tmp_path / strategy, devices=2, strategy=strategy)
    copied, sharded = read_snapshot(tmp_path / "ddp"), read_snapshot(tmp_path / "fsdp")
    assert copied.step == sharded.step == 4
    for name, weight in copied.weights.items():
        torch.testing.assert_close(sharded.weights[name], weight, atol=1e-4, rtol=1e-3, msg=name)
    for name, moment in copied.optimizer.items():
        assert sharded.optimizer[name].shape == moment.shape


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_micro_batches_and_recomputed_compiled_layers_of_two_processes(
    corpus: Corpus, tmp_path: Path, strategy: str
) -> None:
    """Layers as they are, recomputed, or recomputed and compiled: the same updates from the same micro-batches."""
    choices: list[dict[str, Any]] = [
        {},
        {"checkpointing": "layers"},
        {"checkpointing": "layers", "compile": "on"},
    ]
    ended = []
    for number, chosen in enumerate(choices[: 2 if cannot_compile(torch.device("cpu")) else 3]):
        config = shorter(corpus.config("tokenizer", tmp_path / f"{number}"), steps=2)
        config = replace(
            config,
            batches=replace(config.batches, batch_size=4, long_batch_size=4, accumulate=2),
            fabric=replace(config.fabric, devices=2, strategy=strategy),
            training=replace(config.training, **chosen),
        )
        run_command(["-m"], "tokenizer", config)
        ended.append(read_snapshot(config.out).weights)
    for other in ended[1:]:
        for name, weight in ended[0].items():
            torch.testing.assert_close(other[name], weight, atol=1e-4, rtol=1e-3, msg=name)


def test_one_process_continues_what_two_began(corpus: Corpus, tmp_path: Path) -> None:
    _train(corpus, tmp_path, devices=2, strategy="fsdp")
    began = read_snapshot(tmp_path)
    _train(corpus, tmp_path, devices=1, strategy="auto", steps=6)
    ended = read_snapshot(tmp_path)
    assert (began.step, ended.step) == (4, 6)
    seen = [sum(x["samples_consumed"] for x in s.state["batches"].values()) for s in (began, ended)]
    assert seen == [4 * 2, 6 * 2]


@pytest.mark.parametrize(("devices", "shard_size"), [(1, None), (4, 2)])
def test_what_two_saved_is_what_others_load(
    devices: int, shard_size: int | None, corpus: Corpus, tmp_path: Path
) -> None:
    """One further step that changes next to nothing, and then saves all it has loaded."""
    config = shorter(corpus.config("dynamics", tmp_path / "run"), steps=2)
    batches = replace(config.batches, long_probability=0.0)
    adamw = replace(config.optimizer, name="adamw", weight_decay=0.0)
    config = replace(config, batches=batches, optimizer=adamw)
    run_command(
        ["-m"], "dynamics", replace(config, fabric=replace(config.fabric, devices=2, strategy="fsdp"))
    )
    saved = read_snapshot(config.out)
    fabric = replace(
        config.fabric, devices=devices, strategy="fsdp" if devices > 1 else "auto", shard_size=shard_size
    )
    still = replace(adamw, lr=1e-12, beta1=1 - 1e-9, beta2=1 - 1e-9)
    run_command(["-m"], "dynamics", shorter(replace(config, fabric=fabric, optimizer=still), steps=3))
    loaded = read_snapshot(config.out)
    assert (saved.step, loaded.step) == (2, 3)
    assert saved.optimizer.keys() == loaded.optimizer.keys()
    for before, after in ((saved.weights, loaded.weights), (saved.optimizer, loaded.optimizer)):
        for name, value in before.items():
            if not name.endswith(".step"):
                torch.testing.assert_close(after[name], value, atol=1e-7, rtol=1e-6, msg=name)


def test_muon_learns_alike_sharded_and_in_micro_batches(corpus: Corpus, tmp_path: Path) -> None:
    config = shorter(corpus.config("clone", tmp_path / "ddp"), steps=2)
    config = replace(config, batches=replace(config.batches, long_probability=0.0, accumulate=2))
    for strategy in ("ddp", "fsdp"):
        fabric = replace(config.fabric, devices=2, strategy=strategy)
        run_command(["-m"], "clone", replace(config, out=tmp_path / strategy, fabric=fabric))
    copied, sharded = read_snapshot(tmp_path / "ddp"), read_snapshot(tmp_path / "fsdp")
    assert any(name.endswith("momentum_buffer") for name in sharded.optimizer)
    for name, weight in copied.weights.items():
        torch.testing.assert_close(sharded.weights[name], weight, atol=1e-4, rtol=1e-3, msg=name)


def test_two_processes_imagine_together(corpus: Corpus, tmp_path: Path) -> None:
    config = corpus.config("imagine", tmp_path / "run")
    launcher = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes=2", "--num_machines=1"]
    run_command([*launcher, "--mixed_precision=no", "--dynamo_backend=no", "-m"], "imagine", config)
    assert read_snapshot(config.out).step == config.training.steps
    steps = [row["step"] for row in read_metrics(config.out / "metrics.jsonl") if "train/loss" in row]
    assert steps == list(range(1, config.training.steps + 1)), "one process writes"


def test_two_processes_train_both_phases_of_a_baseline(corpus: Corpus, tmp_path: Path) -> None:
    for version in ("v1", "v3"):
        config = corpus.config(version, tmp_path / version)
        run_command(["-m"], "baseline", replace(config, fabric=replace(config.fabric, devices=2)))
        snapshot = read_snapshot(config.out)
        assert snapshot.step == 12
        alone = read_snapshot(corpus.finished(version))
        assert snapshot.state["batches"] == alone.state["batches"], "the same rows, shared out"
        assert snapshot.optimizer.keys() == alone.optimizer.keys()


def test_torchrun_decides_how_many_processes_there_are(corpus: Corpus, tmp_path: Path) -> None:
    config = shorter(corpus.config("dynamics", tmp_path / "run"), steps=2)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m"]
    printed = run_command(launcher, "dynamics", config)
    assert "Starting with 2 processes" in printed and read_snapshot(config.out).step == 2


def _train(corpus: Corpus, out: Path, *, devices: int, strategy: str, steps: int = 4) -> None:
    config = shorter(corpus.config("tokenizer", out), steps=steps)
    config = replace(config, fabric=replace(config.fabric, devices=devices, strategy=strategy))
    run_command(["-m"], "tokenizer", config)


def run_command(launcher: list[str], stage: str, config: Any) -> str:
    settings = config.out.with_suffix(".yaml")
    settings.write_text(yaml.safe_dump(to_plain(config)))
    command = [sys.executable, *launcher, "reverie.pipelines.cli", stage, "--config", str(settings)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


def test_a_request_to_one_process_stops_all_with_a_checkpoint(corpus: Corpus, tmp_path: Path) -> None:
    """SIGTERM reaches the second process alone; both end after the same step, and the same command goes on."""
    config = shorter(corpus.config("tokenizer", tmp_path / "run"), steps=100_000, save_every=100_000)
    config = replace(config, fabric=replace(config.fabric, devices=2, strategy="fsdp"))
    settings = config.out.with_suffix(".yaml")
    settings.write_text(yaml.safe_dump(to_plain(config)))
    command = [sys.executable, "-m", "reverie.pipelines.cli", "tokenizer", "--config", str(settings)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    metrics, deadline = config.out / "metrics.jsonl", time.monotonic() + 200
    while not (metrics.exists() and metrics.stat().st_size):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (second,) = [pid for pid in children if "--config" in Path(f"/proc/{pid}/cmdline").read_text()]
    os.kill(int(second), signal.SIGTERM)
    text = process.communicate(timeout=200)[0]
    step = read_snapshot(config.out).step
    assert process.returncode == 130 and f"Stopped tokenizer at step {step}" in text, text
