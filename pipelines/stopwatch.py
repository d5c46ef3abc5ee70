"""Times the parts of steps, then records one for a trace; what `reverie profile` prints.

Timed steps run without torch's profiler, which would slow them; on a GPU every part waits for the device.
"""

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from reverie.pipelines.trace import most_expensive
from reverie.pipelines.training.matmul import device_name, matmul_rate, synchronize
from reverie.pipelines.training.pace import Gauge, StepCost, mfu, peak_memory

TRACED = 1
"""Steps in the trace."""
SHOWN = 10
"""Operations in the table."""


class Measured(Exception):
    """Ends a stage of which enough was seen."""


@dataclass
class TimedStep:
    """Seconds of a step's parts and of the whole, and what was done."""

    parts: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    cost: StepCost = StepCost(0, 0, 0)


class Stopwatch:
    """A `Watch` that lets `warmup` steps go by, times `steps` and traces one more, then raises `Measured`.

    Args:
      trace: file for the trace, in Chrome's format.
    """

    def __init__(self, warmup: int, steps: int, trace: Path) -> None:
        self.warmup, self.steps, self.trace = warmup, steps, trace
        self.timed: list[TimedStep] = []
        self.gauge: Gauge | None = None
        self._number, self._now, self._profiler = 0, TimedStep(), _profiler()
        self._begun: float | None = None

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Times one part of a step."""
        begun = self._clock()
        self._begun = begun if self._begun is None else self._begun
        with torch.profiler.record_function(name):
            yield
        ended = self._clock()
        self._now.parts[name] = self._now.parts.get(name, 0.0) + ended - begun
        self._now.seconds = ended - self._begun

    def end_step(self, cost: StepCost, gauge: Gauge) -> None:
        """Takes the step in, and ends the stage after the last one."""
        self.gauge, self._now.cost = gauge, cost
        if self.warmup <= self._number < self.warmup + self.steps:
            self.timed.append(self._now)
        self._number, self._now, self._begun = self._number + 1, TimedStep(), None
        if self._number == self.warmup + self.steps:
            self._profiler.start()
        if self._number == self.warmup + self.steps + TRACED:
            self._stop()
            raise Measured

    def _stop(self) -> None:
        self._profiler.stop()
        if is_main():
            self._profiler.export_chrome_trace(str(self.trace))

    def _clock(self) -> float:
        if self.gauge is not None:  # known from the first step on
            synchronize(self.gauge.device)
        return time.perf_counter()


def is_main() -> bool:
    """Whether this is the only process, or the first."""
    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0


@dataclass(frozen=True)
class Figures:
    """What was measured: means over the timed steps, but for `seconds`, which is one for each."""

    device: str
    dtype: str
    """Of most products: float32 or bfloat16."""
    seconds: list[float]
    flops: float
    rates: dict[str, float]
    """FLOP/s that the device reaches in matrix products, by dtype."""
    mfu: float
    frames_per_second: float
    tokens_per_second: float
    parts: dict[str, float]
    """Share of each part of a step."""
    peak_memory: int
    """Bytes."""


def figures(watch: Stopwatch) -> Figures:
    """What the stopwatch saw; measures the device's rates anew."""
    assert watch.gauge is not None and watch.timed
    device, dtype = watch.gauge.device, watch.gauge.dtype
    rates = {_name(x): matmul_rate(device, x, anew=True) for x in (torch.float32, torch.bfloat16)}
    seconds = [step.seconds for step in watch.timed]
    total, flops = sum(seconds), sum(step.cost.flops for step in watch.timed)
    return Figures(
        device=device_name(device),
        dtype=_name(dtype),
        seconds=seconds,
        flops=flops / len(seconds),
        rates=rates,
        mfu=mfu(flops, total, rates[_name(dtype)]),
        frames_per_second=sum(step.cost.frames for step in watch.timed) / total,
        tokens_per_second=sum(step.cost.tokens for step in watch.timed) / total,
        parts=_shares(watch.timed, total),
        peak_memory=peak_memory(device),
    )


def report(title: str, watch: Stopwatch) -> list[str]:
    """The figures, and the most expensive operations, in lines for people."""
    assert watch.gauge is not None
    found, device = figures(watch), watch.gauge.device
    count = torch.get_num_threads()
    threads = f", {count} thread{'s' if count > 1 else ''}" if device.type == "cpu" else ""
    place = f"{found.device}{threads}, torch {torch.__version__}"
    seconds = found.seconds
    spread = f"{min(seconds):.4g} {statistics.median(seconds):.4g} {max(seconds):.4g}  (min, median, max)"
    both = "  ".join(f"{name} {rate / 1e9:.4g} GFLOP/s" for name, rate in found.rates.items())
    return [
        f"{title}: {len(seconds)} steps after {watch.warmup} of warm-up on {place}",
        _line("seconds a step", spread),
        _line("FLOPs a step", f"{found.flops:.4g}"),
        _line("matmul rate", both),
        _line("MFU", f"{found.mfu:.1%} of {found.dtype}'s rate"),
        _line("frames/s", f"{found.frames_per_second:.4g}"),
        *([_line("tokens/s", f"{found.tokens_per_second:.4g}")] if found.tokens_per_second else []),
        _line("parts of a step", "  ".join(f"{name} {share:.1%}" for name, share in found.parts.items())),
        _line("peak memory", f"{found.peak_memory / 1e9:.3g} GB"),
        "most expensive operations of a step that was traced:",
        *(
            f"  {name[:52]:52} {calls:>7,} calls {1000 * own:>10.3f} ms"
            for name, calls, own in most_expensive(watch.trace, SHOWN)
        ),
        f"trace: {watch.trace} (for chrome://tracing or ui.perfetto.dev)",
    ]


def _line(name: str, value: str) -> str:
    return f"  {name:18}{value}"


def _shares(timed: list[TimedStep], total: float) -> dict[str, float]:
    names = list(dict.fromkeys(name for step in timed for name in step.parts))
    shares = {name: sum(step.parts.get(name, 0.0) for step in timed) / total for name in names}
    return shares | {"rest": 1 - sum(shares.values())}


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _profiler() -> Any:
    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    return torch.profiler.profile(activities=activities)
