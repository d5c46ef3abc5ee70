"""Training that leaves the finite numbers stops with a sentence; no checkpoint ever holds them, and the advice works."""

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from reverie.data.batch import Batch
from reverie.data.errors import UserError
from reverie.pipelines.cli import parse
from reverie.pipelines.runs.run import RunFolder
from reverie.pipelines.training.checkpoints import Card
from reverie.pipelines.training.finite import FiniteSteps
from reverie.pipelines.training.integrity import all_files, newest_whole
from reverie.pipelines.training.pace import Gauge
from reverie.pipelines.training.processes import Processes
from reverie.pipelines.training.session import Session, TrainingConfig
from reverie.pipelines.training.snapshots import read_snapshot
from reverie.rssm.config import OptimizerConfig
from tests.batches import latent_batch
from tests.pipelines.small_stages import STAGES, Corpus
from tests.processes import TIMEOUT, start

FAR = 1e30
"""A learning rate from which every model leaves the finite numbers within a few steps."""


@pytest.mark.parametrize(
    "stage",
    [
        "tokenizer",
        *(
            pytest.param(s, marks=pytest.mark.slow)
            for s in ("dynamics", "clone", "imagine", "v1", "v3", "online")
        ),
    ],
)
def test_a_diverging_run_keeps_its_last_good_checkpoint_and_goes_on_as_advised(
    stage: str, corpus: Corpus, tmp_path: Path
) -> None:
    config = corpus.config(stage, tmp_path / "run")
    shutil.copytree(corpus.finished(stage), config.out)
    last = newest_whole(config.out / "checkpoints", all_files)
    assert last is not None
    saved = {path.name for path in last.parent.iterdir()}
    with pytest.raises(UserError) as raised:
        STAGES[stage](_longer(config, FAR))
    sentence = str(raised.value)
    assert re.search(
        rf"is not finite (at|after) step \d+ \(batch of \S+.*step {int(last.name)} is kept", sentence
    ), sentence
    assert "\n" not in sentence
    assert {path.name for path in last.parent.iterdir()} == saved
    _require_flags(stage, sentence)
    STAGES[stage](_longer(config, 1e-3))
    assert read_snapshot(config.out).step == int(last.name) + 6


def test_the_first_step_its_narrowest_term_and_its_rows_are_named() -> None:
    steps = FiniteSteps()
    one, bad = torch.tensor(1.0), torch.tensor(float("nan"))
    steps.add(1, {"loss": one, "loss/policy": one, "gradient_norm": one}, ["a:0"])
    assert steps.problem() is None
    steps.add(2, {"loss": one, "loss/policy": one}, ["a:1"])
    steps.add(3, {"gradient_norm": bad, "loss": bad, "loss/policy": -bad / 0}, [f"b:{i}" for i in range(6)])
    steps.add(4, {"loss/video": bad}, ["c:0"])
    assert steps.problem() == "loss/policy is not finite at step 3 (batch of b:0, b:1, b:2, b:3 and 2 more)"
    assert steps.problem() is None


class Toy(nn.Module):
    """An objective whose loss is `scale` times its only weight."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.model, self.scale = nn.Linear(1, 1, bias=False), scale

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        loss = self.scale * self.model.weight.sum()
        return loss, {"loss": loss.detach()}


class Endless:
    """The same batch for ever."""

    skipped: list[str] = []

    def next(self, step: int) -> Batch:
        return latent_batch(2)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        assert state == {}


def toy_session(out: Path, scale: float, processes: Processes, **training: int) -> Session:
    objective = Toy(scale)
    return Session(
        name="toy",
        run=RunFolder(out),
        card=Card(kind="tokenizer", model={}),
        objective=objective,
        optimizer=torch.optim.AdamW(objective.parameters(), 1e-9),
        batches=Endless(),
        config=TrainingConfig(**{"steps": 4, "log_every": 9, "save_every": 2, **training}),
        processes=processes,
        gauge=Gauge(device=torch.device("cpu"), dtype=torch.float32),
    )


def run(session: Session, spoil: int | None = None) -> None:
    """Trains; in step `spoil` the loss is not a number, though the weights stay as they are."""
    with session:
        while session.running:
            step, batch = session.begin_step()
            loss, metrics = session.objective(batch)
            loss.backward()
            session.state.optimizer.step()
            session.state.optimizer.zero_grad()
            session.end_step({name: x * float("nan") if step == spoil else x for name, x in metrics.items()})


def test_optimiser_state_that_overflows_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"model.weight.exp_avg_sq of the optimiser state is not finite after step 2"
    ):
        run(toy_session(tmp_path, 1e25, Processes()))
    assert newest_whole(tmp_path / "checkpoints") is None


@pytest.mark.parametrize(("spoiled", "kept"), [(1, None), (2, 2)])
def test_a_bad_step_between_two_logs_is_in_no_checkpoint(
    spoiled: int, kept: int | None, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=f"loss is not finite at step {spoiled + 1} "):
        run(toy_session(tmp_path, 1.0, Processes()), spoiled)
    found = newest_whole(tmp_path / "checkpoints")
    assert (None if found is None else int(found.name)) == kept


def test_two_processes_stop_together_and_one_says_why(tmp_path: Path) -> None:
    processes = [start(_spoil_the_second, rank, tmp_path) for rank in range(2)]
    for process in processes:
        process.join(TIMEOUT)
    assert [process.exitcode for process in processes] == [1, 0]
    assert (tmp_path / "said").read_text().count("loss is not finite at step 3 (batch of row0, row1)") == 1


def _spoil_the_second(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)

    def anyone(value: bool) -> bool:
        flag = torch.tensor(float(value))
        dist.all_reduce(flag)
        return bool(flag)

    processes = Processes(rank=rank, world_size=2, vote=lambda value, now: anyone(value))
    try:
        run(toy_session(folder, 1.0, processes), spoil=2 if rank == 1 else None)
    except UserError as error:
        with (folder / "said").open("a") as file:
            file.write(f"{error}\n")
        os._exit(1)


def _longer(config: Any, rate: float) -> Any:
    """`config` with six more steps at another learning rate."""
    training = replace(config.training, steps=config.training.steps + 6)
    if not hasattr(config, "optimizer"):
        optimizer = replace(config.model.optimizer, model_lr=rate, actor_lr=rate, critic_lr=rate)
        assert isinstance(optimizer, OptimizerConfig)
        model = replace(config.model, optimizer=optimizer)
        if config.online:
            return replace(config, model=model, training=training)
        return replace(config, model=model, policy=replace(config.policy, steps=config.policy.steps + 6))
    return replace(config, training=training, optimizer=replace(config.optimizer, lr=rate))


def _require_flags(stage: str, sentence: str) -> None:
    """The flags that the sentence advises are the command's."""
    flags = re.findall(r"(--[\w.]+) ([\w.+-]+)", sentence)
    assert flags
    command = stage if stage in ("tokenizer", "dynamics", "clone", "imagine") else "baseline"
    needed = {"clone": ["--dynamics", "m"], "imagine": ["--agent", "a"], "baseline": ["--version", "v3"]}
    arguments = [
        "--data",
        "d",
        "--out",
        "o",
        *needed.get(command, []),
        *(part for flag in flags for part in flag),
    ]
    assert parse(command, arguments) is not None
