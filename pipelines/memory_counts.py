"""What the stages of a memory plan take whatever they run on, counted once and kept in the user's cache folder.

Activations are counted by running the stages' own steps on tensors without memory (`training.memory`), for two and three rows and
for one and two times `time_every` layers. Bytes grow linearly in the number of rows and in that of layers, so the rest follows
exactly (a single row may differ by a percent: some of its copies are views).

CACHE/plans/<digest>.json    a `Counted`; the digest is of the stage's settings, of the code that is counted and of torch's
                             version
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import torch

from reverie import agent, dynamics, nn, tokenizer
from reverie.data.errors import UserError
from reverie.data.files.durable import cache_folder
from reverie.nn.transformer import Layer
from reverie.pipelines import memory_stages, training
from reverie.pipelines.memory_stages import Stage, longest, ways
from reverie.pipelines.runs.atomic import write_json
from reverie.pipelines.runs.configs import to_plain
from reverie.pipelines.runs.reading import read_json
from reverie.pipelines.training.memory import (
    StateMemory,
    StepMemory,
    on_meta,
    state_memory,
    step_memory,
)
from reverie.pipelines.training.optimization import make_optimizer

GATHERED_LAYERS = 6
"""Whole layers that FSDP holds at once: the present and the next one, each with the buffer it was gathered in and a gradient."""
_ROOMS = (nn, tokenizer, dynamics, agent, training)
"""What is counted lies here, and what counts it."""


@dataclass(frozen=True)
class Activations:
    """Bytes that a row adds, kept after the forward pass and at the worst moment, and those that stay the same (`fixed`)."""

    kept: float
    peak: float
    fixed: float


@dataclass(frozen=True)
class Counted:
    """What a stage takes whatever it runs on; `activations` of rows of `length` by (checkpointing, softcap)."""

    state: StateMemory
    gathered: float
    length: int
    activations: Mapping[tuple[bool, bool], Activations]


def count_stage(stage: Stage, chosen_alone: bool = False) -> Counted:
    """Runs the stage's steps without memory, which takes some ten seconds; a quarter if only the stage's own way is asked for."""
    length = longest(stage.batches)
    kinds = {(way.checkpointing, way.softcap) for way in ways(stage, devices=1)}
    if chosen_alone:
        kinds = {(stage.checkpointing, stage.softcap)}
    return Counted(
        state=state_of(stage),
        gathered=gathered_bytes(stage),
        length=length,
        activations={kind: activations(stage, length, *kind) for kind in sorted(kinds)},
    )


def activations(stage: Stage, length: int, checkpointing: bool, softcap: bool) -> Activations:
    """What windows of `length` frames take, from two rows and three."""

    def measure(rows: int, blocks: int) -> StepMemory:
        build = partial(stage.build, blocks, checkpointing, softcap)
        return step_memory(build, partial(stage.batch, rows, length), half=stage.half)

    two, three = (_grown(partial(measure, rows), stage.blocks) for rows in (2, 3))
    peak = three.peak - two.peak
    return Activations(kept=three.kept - two.kept, peak=peak, fixed=max(two.peak - 2 * peak, 0.0))


def _grown(measure: Callable[[int], StepMemory], blocks: int) -> StepMemory:
    """What `measure` would give for `blocks`, from what it gives for 1 and 2."""
    if blocks <= 2:
        return measure(blocks)
    one, two = measure(1), measure(2)
    kept, peak = two.kept - one.kept, two.peak - one.peak
    return StepMemory(one.kept + (blocks - 1) * kept, one.peak + (blocks - 1) * peak)


def state_of(stage: Stage) -> StateMemory:
    """Weights, with their average where one is kept, gradients and optimiser state, whole."""
    optimizer = partial(make_optimizer, config=stage.optimizer)
    build = partial(stage.build, stage.blocks, stage.checkpointing, stage.softcap)
    state = state_memory(build, optimizer)
    return replace(state, weights=state.weights + state.gradients) if stage.ema else state


def gathered_bytes(stage: Stage) -> float:
    """What FSDP holds whole at once: `GATHERED_LAYERS` of the largest layer, and all parameters outside layers with gradients."""
    objective = on_meta(partial(stage.build, stage.blocks, stage.checkpointing, stage.softcap))
    layers = [module for module in objective.modules() if isinstance(module, Layer)]
    sizes = [sum(p.nbytes for p in layer.parameters()) for layer in layers]
    rest = sum(p.nbytes for p in objective.parameters()) - sum(sizes)
    return GATHERED_LAYERS * max(sizes) + 2 * rest


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """A `Counted` in a file; its activations as [checkpointing, softcap, numbers]."""

    state: StateMemory
    gathered: float
    length: int
    activations: list[tuple[bool, bool, Activations]]


def counted(stage: Stage) -> Counted:
    """`count_stage`, or what it gave for this stage before."""
    file = cache_folder() / "plans" / f"{digest(stage)}.json"
    try:
        kept = read_json(file, _Kept, "it is counted anew")
        activations = {(checkpointing, softcap): x for checkpointing, softcap, x in kept.activations}
        return Counted(kept.state, kept.gathered, kept.length, activations)
    except UserError:  # none, or none that can be read
        return _keep(file, count_stage(stage))


def _keep(file: Path, found: Counted) -> Counted:
    activations = [(*kind, numbers) for kind, numbers in found.activations.items()]
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        kept = _Kept(state=found.state, gathered=found.gathered, length=found.length, activations=activations)
        write_json(file, to_plain(kept))
    except OSError:
        pass  # it is only slower the next time
    return found


def digest(stage: Stage) -> str:
    """Names what the counts of a stage depend on."""
    return hashlib.sha256(f"{stage.settings!r} {torch.__version__} {_code()}".encode()).hexdigest()[:32]


@cache
def _code() -> str:
    """Digest of the source that is counted."""
    folders = [Path(place) for room in _ROOMS for place in room.__path__]
    files = [*sorted(f for folder in folders for f in folder.rglob("*.py"))]
    files += [Path(memory_stages.__file__), Path(__file__)]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()
