"""Frames a second, waiting, MFU: arithmetic under a clock that is set by hand, and a real run's rows."""

from pathlib import Path

import pytest
import torch

from reverie.data.batch import Batch
from reverie.pipelines.training import pace
from reverie.pipelines.training.matmul import matmul_rate
from reverie.pipelines.training.metrics import read_metrics
from reverie.pipelines.training.pace import Gauge, Pace, mfu, tokens_per_frame
from reverie.tokenizer.model import Tokenizer, TokenizerConfig
from tests.batches import latent_batch
from tests.pipelines.small_stages import Corpus

CPU = torch.device("cpu")


class Clock:
    now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(pace, "time", made)
    return made


def step(clock: Clock, pace: Pace, batch: Batch, waited: float, computed: float) -> None:
    with pace.waiting():
        clock.now += waited
    with pace.counted(batch.shape):
        torch.ones(10, 20) @ torch.ones(20, 30)
    clock.now += computed
    pace.step(batch, batch.shape)


def test_figures_are_what_happened_over_the_time_it_took(clock: Clock) -> None:
    tokenizer = Tokenizer(TokenizerConfig(frame_size=(16, 16), bottleneck_tokens=4))
    here = Pace(Gauge(device=CPU, dtype=torch.float32, world_size=2), tokenizer)
    for _ in range(4):
        step(clock, here, latent_batch(3, 5), waited=0.5, computed=1.5)
    with here.aside():
        clock.now += 1000  # an evaluation is no training
    found = here.take()
    assert found["speed/frames_per_second"] == pytest.approx(2 * 4 * 15 / 8)
    assert found["speed/tokens_per_second"] == pytest.approx(2 * 4 * 15 * (4 + 4) / 8)
    assert found["speed/waiting_for_data"] == pytest.approx(0.25)
    flops = 4 * 2 * 10 * 20 * 30
    assert found["speed/mfu"] == pytest.approx(flops / 8 / matmul_rate(CPU, torch.float32))
    assert 0.05 < found["speed/memory_gb"] < 1000
    step(clock, here, latent_batch(3, 5), waited=0.0, computed=3.0)
    assert here.take()["speed/frames_per_second"] == pytest.approx(2 * 15 / 3), "sums begin anew"


def test_mfu_is_work_over_what_the_device_could_have_done() -> None:
    assert mfu(flops=3e12, seconds=2.0, rate=6e12) == 0.25


def test_every_shape_of_batch_has_its_own_cost() -> None:
    here = Pace(Gauge(device=CPU, dtype=torch.float32), torch.nn.Linear(1, 1))
    costs = []
    for frames in (5, 7, 5):
        batch = latent_batch(2, frames)
        with here.counted(batch.shape):
            torch.ones(frames, 3) @ torch.ones(3, 4)
        costs.append(here.step(batch, batch.shape).flops)
    assert costs == [2 * 5 * 3 * 4, 2 * 7 * 3 * 4, 2 * 5 * 3 * 4]


def test_what_ran_in_inference_mode_is_done_once_more_and_leaves_no_trace(clock: Clock) -> None:
    here, batch, runs = (
        Pace(Gauge(device=CPU, dtype=torch.float32), torch.nn.Linear(1, 1)),
        latent_batch(2, 5),
        [],
    )

    def rollout() -> None:
        with torch.inference_mode():
            runs.append(torch.rand(3, 4) @ torch.ones(4, 6))

    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    costs = []
    for _ in range(2):
        with here.counted(batch.shape, rollout):
            torch.ones(5, 3) @ torch.ones(3, 4)
        costs.append(here.step(batch, batch.shape).flops)
    assert costs == 2 * [2 * 5 * 3 * 4 + 2 * 3 * 4 * 6] and len(runs) == 1
    assert torch.equal(torch.rand(2), expected), "random numbers go on as if nothing had been counted"


def test_a_model_without_tokens_logs_none() -> None:
    assert tokens_per_frame(torch.nn.Linear(1, 1)) == 0
    here = Pace(Gauge(device=CPU, dtype=torch.float32), torch.nn.Linear(1, 1))
    assert "speed/tokens_per_second" not in here.take()


@pytest.mark.parametrize("stage", ["dynamics", "imagine", "v3"])
def test_every_logged_row_says_how_fast_the_run_is(stage: str, corpus: Corpus) -> None:
    rows = read_metrics(Path(corpus.finished(stage)) / "metrics.jsonl")
    trained = [row for row in rows if "train/loss" in row]
    assert len(trained) >= 4
    for row in trained:
        assert row["speed/frames_per_second"] > 0 and row["speed/memory_gb"] > 0
        assert 0 < row["speed/mfu"] < 1.5 and 0 <= row["speed/waiting_for_data"] < 1
        assert ("speed/tokens_per_second" in row) == (stage != "v3")
