"""What a CUDA graph needs of a frame, with a recorder that runs again in place of one: fixed memory, and nothing in between."""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_flatten

from reverie.dynamics.frame import Finished, Step
from reverie.dynamics.generation import denoise
from reverie.dynamics.model import Dynamics, DynamicsConfig
from reverie.nn import recording
from reverie.nn.cache import RingCache
from reverie.nn.recording import CALLS_BEFORE, recorded, recorder
from reverie.tokenizer.model import Tokenizer, TokenizerConfig
from reverie.tokenizer.streaming import decode_next
from tests.batches import SPACE, random_actions
from tests.graphs import trace_frames

FEW = 3


class Again:
    """Records as a CUDA graph does: on memory that stays, by a run whose results nobody takes but the repetitions'."""

    def __init__(self) -> None:
        self.recorded = self.repeated = 0

    def __call__(self, run: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        self.recorded += 1
        outputs = run()
        kept, _ = tree_flatten(outputs)
        for x in kept:
            x.fill_(torch.nan)  # while it is recorded, nothing is computed

        def replay() -> None:
            self.repeated += 1
            for old, new in zip(kept, tree_flatten(run())[0], strict=True):
                old.copy_(new)

        return replay, outputs


@pytest.fixture
def again(monkeypatch: pytest.MonkeyPatch) -> Again:
    record = Again()
    monkeypatch.setattr(recording, "recorder", lambda device: record)
    monkeypatch.setattr(recording, "CALLS_BEFORE", FEW)
    return record


def cache() -> RingCache:
    return RingCache(1, 2, 4, 8, "cpu")


def add(_: RingCache, number: int, x: torch.Tensor) -> torch.Tensor:
    return x + number


@torch.inference_mode()
@pytest.mark.slow
def test_recorded_frames_are_the_same_round_the_ring(monkeypatch: pytest.MonkeyPatch, again: Again) -> None:
    """Also after a row began anew: position and starts are read from the cache's own memory."""
    trace_frames(monkeypatch)
    torch.manual_seed(0)
    config = DynamicsConfig(latent_shape=(4, 8), width=32, depth=4, context_length=3, num_registers=2)
    dynamics, before = Dynamics(config, SPACE).eval(), None
    small = TokenizerConfig(
        frame_size=(8, 8), width=32, num_heads=2, num_kv_heads=2, bottleneck_tokens=2, context_length=3
    )
    tokenizer = Tokenizer(small).eval()
    slow, fast = dynamics.new_cache(2), dynamics.new_cache(2)
    decoders = [tokenizer.decoder_cache(2), tokenizer.decoder_cache(2)]
    for frame in range(12):
        step, z0 = Step(random_actions(2, 1), torch.rand(2, 1) < 0.7), torch.randn(2, 1, 4, 8)
        for past in (slow, fast):
            past.reset(torch.tensor([frame == 9, False]))
        expected = denoise(dynamics, slow, step, z0, 2, before=before)
        found = denoise(dynamics, fast, step, z0, 2, before=before, fast=before is not None)
        torch.testing.assert_close(found, expected)
        before = Finished(expected, step, torch.randn(2, 1, 4, 8))
        a, b = (
            decode_next(tokenizer, x, past, fast=i == 1)
            for i, (x, past) in enumerate(
                zip((torch.randn(2, 1, *small.latent_shape),) * 2, decoders, strict=True)
            )
        )
        torch.testing.assert_close(b, a, atol=1e-5, rtol=1e-4)
    assert again.recorded == 2 and again.repeated == 2 * (11 - FEW)


def test_the_first_calls_run_as_they_are_and_results_are_the_callers_own(again: Again) -> None:
    past, results = cache(), []
    for i in range(FEW + 3):
        results.append(recorded(past, add, (1,), (torch.full((2,), float(i)),)))
        assert (again.recorded, again.repeated) == (int(i >= FEW), max(0, i - FEW + 1))
    assert [float(x[0]) for x in results] == [1.0 + i for i in range(FEW + 3)]


def test_shapes_types_and_constants_have_their_own(again: Again) -> None:
    past = cache()
    kinds = [
        (1, torch.ones(2)),
        (1, torch.ones(3)),
        (1, torch.ones(2, dtype=torch.float64)),
        (2, torch.ones(2)),
    ]
    for _ in range(FEW + 2):
        for number, x in kinds:
            found = recorded(past, add, (number,), (x,))
            assert found.dtype == x.dtype and torch.equal(found, x + number)
    assert again.recorded == len(past.recordings) == len(kinds)


def test_modes_are_told_apart(again: Again) -> None:
    """A product under autocast is not repeated without."""
    past, types = cache(), []

    def product(_: RingCache, x: torch.Tensor) -> torch.Tensor:
        return x @ x

    for _ in range(FEW + 2):
        for half in (True, False):
            with torch.autocast("cpu", torch.bfloat16, enabled=half), torch.no_grad():
                types.append(recorded(past, product, (), (torch.eye(2),)).dtype)
    assert types == [torch.bfloat16, torch.float32] * (FEW + 2)
    assert torch.is_autocast_cache_enabled() and again.recorded == 2


def test_what_cannot_be_recorded_runs_as_it_is_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(run: Callable[[], Any]) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(recording, "recorder", lambda device: fails)
    past = cache()
    for i in range(CALLS_BEFORE + 3):
        assert torch.equal(recorded(past, add, (1,), (torch.tensor(i),)), torch.tensor(i + 1))
    told = capsys.readouterr().err
    assert told.count("not recorded") == 1 and "capturing" in told


def test_a_recording_keeps_no_cache_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its memory is a GPU's: it must not wait for the garbage collector."""
    monkeypatch.setattr(recording, "CALLS_BEFORE", 0)
    monkeypatch.setattr(recording, "recorder", lambda device: lambda run: (lambda: None, run()))
    gc.disable()
    try:
        past = cache()
        recorded(past, add, (1,), (torch.ones(2),))
        assert past.recordings
        gone = weakref.ref(past)
        del past
        assert gone() is None
    finally:
        gc.enable()


def test_only_gpus_record_unless_told_not_to(monkeypatch: pytest.MonkeyPatch) -> None:
    assert recorder(torch.device("cpu")) is None
    assert recorder(torch.device("cuda")) is not None
    monkeypatch.setenv("REVERIE_CUDA_GRAPHS", "0")
    assert recorder(torch.device("cuda")) is None
