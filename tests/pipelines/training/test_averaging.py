"""The average of the weights: a closed form, resumed to the same bytes, what later stages load, alike over processes."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from reverie.data.errors import UserError
from reverie.pipelines.training.averaging import WeightAverage
from reverie.pipelines.training.checkpoints import (
    latest_checkpoint,
    load_dynamics,
    load_tokenizer,
    weights_sha256,
)
from reverie.pipelines.training.metrics import read_metrics
from reverie.pipelines.training.optimization import OptimizerConfig, make_optimizer
from reverie.pipelines.training.session import TrainingConfig
from reverie.pipelines.training.snapshots import read_snapshot
from tests.pipelines.small_stages import STAGES, TIMEOUT, Corpus, run_stage, shorter, wait_for
from tests.pipelines.training.test_processes import run_command
from tests.pipelines.training.test_resume import assert_same_run

EMA = 0.6
"""Reached after 13 steps: those before are of the warm-up."""


class Small(nn.Module):
    """A model of which a part is frozen, with a normaliser beside it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.ModuleDict({"learns": nn.Linear(3, 2), "frozen": nn.Linear(2, 2)})
        self.model["frozen"].requires_grad_(False)
        self.beside = nn.Parameter(torch.zeros(2))


def expected(weights: list[Tensor], decay: float) -> Tensor:
    """The average of weights[0] (initial), weights[1], ... written out as one weighted sum, in float64."""
    decays = [min(decay, (1 + n) / (10 + n)) for n in range(len(weights) - 1)]
    shares = [1.0, *(1 - d for d in decays)]
    total = torch.zeros_like(weights[0], dtype=torch.float64)
    for i, value in enumerate(weights):
        later = torch.tensor(decays[i:], dtype=torch.float64).prod()
        total += shares[i] * later * value.double()
    return total


@pytest.mark.parametrize("decay", [0.25, 0.999])
def test_the_average_is_the_closed_form(decay: float) -> None:
    objective = Small()
    average = WeightAverage(objective, make_optimizer(objective, OptimizerConfig()), decay)
    learns = objective.model["learns"].weight
    seen = [learns.detach().clone()]
    for step in range(20):
        learns.data += torch.randn(2, 3)
        average.update(step)
        seen.append(learns.detach().clone())
    found = average.applied(objective.model.state_dict())
    torch.testing.assert_close(found["learns.weight"].double(), expected(seen, decay), atol=1e-6, rtol=1e-5)
    assert found["frozen.weight"].data_ptr() == objective.model["frozen"].weight.data_ptr()
    assert found.keys() == objective.model.state_dict().keys(), "what is beside the model is not averaged"


def test_weights_swapped_for_the_average_come_back_to_the_bit() -> None:
    objective = Small()
    average = WeightAverage(objective, make_optimizer(objective, OptimizerConfig()), 0.9)
    objective.model["learns"].weight.data += 1 / 3
    average.update(0)
    before, mean = (
        state(objective),
        {n: x.clone() for n, x in average.applied(objective.model.state_dict()).items()},
    )
    with pytest.raises(KeyError), average.swapped():
        inside = state(objective)
        raise KeyError
    assert all(torch.equal(inside[name], x) for name, x in mean.items())
    assert not torch.equal(inside["learns.weight"], before["learns.weight"])
    assert all(torch.equal(x, before[name]) for name, x in state(objective).items())
    assert all(
        torch.equal(x, mean[name]) for name, x in average.applied(objective.model.state_dict()).items()
    )


def test_what_a_phase_does_not_train_is_no_average() -> None:
    """The policy of a baseline stands on the world model as it is, so that is what its checkpoint must hold."""
    objective = Small()
    average = WeightAverage(objective, make_optimizer(objective, OptimizerConfig()), 0.9)
    objective.model["learns"].weight.data += 1
    average.update(0)
    objective.model["learns"].requires_grad_(False)
    found = average.applied(objective.model.state_dict())["learns.weight"]
    assert torch.equal(found, objective.model["learns"].weight)


@pytest.mark.parametrize("ema", [0.0, 1.0, -0.1, 1.5])
def test_decays_that_cannot_be_are_refused(ema: float) -> None:
    with pytest.raises(ValueError, match="training.ema must lie between 0 and 1"):
        TrainingConfig(ema=ema)


@pytest.fixture(scope="module")
def averaged(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The settings of a finished run; all its checkpoints are there."""
    config = corpus.config("dynamics", tmp_path_factory.mktemp("averaged") / "run")
    config = shorter(config, ema=EMA, save_every=1, keep=12)
    finish("dynamics", config)
    return config


def test_a_run_keeps_the_average_of_its_weights(corpus: Corpus, averaged: Any) -> None:
    """The model is the closed form over the weights of every step; the weights are those of a run without an average."""
    assert_averages(averaged.out)
    undisturbed = read_snapshot(corpus.finished("dynamics"))
    raw = read_snapshot(averaged.out).raw
    assert raw is not None and all(torch.equal(raw[name], x) for name, x in undisturbed.weights.items())
    rows, plain = heldout(averaged.out), heldout(corpus.finished("dynamics"))
    assert [drop(row, "heldout/ema/") for row in rows] == plain
    assert all(row["heldout/ema/loss"] != row["heldout/loss"] for row in rows)


def test_later_stages_load_the_average_unless_told_otherwise(
    corpus: Corpus, averaged: Any, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(averaged.out, tmp_path / "run"))
    folder = latest_checkpoint(run / "checkpoints")
    assert folder is not None
    files = {"": "model", "ema": "model", "raw": "training_state/weights"}
    for place in (run, folder):
        for which, file in files.items():
            loaded, stored = (
                load_dynamics(place / which).state_dict(),
                load_file(folder / f"{file}.safetensors"),
            )
            assert all(torch.equal(loaded[name], x) for name, x in stored.items()), (place, which)
    assert weights_sha256(run) == weights_sha256(run / "ema") != weights_sha256(run / "raw")
    plain = corpus.finished("dynamics")
    assert weights_sha256(plain / "raw") == weights_sha256(plain)
    with pytest.raises(UserError, match="no average of the weights was kept"):
        weights_sha256(plain / "ema")
    (folder / "training_state/weights.safetensors").write_bytes(b"damaged")
    load_dynamics(folder)
    with pytest.raises(UserError, match=r"training_state/weights.safetensors: is damaged"):
        load_dynamics(folder / "raw")


@pytest.mark.parametrize(
    "stage",
    [
        "tokenizer",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("dynamics", "clone", "imagine", "v1", "v3")
        ),
    ],
)
def test_a_killed_run_goes_on_with_the_same_average(stage: str, corpus: Corpus, tmp_path: Path) -> None:
    undisturbed = shorter(corpus.config(stage, tmp_path / "undisturbed"), ema=EMA)
    finish(stage, undisturbed)
    config = replace(undisturbed, out=tmp_path / "run")
    process = run_stage(stage, config)
    wait_for(lambda: latest_checkpoint(config.out / "checkpoints") is not None, process)
    process.kill()
    process.join()
    assert process.exitcode == -9, "the stage ended before it could be killed"
    finish(stage, config)
    assert_same_run(config.out, undisturbed.out)
    snapshot = read_snapshot(config.out)
    assert snapshot.raw is not None
    assert any(not torch.equal(snapshot.weights[name], x) for name, x in snapshot.raw.items())


@pytest.mark.parametrize(
    ("begun", "ema", "sentence"),
    [
        (EMA, None, "was begun with training.ema 0.6, not null; give"),
        (EMA, 0.5, "was begun with training.ema 0.6, not 0.5; give"),
        (None, EMA, "was begun with training.ema null, not 0.6; give"),
    ],
)
def test_a_run_does_not_change_its_average(
    begun: float | None, ema: float | None, sentence: str, corpus: Corpus, averaged: Any, tmp_path: Path
) -> None:
    source = averaged.out if begun else corpus.finished("dynamics")
    shutil.copytree(source, tmp_path / "run")
    with pytest.raises(UserError, match=sentence):
        STAGES["dynamics"](shorter(replace(averaged, out=tmp_path / "run"), ema=ema, steps=13))


@pytest.mark.slow
def test_two_processes_keep_the_average_that_one_would(corpus: Corpus, tmp_path: Path) -> None:
    """Copies and shards: the closed form over their weights, and the same held-out figures of it."""
    for strategy in ("ddp", "fsdp"):
        config = corpus.config("tokenizer", tmp_path / strategy)
        config = shorter(config, ema=EMA, steps=4, save_every=1, keep=4, evaluate_every=2, compile="off")
        fabric = replace(config.fabric, devices=2, strategy=strategy)
        batches = replace(config.batches, batch_size=4, long_batch_size=4, accumulate=2)
        run_command(["-m"], "tokenizer", replace(config, fabric=fabric, batches=batches))
        assert_averages(config.out)
    for copied, sharded in zip(heldout(tmp_path / "ddp"), heldout(tmp_path / "fsdp"), strict=True):
        assert copied.keys() == sharded.keys() and copied["heldout/ema/loss"] != copied["heldout/loss"]
        for name, value in copied.items():
            assert sharded[name] == pytest.approx(value, rel=1e-3), name
    one = shorter(replace(config, fabric=replace(config.fabric, devices=1)), steps=5)
    run_command(["-m"], "tokenizer", one)
    assert_averages(one.out)
    load_tokenizer(one.out)


def assert_averages(run: Path) -> None:
    """From one kept checkpoint to the next the average follows the weights, in float64."""
    folders = sorted((run / "checkpoints").glob("0*"))
    before = read_snapshot(folders[0]).weights
    assert len(folders) > 2
    for folder in folders[1:]:
        snapshot = read_snapshot(folder)
        step, after, raw = snapshot.step - 1, snapshot.weights, snapshot.raw
        assert raw is not None
        d = min(EMA, (1 + step) / (10 + step))
        for name, value in after.items():
            mean = d * before[name].double() + (1 - d) * raw[name].double()
            torch.testing.assert_close(value.double(), mean, atol=1e-6, rtol=1e-6, msg=f"{folder} {name}")
        before = after


def state(objective: Small) -> dict[str, Tensor]:
    return {name: x.clone() for name, x in objective.model.state_dict().items()}


def heldout(run: Path) -> list[dict[str, float]]:
    return [row for row in read_metrics(run / "metrics.jsonl") if "heldout/loss" in row]


def drop(row: dict[str, float], prefix: str) -> dict[str, float]:
    return {name: x for name, x in row.items() if not name.startswith(prefix)}


def finish(stage: str, config: Any) -> None:
    process = run_stage(stage, config)
    process.join(TIMEOUT)
    assert process.exitcode == 0
