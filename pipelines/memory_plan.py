"""Which batch of a preset fits a device: weights, gradients, optimiser and activations of each stage (`reverie info --devices`).

What a stage takes is counted (`memory_counts`). Only what FSDP gathers there, and what is left free here, are rules of thumb.
"""

from dataclasses import dataclass
from math import gcd

from reverie.pipelines.memory_counts import Counted
from reverie.pipelines.memory_stages import Stage, Way, ways, windows
from reverie.pipelines.training.batches import BatchesConfig

FREE = 0.1
"""Share of a device's memory left to its context, to the buffers of communication and to fragmentation."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What one way to train takes on each device, in bytes, and what fits.

    weights, gradients, optimizer  that stay
    fixed      further bytes, however many rows: what an update or FSDP needs, weights rounded to bfloat16
    kept, peak bytes of a frame after the forward pass, and at the worst moment
    rows       most windows a device takes at once; 0 if not even one fits
    accumulate micro-batches that the preset's batch then takes; None if no number fits
    """

    way: Way
    weights: float
    gradients: float
    optimizer: float
    fixed: float
    kept: float
    peak: float
    rows: int
    accumulate: int | None


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """The plan of one stage: `fits`, of which `chosen` is the preset's way; windows of `length` frames, `rows` a device."""

    stage: str
    length: int
    rows: int
    fits: list[Fit]
    chosen: Fit


def plan_stage(stage: Stage, counted: Counted, devices: int, memory: float) -> StagePlan:
    """Which way to train fits `devices`, in all nodes together, of `memory` bytes each."""
    fits = [fit(stage, way, counted, devices, memory) for way in ways(stage, devices)]
    chosen = own_way(stage, devices)
    return StagePlan(
        stage=stage.name,
        length=counted.length,
        rows=max(windows(stage.batches)[counted.length] // devices, 1),
        fits=fits,
        chosen=next(fit for fit in fits if fit.way == chosen),
    )


def own_way(stage: Stage, devices: int) -> Way:
    """How the preset trains the stage."""
    return Way(stage.sharded and devices > 1, stage.checkpointing, stage.softcap)


def fit(stage: Stage, way: Way, counted: Counted, devices: int, memory: float) -> Fit:
    """What one way to train takes, and what fits."""
    state, length = counted.state, counted.length
    share, gathered = (devices, counted.gathered) if way.sharded else (1, 0.0)
    taken = counted.activations[way.checkpointing, way.softcap]
    room = memory * (1 - FREE) - (state.weights + state.gradients + state.optimizer) / share
    fixed = taken.fixed + gathered
    rows = max(int((room - fixed) // taken.peak), 0) if room >= state.update / share else 0
    return Fit(
        way=way,
        weights=state.weights / share,
        gradients=state.gradients / share,
        optimizer=state.optimizer / share,
        fixed=fixed,
        kept=taken.kept / length,
        peak=taken.peak / length,
        rows=rows,
        accumulate=micro_batches(stage.batches, devices, rows * length),
    )


def micro_batches(batches: BatchesConfig, devices: int, frames: int) -> int | None:
    """Into how many equal parts all batches must be cut so that a device never takes more than `frames`; None if none will do."""
    counts = windows(batches)
    if any(rows % devices for rows in counts.values()):
        return None
    shares = {length: rows // devices for length, rows in counts.items()}
    common = gcd(*shares.values())
    parts = [n for n in range(1, common + 1) if common % n == 0]
    return next((n for n in parts if all(t * rows // n <= frames for t, rows in shares.items())), None)
