"""`reverie report` on whole, partial, damaged and foreign runs: figures are those of the files, nothing ends in a traceback."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reverie.data.errors import UserError
from reverie.evaluation.comparison import Comparison
from reverie.evaluation.pictures import png
from reverie.evaluation.video import mp4
from reverie.pipelines.cli import main
from reverie.pipelines.scoring.comparing import display_names, read_evaluated, read_trained
from reverie.pipelines.training.checkpoints import Card
from reverie.pipelines.training.snapshots import Snapshot, save_checkpoint


def trained(folder: Path, kind: str = "tokenizer") -> Path:
    """A training run as a stage leaves it: 100 steps at 2 and 100 at 4 a second, 15 parameters."""
    weights = {"a": torch.zeros(3, 4), "b": torch.zeros(3)}
    snapshot = Snapshot(step=200, card=Card(kind="tokenizer", model={}), weights=weights)
    save_checkpoint(folder / "checkpoints", snapshot, keep=1)
    launch = {
        "time": "2026-01-02T03:04:05+00:00",
        "command": "reverie <tokenizer>",
        "commit": "ab" * 20,
        "versions": {},
    }
    identity = {"kind": kind, "inputs": {}, "model": {}}
    (folder / "provenance.json").write_text(
        json.dumps({"identity": identity, "seed": 0, "launches": [launch]})
    )
    (folder / "config.yaml").write_text("data: runs/shards\nfabric:\n  precision: bf16-mixed\n")
    rows = [
        {"step": 100, "train/loss": 2.0, "train/steps_per_second": 2.0, "speed/frames_per_second": 64.0},
        {"step": 200, "train/loss": 1.0, "train/steps_per_second": 4.0, "speed/frames_per_second": 128.0},
        {"step": 200, "heldout/loss": 1.5},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 3')
    return folder


def estimate(value: float) -> dict[str, Any]:
    return {"value": value, "low": value - 0.125, "high": value + 0.125, "n": 40}


def figures() -> dict[str, Any]:
    curve = [estimate(30.0), estimate(25.0)]
    player = {"player": "imagination", "learned": True, "return": estimate(0.75), "length": estimate(12.5)}
    return {
        "format": 1,
        "title": "crafter",
        "settings": {"data": "runs/shards"},
        "provenance": {"time": "2026-01-02T03:04:05+00:00", "commit": None},
        "reconstruction": {"scores": {"psnr": estimate(33.25), "lpips": None}},
        "rollouts": {
            "windows": 9,
            "context": 8,
            "curves": {"model": {"psnr": curve}, "copy": {"psnr": curve}},
            "averages": {"psnr": 27.5, "right": 0.5},
            "advantage": {"copy": {"average": estimate(1.5)}},
        },
        "games": {
            "task": "wood",
            "tasks": ["sapling", "wood"],
            "players": [{**player, "success": {"wood": estimate(0.5), "sapling": estimate(0.25)}}],
        },
        "agreements": [{"alarm": True, "sentence": "ALARM: imagination promises <much>"}],
        "traces": {
            "imagination": [{"number": 0, "rewards": [0, 1], "values": [0.5, 0.9], "events": {"wood": 2}}]
        },
    }


def evaluated(folder: Path) -> Path:
    (folder / "media").mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps(figures()))
    frames = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3)).astype(np.uint8)
    (folder / "media" / "reconstruction.png").write_bytes(png(frames[0]))
    (folder / "media" / "rollout-0.mp4").write_bytes(mp4(frames, 4))
    return folder


def page_of(*runs: Path, out: Path) -> str:
    assert main(["report", *map(str, runs), "--out", str(out)]) == 0
    return out.read_text()


def test_a_training_run_is_read_as_it_was(tmp_path: Path) -> None:
    run = read_trained(trained(tmp_path / "run"), "run")
    assert (run.kind, run.steps, run.parameters, run.precision) == ("tokenizer", 200, 15, "bf16-mixed")
    assert run.seconds == pytest.approx(100 / 2 + 100 / 4)
    assert run.speeds == {"steps_per_second": 3.0, "frames_per_second": 96.0}
    assert run.rows["train/loss"] == [(100, 2.0), (200, 1.0)] and run.rows["heldout/loss"] == [(200, 1.5)]
    assert run.commit == "ab" * 5 and run.began == "2026-01-02 03:04" and run.data == "runs/shards"


def test_an_evaluation_is_read_as_it_was(tmp_path: Path) -> None:
    run = read_evaluated(evaluated(tmp_path / "run"), "run")
    assert run.reconstruction["psnr"].text() == "33.25 [33.12, 33.38]" and "lpips" not in run.reconstruction
    assert [e.value for e in run.psnr["model"]] == [30.0, 25.0] and run.leads["copy"].value == 1.5
    assert run.players[0].success["wood"].value == 0.5 and run.players[0].episodes == 40
    assert len(run.pictures) == 1 and len(run.films) == 1 and run.trust is None and run.drift is None


def test_the_page_shows_everything_and_needs_nothing_else(tmp_path: Path) -> None:
    trained(tmp_path / "demo" / "tokenizer")
    trained(tmp_path / "demo" / "dynamics", "dynamics")
    evaluated(tmp_path / "demo" / "evaluation")
    page = page_of(tmp_path / "demo", out=tmp_path / "page.html")
    for text in (
        "demo/tokenizer",
        "demo/dynamics",
        "33.25",
        "75 s",
        "Achievements",
        "sapling",
        "ALARM",
        "27.50",
    ):
        assert text in page, text
    assert "<much>" not in page and "&lt;much&gt;" in page and "<tokenizer>" not in page
    assert page.count("<video") == 1 and page.count("<img") == 1
    assert page.count("<svg") == 4, "two stages, the horizon, the traces"
    sources = re.findall(r'\b(?:src|href)="([^"]*)"', re.sub(r"<svg.*?</svg>", "", page, flags=re.S))
    assert sources and all(source.startswith("data:") for source in sources)
    assert "<script" not in page and "@import" not in page


def test_partial_damaged_and_foreign_runs_cost_a_sentence_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = trained(tmp_path / "good")
    begun = trained(tmp_path / "begun")
    for name in ("checkpoints", "metrics.jsonl", "config.yaml"):
        path = begun / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    broken = trained(tmp_path / "broken")
    (broken / "provenance.json").write_bytes(b"\x00\xff{")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "report.json").write_text('[{"mine": 1}]')
    half = evaluated(tmp_path / "half")
    (half / "report.json").write_text((half / "report.json").read_text()[:200])
    empty = tmp_path / "empty"
    empty.mkdir()
    page = page_of(good, begun, broken, foreign, half, empty, tmp_path / "none", out=tmp_path / "page.html")
    assert page.count('class="alarm"') == 5
    for path in (broken, foreign, half, empty, tmp_path / "none"):
        assert str(path) in page
    assert "2 training runs, 0 evaluations" in page
    assert capsys.readouterr().out.count("note: ") == 5


WRONG_VALUES: list[Any] = [None, 7, "text", [], {}, [1], {"a": 1}, float("nan")]


@pytest.mark.parametrize("field", list(figures()))
def test_any_field_may_be_anything(field: str, tmp_path: Path) -> None:
    run, readable = evaluated(tmp_path / "run"), []
    for value in WRONG_VALUES:
        (run / "report.json").write_text(json.dumps({**figures(), field: value}))
        try:
            readable.append(read_evaluated(run, "run"))
        except UserError as error:
            assert str(run / "report.json") in str(error)
    if readable:
        assert "Runs compared" in Comparison([], [replace(readable[-1], psnr={})], []).page()


def test_nothing_to_show_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path / "none")]) == 1
    assert "no such folder" in capsys.readouterr().err
    assert main(["report"]) == 2
    assert main(["report", str(trained(tmp_path / "run")), "--out", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err


def test_names_tell_runs_apart() -> None:
    paths = [Path("/a/x/run"), Path("/b/x/run"), Path("/b/y/run")]
    assert list(display_names(paths).values()) == ["a/x/run", "b/x/run", "y/run"]
