"""How fast a run trains, for its log: frames and tokens a second, share of waiting for data, MFU, memory.

Costs a few clock readings a step. FLOPs are counted in the first step of every batch shape, whose passes run under the
counter; that changes no number. Several processes log what all of them do together, and MFU of the first.
"""

import resource
import sys
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from reverie.agent.model import Agent
from reverie.data.batch import Batch
from reverie.dynamics.model import Dynamics
from reverie.nn.precision import in_bfloat16
from reverie.pipelines.training.flops import FlopCounter, count_flops
from reverie.pipelines.training.matmul import matmul_rate
from reverie.tokenizer.model import Tokenizer

PREFIX = "speed/"
"""Of these figures in metrics.jsonl; they differ from run to run, as all that a clock says."""


def batch_frames(batch: Batch) -> int:
    """Frames of a batch."""
    return batch.shape[0] * batch.shape[1]


@dataclass(frozen=True, kw_only=True)
class Gauge:
    """What a run's pace is measured by.

    device       where it computes
    dtype        of most products, bfloat16 or float32: MFU is measured against the rate that the device reaches in it
    frames       how many frames a batch stands for
    world_size   processes of the run
    """

    device: torch.device
    dtype: torch.dtype
    frames: Callable[[Batch], int] = batch_frames
    world_size: int = 1


@dataclass(frozen=True)
class StepCost:
    """What one step of one process worked on: frames, tokens (0 where a model has none), FLOPs."""

    frames: int
    tokens: int
    flops: int

    def __add__(self, other: "StepCost") -> "StepCost":
        return StepCost(self.frames + other.frames, self.tokens + other.tokens, self.flops + other.flops)


class Pace:
    """Sums of a run since the last logged row.

    Args:
      model: what is trained.
    """

    def __init__(self, gauge: Gauge, model: nn.Module) -> None:
        self.gauge, self._tokens = gauge, tokens_per_frame(model)
        self._flops: dict[Hashable, int] = {}
        self._rate: float | None = None
        self.restart()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around what fetches a batch."""
        begun = time.perf_counter()
        yield
        self._waited += time.perf_counter() - begun

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Around what is no training: evaluation, checkpoints."""
        begun = time.perf_counter()
        yield
        self._aside += time.perf_counter() - begun

    @contextmanager
    def counted(self, kind: Hashable, before: Callable[[], object] | None = None) -> Iterator[None]:
        """Around the passes of a step; `kind` names steps of equal cost, of which the first is counted.

        `before` is what came before them in inference mode. There operations come whole to the counter, and their last bits are
        not those of the parts they else run as; so it is not counted while it counts, but done once more.
        """
        if kind in self._flops:
            yield
            return
        with FlopCounter() as counter:
            yield
        self._flops[kind] = counter.total
        if before is not None:
            with self.aside(), torch.random.fork_rng():
                self._flops[kind] += count_flops(before)

    def step(self, batch: Batch, kind: Hashable) -> StepCost:
        """Takes a finished step in."""
        frames = self.gauge.frames(batch)
        cost = StepCost(frames, frames * self._tokens, self._flops.get(kind, 0))
        self._done += cost
        return cost

    def take(self) -> dict[str, float]:
        """The figures since the last call, under `PREFIX`."""
        seconds = max(time.perf_counter() - self._begun - self._aside, 1e-9)
        if self._rate is None:
            self._rate = matmul_rate(self.gauge.device, self.gauge.dtype)
        world, done = self.gauge.world_size, self._done
        values = {
            "frames_per_second": world * done.frames / seconds,
            "tokens_per_second": world * done.tokens / seconds,
            "waiting_for_data": self._waited / seconds,
            "mfu": mfu(done.flops, seconds, self._rate),
            "memory_gb": peak_memory(self.gauge.device) / 1e9,
        }
        self.restart()
        return {
            PREFIX + name: value for name, value in values.items() if value or name != "tokens_per_second"
        }

    def restart(self) -> None:
        """Sums anew from now on."""
        self._begun, self._waited, self._aside = time.perf_counter(), 0.0, 0.0
        self._done = StepCost(0, 0, 0)


def mfu(flops: float, seconds: float, rate: float) -> float:
    """Model FLOPs utilisation: what was asked for over what the device could have done, FLOPs / (seconds rate)."""
    return flops / (seconds * rate)


def products(device: torch.device, precision: str) -> torch.dtype:
    """What most products of a run in `precision` multiply on `device`: bfloat16 or float32."""
    return torch.bfloat16 if in_bfloat16(precision, device) else torch.float32


def tokens_per_frame(model: nn.Module) -> int:
    """Tokens of a frame in the model's transformer, without agent tokens; 0 for a model that has none."""
    if isinstance(model, Agent):
        return tokens_per_frame(model.dynamics)
    if isinstance(model, Dynamics):
        return model.config.num_world_tokens
    if isinstance(model, Tokenizer):
        return model.config.num_patches + model.config.bottleneck_tokens
    return 0


def peak_memory(device: torch.device) -> int:
    """Most bytes of the device's memory that this process has used; on a CPU, of the machine's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
