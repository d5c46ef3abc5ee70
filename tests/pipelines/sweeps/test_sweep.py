"""`reverie sweep` as people call it: dry, wrong, and a real one that is killed and goes on."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
import yaml

from reverie.data.errors import UserError
from reverie.pipelines.cli import main, parse
from reverie.pipelines.sweep import SweepConfig, as_flags, sweep
from reverie.pipelines.sweeps.file import load_sweep
from reverie.pipelines.sweeps.plan import make_plan
from tests.pipelines.launches import contents, launch
from tests.pipelines.small_stages import Corpus
from tests.processes import TIMEOUT, kill_group

ROOT = Path(__file__).parents[3]
SHIPPED = sorted((ROOT / "configs" / "sweeps").glob("*.yaml"))


def small(tmp_path: Path, corpus: Corpus, steps: int = 40) -> Path:
    """Two sizes of a tiny world model, two seeds, on latents that are there."""
    content = {
        "seeds": 2,
        "inputs": {"latents": str(corpus.finished("encode"))},
        "stages": {
            "dynamics": {
                "data": "$latents",
                "model": {"width": 32, "depth": 4, "num_heads": 2, "num_kv_heads": 1, "context_length": 4},
                "batches": {"batch_size": 2, "length": 6},
                "training": {
                    "steps": steps,
                    "seed": "$seed",
                    "save_every": 2,
                    "log_every": 5,
                    "logger": "tensorboard",
                },
                "fabric.accelerator": "cpu",
            }
        },
        "variants": {
            "no registers": {"dynamics": {"model.num_registers": 0}},
            "one": {"dynamics": {"model.num_registers": 1}},
        },
        "figures": {"Loss": "dynamics/heldout/loss"},
    }
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return tmp_path / "small.yaml"


@pytest.mark.parametrize("file", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_sweep_is_one_of_settings_that_there_are(file: Path) -> None:
    asked = load_sweep(file)
    plan = make_plan(asked, Path("out"))
    parsed = {}
    for run in plan.runs.values():
        if (key := (run.stage, str(run.places[0][0]))) not in parsed:
            parsed[key] = parse(run.command, as_flags(run))
    assert len(parsed) >= len(asked.variants)


def test_the_ladder_ends_at_the_paper() -> None:
    """The first rung is plain diffusion forcing, the last all that the equations have, and each differs from the one before."""
    asked = load_sweep(ROOT / "configs/sweeps/ladder.yaml")
    plan = make_plan(asked, Path("out"))
    rungs = [parse("dynamics", as_flags(plan.run(name, 0, "dynamics"))) for name in asked.variants]
    first, last = rungs[0], rungs[-1]
    assert (first.model.prediction, first.model.shortcut) == ("v", False)
    assert (first.objective.loss_space, first.objective.ramp) == ("v", False)
    assert (last.model.prediction, last.model.shortcut, last.model.num_registers) == ("x", True, 4)
    assert (last.objective.loss_space, last.objective.ramp) == ("x", True)
    names = [plan.at[name, 0, "evaluate"] for name in asked.variants]
    assert len(set(names)) == len(names)
    assert len({r.batches.frames for r in rungs}) == 1  # of a step, so that rungs see as much


def test_a_dry_run_starts_nothing(tmp_path: Path, corpus: Corpus, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = small(tmp_path, corpus), tmp_path / "out"
    assert main(["sweep", str(file), "--out", str(out), "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "2 variants x 2 seeds = 4 runs" in text and text.count("(to do)") == 4
    assert (
        "reverie dynamics --data" in text
        and "--training.seed 1" in text
        and "--model.num_registers 0" in text
    )
    assert not out.exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"training": {"step": 3}},
            "training.step: there is no such setting; did you mean training.steps",
        ),
        ({"training": {"steps": "many"}}, "training.steps: must be a whole number"),
        ({"preset": "nanno"}, "--preset nanno: is not known"),
        ({"batches": {"long_probability": 2}}, "batches.long_probability must lie in [0, 1]"),
    ],
)
def test_a_wrong_setting_is_told_before_anything_runs(
    change: dict[str, object], sentence: str, tmp_path: Path, corpus: Corpus
) -> None:
    file = small(tmp_path, corpus)
    content = yaml.safe_load(file.read_text())
    stage = content["stages"]["dynamics"]
    stage.update({name: {**stage[name], **x} if isinstance(x, dict) else x for name, x in change.items()})
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError) as error:
        sweep(SweepConfig(file=file, out=tmp_path / "out"))
    assert str(error.value).startswith(f"{file}: stages.dynamics") and sentence in str(error.value)
    assert not (tmp_path / "out").exists()


def test_inputs_are_those_of_the_file(tmp_path: Path, corpus: Corpus) -> None:
    with pytest.raises(UserError, match="has no input latent; did you mean latents"):
        sweep(SweepConfig(file=small(tmp_path, corpus), out=tmp_path / "out", inputs={"latent": "x"}))


@pytest.mark.slow
def test_a_killed_sweep_goes_on_and_ends_as_an_undisturbed_one(tmp_path: Path, corpus: Corpus) -> None:
    file = small(tmp_path, corpus)
    arguments = ["sweep", str(file), "--slots", "2", "--out"]
    killed = launch([*arguments, str(tmp_path / "killed")], tmp_path / "said")
    deadline = time.monotonic() + TIMEOUT
    while not list((tmp_path / "killed").glob("runs/*/checkpoints/000000004")):
        assert time.monotonic() < deadline and killed.is_alive(), (tmp_path / "said").read_text()
        time.sleep(0.05)
    assert kill_group(killed)
    begun = {path.name for path in (tmp_path / "killed" / "runs").iterdir()}
    assert 0 < len(begun) < 4 and not (tmp_path / "killed" / "figures.json").exists()

    # One Ctrl-C while it goes on: everything saves, and again the same command continues.
    said = tmp_path / "said-stopped"
    stopped = launch([*arguments, str(tmp_path / "killed")], said)
    while not said.exists() or "begins" not in said.read_text():
        time.sleep(0.05)
    os.kill(stopped.pid or 0, signal.SIGINT)
    stopped.join(TIMEOUT)
    assert stopped.exitcode == 130 and "the same command continues" in said.read_text(), said.read_text()

    for name in ("killed", "undisturbed"):
        process = launch([*arguments, str(tmp_path / name)], tmp_path / f"said-{name}")
        process.join(TIMEOUT)
        assert process.exitcode == 0, (tmp_path / f"said-{name}").read_text()
    runs = {p.name for p in (tmp_path / "undisturbed" / "runs").iterdir()}
    assert len(runs) == 4
    for run in runs:
        found, expected = (contents(tmp_path / n / "runs" / run) for n in ("killed", "undisturbed"))
        weights = [x for x in expected if x.endswith("model.safetensors")]
        assert weights and all(found[x] == expected[x] for x in weights)
    figures = [
        json.loads((tmp_path / n / "figures.json").read_text())["figures"] for n in ("killed", "undisturbed")
    ]
    assert figures[0] == figures[1] and figures[0][0]["variants"]["one"]["over_seeds"]["n"] == 2


@pytest.mark.slow
def test_a_failed_run_is_listed_and_the_others_end(tmp_path: Path, corpus: Corpus) -> None:
    """One variant asks for heads that do not divide the width; the next call tries it again and nothing else."""
    file = small(tmp_path, corpus, steps=2)
    content = yaml.safe_load(file.read_text())
    content["variants"]["one"] = {"dynamics": {"batches.batch_size": 3, "batches.accumulate": 2}}
    file.write_text(yaml.safe_dump(content))
    for _ in range(2):
        process = launch(
            ["sweep", str(file), "--slots", "1", "--out", str(tmp_path / "out")], tmp_path / "said"
        )
        process.join(TIMEOUT)
        text = (tmp_path / "said").read_text()
        assert process.exitcode == 1 and "2 of 4 runs have failed; the same command tries them again" in text
        assert "cannot be cut into as many equal parts" in text and "tail -n 40" in text
        assert "sweep: 2 of 4 runs are done" in text
    assert "2 of 4 runs to do" in text  # the second time
