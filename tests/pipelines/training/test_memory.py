"""The bytes of a step: counted without memory as with it, and beside torch's own hooks, profiler and CUDA allocator."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from reverie.nn.precision import bfloat16
from reverie.pipelines.memory_counts import activations, state_of
from reverie.pipelines.memory_stages import Stage, stages
from reverie.pipelines.presets import PRESETS
from reverie.pipelines.training.memory import CPU, StepMemory, live_step, step_memory
from reverie.pipelines.training.optimization import make_optimizer

STAGES = {stage.name: stage for stage in stages(PRESETS["nano"], (32, 32))}
TRAINED = ("tokenizer", "dynamics", "clone")
SLOW = [
    pytest.param("tokenizer", marks=pytest.mark.slow),
    "dynamics",
    pytest.param("clone", marks=pytest.mark.slow),
]
ROWS, LENGTH = 2, 4


@pytest.mark.parametrize("checkpointing", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", SLOW)
def test_counted_as_on_real_tensors(name: str, checkpointing: bool) -> None:
    build, batch = _made(STAGES[name], checkpointing)
    counted = step_memory(build, batch, half=False)
    measured = _measured(build, batch, half=False)
    assert counted.kept == pytest.approx(measured.kept, rel=1e-3)
    assert counted.peak == pytest.approx(measured.peak, rel=1e-3)


@pytest.mark.parametrize("half", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_what_is_kept_is_what_autograd_saves(half: bool) -> None:
    build, batch = _made(STAGES["dynamics"], checkpointing=False)
    counted = step_memory(build, batch, half=half)
    assert counted.kept == pytest.approx(_saved_bytes(build(), batch(), half), rel=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "most"), [("tokenizer", 0.15), ("dynamics", 0.02), ("clone", 0.02)])
def test_the_peak_is_the_profilers(name: str, most: float) -> None:
    """The convolutions of LPIPS take memory for themselves, which is not counted."""
    build, batch = _made(STAGES[name], checkpointing=False)
    assert step_memory(build, batch, half=False).peak == pytest.approx(_allocated(build(), batch()), rel=most)


@pytest.mark.slow
def test_layers_computed_anew_are_not_kept() -> None:
    kept, anew = (
        step_memory(*_made(STAGES["dynamics"], checkpointing), half=False) for checkpointing in (False, True)
    )
    assert anew.kept < kept.kept / 3 and anew.peak < kept.peak / 1.5


@pytest.mark.slow
def test_the_rest_follows_from_two_and_three_rows_and_few_layers() -> None:
    stage = STAGES["dynamics"]
    deep = Stage(**{**vars(stage), "blocks": 4})
    grown = activations(deep, LENGTH, False, True)
    measured = step_memory(partial(deep.build, 4, False, True), partial(deep.batch, 7, LENGTH), half=False)
    assert grown.fixed + 7 * grown.peak == pytest.approx(measured.peak, rel=1e-3)


@pytest.mark.parametrize("name", ["tokenizer", "dynamics"])
def test_state_is_that_of_a_real_update(name: str) -> None:
    stage = STAGES[name]
    objective = stage.build(stage.blocks, False, True)
    trained = [p for p in objective.parameters() if p.requires_grad]
    optimizer = make_optimizer(objective, stage.optimizer)
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    state = [x for values in optimizer.state.values() for x in values.values() if isinstance(x, Tensor)]
    counted = state_of(stage)
    assert counted.optimizer == sum(x.nbytes for x in state)
    assert counted.gradients == 4 * sum(p.numel() for p in trained)
    assert counted.weights >= counted.gradients


@pytest.mark.gpu
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", TRAINED)
def test_a_gpu_takes_no_more_than_counted(name: str, checkpointing: bool) -> None:
    """At the sizes of `small`, in bfloat16: at most what is counted, and not much less."""
    stage = next(stage for stage in stages(PRESETS["small"]) if stage.name == name)
    build = partial(stage.build, stage.blocks, checkpointing, True)
    objective = build().cuda().train()
    for parameter in objective.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    batch = stage.batch(8, 16).to("cuda")
    for _ in range(2):  # the first pass also makes the workspaces of cuBLAS
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        with bfloat16(torch.device("cuda")):
            loss = objective(batch)[0]
        loss.backward()
        taken = torch.cuda.max_memory_allocated() - before
    counted = step_memory(build, partial(stage.batch, 8, 16), half=True)
    assert 0.6 * counted.peak < taken < 1.05 * counted.peak


def _made(stage: Stage, checkpointing: bool) -> tuple[Callable[[], nn.Module], Callable[[], object]]:
    return partial(stage.build, 1, checkpointing, True), partial(stage.batch, ROWS, LENGTH)


def _measured(build: Callable[[], nn.Module], batch: Callable[[], object], half: bool) -> StepMemory:
    return live_step(_ready(build()), batch(), half=half)


def _ready(objective: nn.Module) -> nn.Module:
    for parameter in objective.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    return objective


def _saved_bytes(objective: nn.Module, batch: object, half: bool) -> int:
    """Storages that autograd keeps, without those of weights, buffers and the batch."""
    own = {x.untyped_storage().data_ptr() for x in (*objective.parameters(), *objective.buffers())}
    kept: dict[int, int] = {}
    alive: list[Tensor] = []

    def pack(x: Tensor) -> Tensor:
        alive.append(x)
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x), bfloat16(CPU, half):
        objective(batch)
    return sum(size for place, size in kept.items() if place not in own)


def _allocated(objective: nn.Module, batch: object) -> int:
    """The highest sum of what torch's allocator gave and took back, by its profiler."""
    _ready(objective)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        loss = objective(batch)[0]
        loss.backward()
    assert profiled.profiler is not None and profiled.profiler.kineto_results is not None
    changes = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
    total = most = 0
    for event in sorted(changes, key=lambda e: e.start_ns()):
        total += event.nbytes()
        most = max(most, total)
    return most
