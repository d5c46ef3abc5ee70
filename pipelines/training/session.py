"""The bookkeeping around a training loop: resume, seed, log, evaluate, save, stop.

Two loops use it, `training.loop.fit` (Fabric) and `stages.imagine` (Accelerate). Everything random in step s is drawn from a seed
that is a pure function of (run seed, s, rank), so a resumed run needs no saved generator and repeats bit for bit.
"""

import hashlib
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from reverie.data.batch import Batch
from reverie.data.errors import UserError
from reverie.nn.compilation import Compile
from reverie.pipelines.runs.progress import Meter
from reverie.pipelines.runs.run import RunFolder
from reverie.pipelines.runs.stops import Stopped, StopRequest
from reverie.pipelines.training.averaging import WeightAverage
from reverie.pipelines.training.batches import BatchSource
from reverie.pipelines.training.boards import Logger
from reverie.pipelines.training.checkpoints import Card
from reverie.pipelines.training.finite import FiniteSteps, rows_text
from reverie.pipelines.training.integrity import clear_checkpoints
from reverie.pipelines.training.layers import Checkpointing
from reverie.pipelines.training.metrics import Averages, MetricsLog, describe
from reverie.pipelines.training.pace import Gauge, Pace
from reverie.pipelines.training.parts import end_step, part
from reverie.pipelines.training.processes import Processes
from reverie.pipelines.training.resuming import TrainingState, nonfinite
from reverie.pipelines.training.showing import Show
from reverie.pipelines.training.snapshots import Snapshot, save_checkpoint


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How long to train and how often to report and save."""

    steps: int = 1000
    """Optimiser steps in all; a finished run continues when this is raised."""
    seed: int = 0
    """Seed of initial weights, data order and everything drawn while training."""
    log_every: int = 50
    """Steps between two rows of metrics.jsonl and TensorBoard."""
    logger: Logger = "tensorboard"
    """Where curves, pictures and films are shown: tensorboard, or wandb or trackio where these packages are installed."""
    evaluate_every: int = 500
    """Steps between two evaluations on held-out data; 0 for none but the last."""
    save_every: int = 500
    """Steps between two checkpoints."""
    keep: int = 2
    """Newest checkpoints to keep."""
    compile: Compile = "auto"
    """Compile transformer layers: auto (on GPUs, and on CPUs for runs of more than about 20 minutes), on or off."""
    ema: float | None = None
    """Decay of a moving average of the weights, such as 0.999, which later stages then load instead of them; null for none. It
    rises from 0.1 to this: the average reaches back over a ninth of the run at most."""
    checkpointing: Checkpointing = "none"
    """layers: keep only the inputs of transformer layers and compute them anew in the backward pass; less memory, a third more
    time. none: keep all that the backward pass needs."""

    def __post_init__(self) -> None:
        for name in ("steps", "log_every", "save_every", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(f"training.{name} must be at least 1, got {getattr(self, name)}")
        if self.evaluate_every < 0:
            raise ValueError(f"training.evaluate_every must be 0 or more, got {self.evaluate_every}")
        if self.ema is not None and not 0 < self.ema < 1:
            raise ValueError(f"training.ema must lie between 0 and 1, or be null, got {self.ema}")


class Session:
    """One training run in progress.

    Args:
      name: of the stage, for people.
      objective: module with attribute `model`, the model to save; not wrapped for several processes.
      evaluate: held-out metrics, called with the objective in evaluation mode without gradients; every process calls it.
      show: pictures and films of the held-out data, made by the main process after each evaluation.
      counts: further figures of every logged row.
      advice: what to change when training leaves the finite numbers.
      gauge: what the run's pace is measured by.
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
        gauge: Gauge,
        evaluate: Callable[[], Mapping[str, float]] | None = None,
        show: Show | None = None,
        counts: Callable[[], Mapping[str, float]] = dict,
        advice: str = "lower the learning rate",
    ) -> None:
        self.name, self.run, self.card, self.config, self.processes = name, run, card, config, processes
        self.objective, self.batches, self.evaluate = objective, batches, evaluate
        self.show, self.counts, self.advice = show, counts, advice
        self.step, self._saved_step = 0, -1
        self._averages, self._skips_told = Averages(), 0
        self._finite, self._keys = FiniteSteps(), [""]
        self._pace = Pace(gauge, objective.model if isinstance(objective.model, nn.Module) else objective)
        self._batch: Batch | None = None
        self._average = None if config.ema is None else WeightAverage(objective, optimizer, config.ema)
        self.state = TrainingState(
            objective=objective,
            optimizer=optimizer,
            batches=batches,
            average=self._average,
            seed=config.seed,
            ema=config.ema,
            run=run.path,
        )
        self._resume()

    def __enter__(self) -> "Session":
        self.objective.train()
        self._stop = StopRequest()
        self._log = MetricsLog(self.run, self.step, self.config.logger) if self.processes.main else None
        self._meter = Meter(self.name, self.config.steps, self.step) if self.processes.main else None
        self._pace.restart()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.restore()
        if self._log is not None:
            self._log.close()
        if self._meter is not None:
            self._meter.close()
        # Torch raises it from a signal handler, wherever the loop then is.
        if isinstance(error, RuntimeError) and "DataLoader worker" in str(error):
            how = str(error).partition(")")[2].strip().removeprefix("is ").partition(". ")[0].rstrip(". ")
            raise _lost_worker(self.run.path, how) from None

    @property
    def running(self) -> bool:
        """Whether steps remain."""
        return self.step < self.config.steps

    def begin_step(self) -> tuple[int, Batch]:
        """Number (from 0) and batch of the coming step; everything random in it is seeded."""
        try:
            with part("data"), self._pace.waiting():
                batch = self.batches.next(self.step)
        except (
            ConnectionError,
            EOFError,
        ) as error:  # what the pipe from a dead process says, if it speaks first
            raise _lost_worker(self.run.path, str(error)) from None
        self._keys, self._batch = batch.key, batch
        # After the batch: a loader that has just started takes a number from the generator.
        torch.manual_seed(derive_seed(self.config.seed, self.step, self.processes.rank))
        return self.step, batch

    @contextmanager
    def counted(self, before: Callable[[], object] | None = None) -> Iterator[None]:
        """Around the passes of a step, forward and backward: their FLOPs are counted once for every kind of step.

        `before` is what the step did in inference mode; it is done once more for counting.
        """
        with self._pace.counted(self._kind(), before):
            yield

    def end_step(self, metrics: Mapping[str, Tensor]) -> None:
        """Takes the metrics in; logs, evaluates and saves when due. Raises `Stopped` after a request to stop."""
        if self._average is not None:
            self._average.update(self.step)
        self.step += 1
        assert self._batch is not None
        end_step(self._pace.step(self._batch, self._kind()), self._pace.gauge)
        self._averages.add(metrics)
        self._finite.add(self.step, metrics, self._keys)
        last = not self.running
        if last or self.step % self.config.log_every == 0:
            self._write_averages()
        with self._pace.aside():
            if last or (self.config.evaluate_every and self.step % self.config.evaluate_every == 0):
                self._evaluate()
        due = last or self.step % self.config.save_every == 0
        stop = self.processes.vote(self._stop.requested, due)
        with self._pace.aside():
            if due or stop:
                self.save()
        if self._meter is not None:
            self._meter.update()
        if stop and not last:
            raise Stopped(f"Stopped {self.name} at step {self.step}; the same command continues from here.")

    def save(self) -> None:
        """Writes a checkpoint of this moment, once."""
        if self._saved_step == self.step:
            return
        self._require_finite(self._finite.problem())
        snapshot = self.state.snapshot(self.step, self.card)
        self._require_finite(self._nonfinite(snapshot))
        save_checkpoint(self.run.checkpoints, snapshot, self.config.keep, self.processes)
        self._saved_step = self.step

    def _kind(self) -> Hashable:
        """Steps of one kind cost the same: shape of the batch, and what of the model learns."""
        assert self._batch is not None
        return self._batch.shape, getattr(self.objective, "phase", None)

    def _nonfinite(self, snapshot: Snapshot) -> str | None:
        """What of the coming checkpoint is not finite although all losses were, as after the step just taken."""
        found = nonfinite(snapshot)
        return None if found is None else f"{found} after step {self.step} ({rows_text(self._keys)})"

    def _require_finite(self, problem: str | None) -> None:
        """Ends all processes where one has a `problem`, and says what to do; the last checkpoint stays as it is."""
        if problem is not None:
            kept = "no checkpoint was saved" if self._saved_step < 0 else f"step {self._saved_step} is kept"
            problem = f"{self.run.path}: {problem}; {kept}, {self.advice}, and run this again."
        self.processes.end_together(problem)

    def _resume(self) -> None:
        def newest() -> Path | None:
            return clear_checkpoints(self.run.checkpoints) if self.processes.main else None

        path = self.processes.by_all(newest)[0]
        if path is not None:
            self.processes.by_all(lambda: self._go_on_from(path))

    def _go_on_from(self, path: Path) -> None:
        self.step = self._saved_step = self.state.go_on_from(path)

    def _write_averages(self) -> None:
        self._require_finite(self._finite.problem())
        values = self._averages.take("train/")
        if self._log is not None and self._meter is not None:
            values |= self.counts()
            rates = {"train/steps_per_second": self._meter.rate, **self._pace.take()}
            self._log.write(self.step, values | rates)
            self._meter.update(0, note=_note(values))
            for sentence in self.batches.skipped[self._skips_told :]:
                self._meter.line(f"{self.name}: skipped. {sentence}")
                self._skips_told += 1

    def _evaluate(self) -> None:
        if self.evaluate is None:
            return
        self.objective.eval()
        values = self._heldout("heldout/")
        if self._average is not None:
            with self._average.swapped():
                values |= self._heldout("heldout/ema/")
        shown = self.show() if self.show is not None and self._log is not None else {}
        self.objective.train()
        if self._log is not None and self._meter is not None:
            self._log.write(self.step, values)
            self._log.show(self.step, shown)
            self._meter.line(f"{self.name} step {self.step}: held-out {describe(values)}")

    @torch.no_grad()
    def _heldout(self, prefix: str) -> dict[str, float]:
        """Held-out metrics of the present weights; draws are the same in every evaluation."""
        assert self.evaluate is not None
        torch.manual_seed(derive_seed(self.config.seed, -1, self.processes.rank))
        return {prefix + name: value for name, value in self.evaluate().items()}


def _lost_worker(run: Path, how: str) -> UserError:
    """One sentence for torch's reports of a loading process that died."""
    return UserError(
        f"{run}: a process that loads batches has died ({how or 'it left'}), mostly because memory ran out; lower "
        f"--batches.num_workers or --batches.batch_size and run this again, it goes on from the last checkpoint."
    )


def _note(values: Mapping[str, float]) -> str:
    """What is shown beside the bar: the PSNR where there is one, since people know what it means, and the loss."""
    shown = {"train/psnr": "PSNR {:.1f} dB", "train/loss": "loss {:.4g}"}
    return ", ".join(text.format(values[name]) for name, text in shown.items() if name in values)


def derive_seed(seed: int, step: int, rank: int = 0) -> int:
    """A well mixed 63-bit seed for one step of one process."""
    digest = hashlib.sha256(f"{seed}/{step}/{rank}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
