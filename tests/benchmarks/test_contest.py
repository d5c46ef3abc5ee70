"""Contestants in processes of their own, and the table of what they took."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import ours, public, reference
from benchmarks.__main__ import main
from benchmarks.contest import ROOT, Contestant, Found, compete
from benchmarks.loops import CannotRun, Place
from benchmarks.sizes import ROWS, TINY, Row
from benchmarks.table import write_table

CPU = Place(torch.device("cpu"), bf16=False)
SETTINGS = {"threads": 1, "bf16": False, "device": "cpu", "tiny": True}


@pytest.mark.parametrize("row", [row for row in ROWS if row.kind != "rssm"], ids=lambda row: row.name)
def test_every_row_runs_again_and_again(row: Row) -> None:
    loops = [ours.open_row(row, TINY, CPU)]
    if row.kind != "imagination":
        loops.append(reference.open_row(row, TINY, CPU))
    for loop in loops:
        loop()
        loop()


def test_a_row_that_a_contestant_has_not_says_why() -> None:
    with pytest.raises(CannotRun, match="imagination"):
        reference.open_row(next(row for row in ROWS if row.kind == "imagination"), TINY, CPU)
    try:
        import dreamer4  # noqa: F401
    except ImportError:
        with pytest.raises(CannotRun, match=r"reverie\[benchmark\]"):
            public.open_row(ROWS[0], TINY, CPU)


def test_a_frame_is_generated_with_a_full_context() -> None:
    """Frames seen by the next one: those kept and itself."""
    row = Row("", "generation", context=6, videos=2)
    video = reference.Video(
        reference.Dynamics(TINY, 6), reference.Tokenizer(TINY, 6), torch.zeros(2, 6, 4, 8), 4
    )
    for _ in range(3):
        kept = [x[0].shape[2] for x in video.cache if x is not None]
        assert kept == [row.context - 1]
        assert video.next().shape == (2, 1, 3, 16, 16)


def test_the_table_shows_times_and_ratios_to_ours() -> None:
    found = [
        Found("step", "ours", [1.0, 2.0, 4.0]),
        Found("step", "plain torch", [2.0, 6.0, 4.0]),
        Found("step", "dreamer4", problem="not installed"),
    ]
    lines = write_table(found, {"device": "A", "threads": 1, "rates": {"float32": 1.5e12}}).splitlines()
    assert lines[:3] == ["- device: A", "- threads: 1", "- rates: float32 1.5e+12"]
    assert lines[-3:] == [
        "| step | ours | 1 2 4 |  |",
        "| step | plain torch | 2 4 6 | 1.00 2.00 3.00 |",
        "| step | dreamer4 | not installed |  |",
    ]


def test_a_contestant_that_dies_leaves_its_reason(tmp_path: Path) -> None:
    (found,) = compete([ROWS[0]], [Contestant("broken", "nobody")], SETTINGS, 1)
    assert found.problem is not None and "nobody" in found.problem and found.seconds == []


@pytest.mark.slow  # four processes that import torch
def test_the_same_checkout_is_as_fast_as_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "table.md"
    flags = [
        "--tiny",
        "--repeats",
        "5",
        "--only",
        "tokenizer step",
        "--against",
        str(ROOT),
        "--out",
        str(out),
    ]
    assert main(flags) == 0
    rows = {x["contestant"]: x for x in json.loads(out.with_suffix(".json").read_text())["rows"]}
    against = next(x for name, x in rows.items() if name.startswith("ours at "))
    ratios = sorted(a / b for a, b in zip(against["seconds"], rows["ours"]["seconds"], strict=True))
    assert len(ratios) == 5 and 0.5 < ratios[2] < 2
    assert "| tokenizer step | plain torch |" in out.read_text()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--against", "absent"], "has no src/reverie"),
        (["--only", "nothing"], "no row has such a name"),
        (["--device", "cuda:77"], "is not here"),
        (["--repeats", "0"], "at least 1"),
    ],
)
def test_bad_flags_are_told(flags: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(flags)
    assert ended.value.code == 2 and says in capsys.readouterr().err
