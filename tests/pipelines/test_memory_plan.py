"""The memory plan: sizes as people write them, what fits, into how many micro-batches, and its tables."""

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from reverie.data.errors import UserError
from reverie.pipelines.cli import main, parse
from reverie.pipelines.info import build_preset, count, memory_bytes
from reverie.pipelines.memory_counts import Counted, count_stage, counted, digest, state_of
from reverie.pipelines.memory_plan import FREE, StagePlan, fit, micro_batches, own_way, plan_stage
from reverie.pipelines.memory_stages import Stage, stages, windows
from reverie.pipelines.memory_table import advice, print_stage
from reverie.pipelines.presets import PRESETS
from reverie.pipelines.training.batches import BatchesConfig


@pytest.mark.parametrize(
    ("text", "size"),
    [("80GB", 80e9), ("80 gb", 80e9), ("79.6GiB", 79.6 * 2**30), ("24000MB", 24e9), ("1TiB", 2**40)],
)
def test_sizes_are_read_as_written(text: str, size: float) -> None:
    assert memory_bytes(text) == size


@pytest.mark.parametrize(
    "text", ["", "80", "GB", "-80GB", "0GB", "80 bananas", "8e1GB", "80GBs", "nanGB", "infGB", "8,0GB", "١GB"]
)
def test_nonsense_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(UserError, match="is no size of memory, write it as 80GB or 79.6GiB"):
        memory_bytes(text)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--preset", "nano", "--devices", "0"], "--devices 0: must be at least 1"),
        (["--devices", "8"], "--devices: needs a --preset"),
        (
            ["--preset", "nano", "--devices", "8", "--device-memory", "much"],
            "--device-memory much: is no size",
        ),
        (["--preset", "nano", "--devices", "8", "--frame-size", "0x64"], "--frame_size"),
    ],
)
def test_flags_of_the_plan_are_checked(
    flags: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", *flags]) == 2
    assert sentence in capsys.readouterr().err


def test_flags_may_have_dashes() -> None:
    assert parse("info", ["--preset", "nano", "--device-memory", "24GB"]).device_memory == "24GB"
    assert parse("info", ["--preset", "nano", "--device-memory=24GB"]).device_memory == "24GB"


@pytest.mark.parametrize(
    ("devices", "frames", "expected"),
    [(8, 4096, 1), (8, 1024, 1), (8, 1023, 2), (8, 511, 4), (8, 255, None), (1, 256, 32), (64, 4096, None)],
)
def test_all_windows_are_cut_into_equal_parts(devices: int, frames: int, expected: int | None) -> None:
    """128 windows of 64 frames and 32 of 256: on 8 devices 16 and 4 each, of 1024 frames."""
    batches = BatchesConfig(
        batch_size=128, length=64, long_batch_size=32, long_length=256, long_probability=0.1
    )
    assert micro_batches(batches, devices, frames) == expected


def test_windows_that_are_never_drawn_need_not_fit() -> None:
    batches = BatchesConfig(batch_size=6, length=4, long_batch_size=5, long_length=9)
    assert windows(batches) == {4: 6}
    assert windows(replace(batches, long_probability=0.5)) == {4: 6, 9: 5}
    assert windows(replace(batches, long_probability=1.0)) == {9: 5}


def test_state_is_four_times_four_bytes_a_weight() -> None:
    tokenizer, agent = build_preset(PRESETS["small"])
    by_name = {stage.name: state_of(stage) for stage in stages(PRESETS["small"])}
    for name, model in (("tokenizer", tokenizer), ("dynamics", agent.dynamics)):
        state, weights = by_name[name], count(model)
        assert state.gradients == 4 * weights
        assert state.weights == pytest.approx(4 * weights, rel=0.01)  # and tables of angles, loss normalisers
        assert state.optimizer == pytest.approx(8 * weights, rel=1e-3)  # and a counter for each tensor
    assert by_name["imagine"].gradients < by_name["clone"].gradients / 5, "the world model is frozen"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tokenizer", "dynamics", "clone", "imagine"])
@pytest.mark.parametrize(
    ("preset", "devices", "memory"), [("small", 1, 24e9), ("base", 1, 80e9), ("paper", 8, 80e9)]
)
def test_presets_fit_the_machines_they_are_for(preset: str, devices: int, memory: float, name: str) -> None:
    stage = next(stage for stage in stages(PRESETS[preset]) if stage.name == name)
    own = fit(stage, own_way(stage, devices), count_stage(stage, chosen_alone=True), devices, memory)
    assert own.accumulate is not None and stage.batches.accumulate >= own.accumulate
    for rows in windows(stage.batches).values():
        assert rows % (devices * stage.batches.accumulate) == 0


@pytest.mark.slow
def test_more_memory_takes_larger_batches(nano: tuple[Stage, Counted]) -> None:
    small, large = (plan_stage(*nano, 1, memory).chosen for memory in (1e9, 4e9))
    assert 0 < 3 * small.rows < large.rows
    for found, memory in ((small, 1e9), (large, 4e9)):
        row = found.peak * nano[1].length
        taken = found.weights + found.gradients + found.optimizer + found.fixed + found.rows * row
        assert taken <= memory * (1 - FREE) < taken + row


@pytest.mark.slow
def test_what_does_not_fit_is_told_with_what_would(nano: tuple[Stage, Counted]) -> None:
    assert advice(plan_stage(*nano, 1, 80e9)) == "dynamics: fits"
    one = plan_stage(*nano, 1, 80e9).chosen
    one_row = (one.weights + one.gradients + one.optimizer + one.fixed + 1.1 * one.peak * nano[1].length) / (
        1 - FREE
    )
    assert advice(plan_stage(*nano, 1, one_row)) == "dynamics: fits with --batches.accumulate 2"
    less = advice(plan_stage(*nano, 1, 0.6 * one_row))
    assert less == "dynamics: does not fit so, but with --training.checkpointing layers"
    assert "does not fit; give smaller" in advice(plan_stage(*nano, 1, 1e6))


@pytest.mark.slow
def test_the_table_has_a_row_for_every_way(nano: tuple[Stage, Counted]) -> None:
    plan = plan_stage(*nano, 2, 1e9)
    text = _shown(plan)
    assert len(plan.fits) == 8
    for words in ("copied", "sharded", "kept", "recomputed", "soft cap", "fused", "*"):
        assert words in text
    sharded, copied = (next(f for f in plan.fits if f.way.sharded is way) for way in (True, False))
    assert sharded.weights == copied.weights / 2 and sharded.rows > copied.rows / 2


@pytest.mark.slow
def test_counts_are_kept_for_the_same_stage_of_the_same_code(
    nano: tuple[Stage, Counted], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REVERIE_CACHE", str(tmp_path))
    stage, expected = nano
    assert counted(stage) == expected
    (file,) = (tmp_path / "plans").iterdir()
    text = file.read_text()
    file.write_text(text.replace(f'"length": {expected.length}', '"length": 77'))
    assert counted(stage) == replace(expected, length=77), "read, and not counted"
    file.write_text(text[:100])
    assert counted(stage) == expected and file.read_text() == text, "a damaged one is replaced"


def test_counts_of_other_settings_are_others() -> None:
    alike, other = (
        {s.name: digest(s) for s in stages(PRESETS["nano"], size)} for size in ((16, 16), (16, 32))
    )
    assert alike == {s.name: digest(s) for s in stages(PRESETS["nano"], (16, 16))}
    assert {name for name in alike if alike[name] != other[name]} == {"tokenizer"}, "latents are as many"
    stage = stages(PRESETS["nano"])[1]
    assert digest(replace(stage, ema=True)) != digest(stage) != digest(replace(stage, half=not stage.half))


def test_an_average_of_the_weights_is_planned_for() -> None:
    stage = stages(PRESETS["nano"], (16, 16))[1]
    without, kept = state_of(stage), state_of(replace(stage, ema=True))
    assert kept == replace(without, weights=without.weights + without.gradients)


@pytest.fixture(scope="module")
def nano() -> tuple[Stage, Counted]:
    stage = next(stage for stage in stages(PRESETS["nano"], (16, 16)) if stage.name == "dynamics")
    return stage, count_stage(stage)


def _shown(plan: StagePlan) -> str:
    console = Console(width=100)
    with console.capture() as captured:
        print_stage(console, plan)
    return captured.get()
