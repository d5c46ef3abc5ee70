"""The bookkeeping around a training loop: resume, seed, log, evaluate, save, stop.

Two loops use it, `training.loop.fit` (Fabric) and `stages.imagine` (Accelerate). Everything random in step s is drawn from a seed
that is a pure function of (run seed, s, rank), so a resumed run needs no saved generator and repeats bit for bit.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from reverie.data.batch import Batch
from reverie.data.errors import UserError
from reverie.pipelines.runs.progress import Meter
from reverie.pipelines.runs.run import RunFolder
from reverie.pipelines.runs.stops import Stopped, StopRequest
from reverie.pipelines.training.batches import BatchSource
from reverie.pipelines.training.checkpoints import (
    Card,
    Snapshot,
    latest_checkpoint,
    read_snapshot,
    save_checkpoint,
)
from reverie.pipelines.training.metrics import Averages, MetricsLog, all_finite, describe
from reverie.pipelines.training.processes import Processes
from reverie.pipelines.training.sharding import full_tensor, like_parameter


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How long to train and how often to report and save."""

    steps: int = 1000
    """Optimiser steps in all; a finished run continues when this is raised."""
    seed: int = 0
    """Seed of initial weights, data order and everything drawn while training."""
    log_every: int = 50
    """Steps between two rows of metrics.jsonl and TensorBoard."""
    evaluate_every: int = 500
    """Steps between two evaluations on held-out data; 0 for none but the last."""
    save_every: int = 500
    """Steps between two checkpoints."""
    keep: int = 2
    """Newest checkpoints to keep."""

    def __post_init__(self) -> None:
        for name in ("steps", "log_every", "save_every", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(f"training.{name} must be at least 1, got {getattr(self, name)}")
        if self.evaluate_every < 0:
            raise ValueError(f"training.evaluate_every must be 0 or more, got {self.evaluate_every}")


class Session:
    """One training run in progress.

    Args:
      name: of the stage, for people.
      objective: module with attribute `model`, the model to save; not wrapped for several processes.
      evaluate: held-out metrics, called with the objective in evaluation mode without gradients; every process calls it.
      counts: further figures of every logged row.
    """

    def __init__(
        self,
        *,
        name: str,
        run: RunFolder,
        card: Card,
        objective: nn.Module,
        optimizer: Optimizer,
        batches: BatchSource,
        config: TrainingConfig,
        processes: Processes,
        evaluate: Callable[[], Mapping[str, float]] | None = None,
        counts: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        self.name, self.run, self.card, self.config, self.processes = name, run, card, config, processes
        self.objective, self.optimizer, self.batches, self.evaluate = objective, optimizer, batches, evaluate
        self.counts = counts
        self.step, self._saved_step = 0, -1
        self._averages, self._skips_told = Averages(), 0
        self._resume()

    def __enter__(self) -> "Session":
        self.objective.train()
        self._stop = StopRequest()
        self._log = MetricsLog(self.run, self.step) if self.processes.main else None
        self._meter = Meter(self.name, self.config.steps, self.step) if self.processes.main else None
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.restore()
        if self._log is not None:
            self._log.close()
        if self._meter is not None:
            self._meter.close()

    @property
    def running(self) -> bool:
        """Whether steps remain."""
        return self.step < self.config.steps

    def begin_step(self) -> tuple[int, Batch]:
        """Number (from 0) and batch of the coming step; everything random in it is seeded."""
        batch = self.batches.next(self.step)
        # After the batch: a loader that has just started takes a number from the generator.
        torch.manual_seed(derive_seed(self.config.seed, self.step, self.processes.rank))
        return self.step, batch

    def end_step(self, metrics: Mapping[str, Tensor]) -> None:
        """Takes the metrics in; logs, evaluates and saves when due. Raises `Stopped` after a request to stop."""
        self.step += 1
        self._averages.add(metrics)
        last = not self.running
        if last or self.step % self.config.log_every == 0:
            self._write_averages()
        if last or (self.config.evaluate_every and self.step % self.config.evaluate_every == 0):
            self._evaluate()
        stop = self.processes.any(self._stop.requested)
        if last or stop or self.step % self.config.save_every == 0:
            self.save()
        if self._meter is not None:
            self._meter.update()
        if stop and not last:
            raise Stopped(f"Stopped {self.name} at step {self.step}; the same command continues from here.")

    def save(self) -> None:
        """Writes a checkpoint of this moment, once."""
        if self._saved_step == self.step:
            return
        snapshot = self._snapshot()
        if self.processes.main:
            save_checkpoint(self.run.checkpoints, snapshot, self.config.keep)
        self.processes.barrier()
        self._saved_step = self.step

    def _snapshot(self) -> Snapshot:
        weights, rest = _split(self.objective.state_dict())
        moments = {
            f"{name}.{key}": full_tensor(value)
            for name, parameter in self.objective.named_parameters()
            for key, value in self.optimizer.state.get(parameter, {}).items()
        }
        return Snapshot(
            step=self.step,
            card=self.card,
            weights={name: full_tensor(x) for name, x in weights.items()},
            objective={name: full_tensor(x) for name, x in rest.items()},
            optimizer=moments,
            state={"seed": self.config.seed, "batches": self.batches.state_dict()},
        )

    def _resume(self) -> None:
        path = latest_checkpoint(self.run.checkpoints)
        if path is None:
            return
        snapshot = read_snapshot(path)
        if snapshot.state["seed"] != self.config.seed:
            raise UserError(
                f"{self.run.path}: was begun with training.seed {snapshot.state['seed']}, not {self.config.seed}; "
                f"give that seed or another --out."
            )
        self._load(snapshot)
        self.step = self._saved_step = snapshot.step

    def _load(self, snapshot: Snapshot) -> None:
        saved = {f"model.{name}": x for name, x in snapshot.weights.items()} | dict(snapshot.objective)
        present = self.objective.state_dict()
        self.objective.load_state_dict({name: like_parameter(x, present[name]) for name, x in saved.items()})
        for name, parameter in self.objective.named_parameters():
            prefix = f"{name}."
            state = {key[len(prefix) :]: x for key, x in snapshot.optimizer.items() if key.startswith(prefix)}
            if state:
                self.optimizer.state[parameter] = {k: like_parameter(x, parameter) for k, x in state.items()}
        self.batches.load_state_dict(snapshot.state["batches"])

    def _write_averages(self) -> None:
        values = self._averages.take("train/")
        if not all_finite(values):
            raise UserError(
                f"{self.run.path}: the loss is not finite at step {self.step}; "
                f"lower the learning rate and start again from the last checkpoint."
            )
        if self._log is not None and self._meter is not None:
            values |= self.counts()
            self._log.write(self.step, values | {"train/steps_per_second": self._meter.rate})
            self._meter.update(0, note=f"loss {values.get('train/loss', float('nan')):.4g}")
            for sentence in self.batches.skipped[self._skips_told :]:
                self._meter.line(f"{self.name}: skipped. {sentence}")
                self._skips_told += 1

    def _evaluate(self) -> None:
        if self.evaluate is None:
            return
        self.objective.eval()
        torch.manual_seed(derive_seed(self.config.seed, -1, self.processes.rank))
        with torch.no_grad():
            values = {f"heldout/{name}": value for name, value in self.evaluate().items()}
        self.objective.train()
        if self._log is not None and self._meter is not None:
            self._log.write(self.step, values)
            self._meter.line(f"{self.name} step {self.step}: held-out {describe(values)}")


def derive_seed(seed: int, step: int, rank: int = 0) -> int:
    """A well mixed 63-bit seed for one step of one process."""
    digest = hashlib.sha256(f"{seed}/{step}/{rank}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def _split(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """State of an objective -> the model's weights under their own names, and the rest."""
    weights = {name.removeprefix("model."): x for name, x in state.items() if name.startswith("model.")}
    return weights, {name: x for name, x in state.items() if not name.startswith("model.")}
