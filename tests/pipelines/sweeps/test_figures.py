"""Figures of runs by their path, means over seeds against scipy, shares, and what is not there."""

import json
from pathlib import Path

import pytest
from scipy import stats

from reverie.data.errors import UserError
from reverie.pipelines.sweeps.figures import Raw, differences, find_figures, over_seeds, read_figure
from reverie.pipelines.sweeps.file import load_sweep
from reverie.pipelines.sweeps.into import require_marks, write_into
from reverie.pipelines.sweeps.plan import make_plan
from reverie.pipelines.sweeps.tables import write_tables

REPORT = {
    "rollouts": {
        "averages": {"psnr": 30.5},
        "curves": {"model": {"right": [{"value": 0.75, "low": 0.5, "high": 1}]}},
    },
    "games": {"players": [{"player": "random", "return": {"value": 1, "low": None, "high": None}}]},
    "none": None,
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "report.json").write_text(json.dumps(REPORT))
    return tmp_path


def test_paths_lead_through_names_lists_and_members(run: Path) -> None:
    assert read_figure(run, "rollouts.averages.psnr") == Raw(30.5)
    assert read_figure(run, "rollouts.curves.model.right.0") == Raw(0.75, 0.5, 1)
    assert read_figure(run, "rollouts.curves.model.right.-1.low") == Raw(0.5)
    assert read_figure(run, "games.players[player=random].return") == Raw(1.0)


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        (
            "rollouts.average.psnr",
            "there is no average (did you mean averages?); use one of averages, curves",
        ),
        ("rollouts.curves.model.right.1", "there is no 1; use one of 0 to 0"),
        ("games.players[player=expert].return", "no member has player expert; there are random"),
        ("none", "is no number, but null"),
        ("rollouts.averages", "is no number"),
        ("rollouts.averages.psnr.value", "there is no value"),
    ],
)
def test_a_path_that_leads_nowhere_is_told(path: str, sentence: str, run: Path) -> None:
    with pytest.raises(UserError) as error:
        read_figure(run, path)
    assert str(error.value).startswith(f"{run / 'report.json'}: {path}: ") and sentence in str(error.value)


def test_a_training_stage_has_its_last_row(tmp_path: Path) -> None:
    rows = [
        {"step": 1, "heldout/loss": 3.0},
        {"step": 2, "heldout/loss": 2.0},
        {"step": 2, "train/loss": 1.0},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_figure(tmp_path, "heldout/loss") == Raw(2.0)
    with pytest.raises(UserError, match=r"has no heldout/los \(did you mean heldout/loss\?\)"):
        read_figure(tmp_path, "heldout/los")


def test_means_and_paired_differences_are_students() -> None:
    values = {"a": {0: Raw(1.0), 1: Raw(2.0), 2: Raw(4.0)}, "b": {1: Raw(5.0), 2: Raw(6.5), 3: Raw(9.0)}}
    low, high = stats.t.interval(0.95, 2, loc=7 / 3, scale=stats.sem([1.0, 2.0, 4.0]))
    found = over_seeds(values["a"])
    assert (found.value, found.low, found.high, found.n) == pytest.approx((7 / 3, low, high, 3))
    for against in ("a", "previous"):
        compared = differences(values, against)  # seeds 1 and 2 alone
        low, high = stats.t.interval(0.95, 1, loc=2.75, scale=stats.sem([3.0, 2.5]))
        assert list(compared) == ["b"] and compared["b"].n == 2
        assert (compared["b"].value, compared["b"].low, compared["b"].high) == pytest.approx(
            (2.75, low, high)
        )


SWEEP = """
seeds: 2
inputs: {shards: s}
stages:
  dynamics: {data: $shards, training.seed: $seed}
  evaluate: {data: $shards, dynamics: $dynamics}
variants: {none: {}, half: {dynamics: {training.steps: 5}}, all: {dynamics: {training.steps: 9}}}
figures:
  PSNR: evaluate/rollouts.averages.psnr
  Gain: {path: evaluate/rollouts.averages.psnr, share: [none, all], digits: 0}
  Shared: dynamics/loss
against: none
"""


def test_tables_and_raw_figures_of_what_is_finished(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(SWEEP)
    sweep = load_sweep(tmp_path / "s.yaml")
    plan = make_plan(sweep, tmp_path / "out")
    psnr = {
        ("none", 0): 10,
        ("none", 1): 12,
        ("half", 0): 15,
        ("half", 1): 16,
        ("all", 0): 20,
        ("all", 1): 22,
    }
    finished = set()
    for (variant, seed), value in psnr.items():
        run = plan.run(variant, seed, "evaluate")
        run.out.mkdir(parents=True)
        (run.out / "report.json").write_text(json.dumps({"rollouts": {"averages": {"psnr": value}}}))
        finished.add(run.name)
    finished.discard(plan.at["all", 1, "evaluate"])  # failed
    found = find_figures(sweep, plan, finished)
    assert found.values["Gain"]["half"] == {0: Raw(50.0)}  # of seed 1 the whole way is not known
    written = write_tables(tmp_path / "out", sweep, plan, found, {"evaluate-x": "it broke"})
    table = (tmp_path / "out" / "tables.md").read_text()
    assert "| half | 15.50 [9.15, 21.85] | 50 (of 1) | - |" in table
    assert "| all | 20.00 (of 1) | 100 (of 1) | - |" in table
    assert "| half | +4.50 [-1.85, 10.85] | +50 (of 1) | - |" in table
    assert "- evaluate-x: it broke" in table
    content = json.loads((tmp_path / "out" / "figures.json").read_text())
    assert content["figures"][0]["variants"]["half"]["by_seed"]["1"]["value"] == 16
    assert content["figures"][0]["variants"]["half"]["difference"]["value"] == 4.5
    assert len(content["runs"]) == 12 and content["failed"] == {"evaluate-x": "it broke"}
    picture = next(path for path in written if path.name == "psnr.svg").read_text()
    assert picture.startswith("<svg") and "half" in picture and 'href="http' not in picture


def test_a_run_that_all_seeds_share_is_one_observation(tmp_path: Path) -> None:
    text = SWEEP.replace(", training.seed: $seed", "").replace(
        "dynamics: $dynamics", "dynamics: $dynamics, seed: $seed"
    )
    (tmp_path / "s.yaml").write_text(text)
    sweep = load_sweep(tmp_path / "s.yaml")
    plan = make_plan(sweep, tmp_path / "out")
    run = plan.run("none", 0, "dynamics")
    run.out.mkdir(parents=True)
    (run.out / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    found = find_figures(sweep, plan, {run.name})
    assert over_seeds(found.values["Shared"]["none"]).n == 1 and not found.problems


def test_a_table_goes_between_its_marks_and_nowhere_else(tmp_path: Path) -> None:
    document = tmp_path / "README.md"
    before, after = (
        "# Results\n\n<!-- sweep: demo -->\n",
        "<!-- end of sweep -->\n\n<!-- sweep: other -->\n<!-- end of sweep -->\n",
    )
    for old in ("", "an old | table\n"):
        document.write_text(before + old + after)
        require_marks(document, "demo")
        write_into(document, "demo", ["| a \\1 |", "|---|"])
        assert document.read_text() == f"{before}\n| a \\1 |\n|---|\n\n{after}"
    for text in ("no marks", "<!-- sweep: demo -->", after + before, (before + after) * 2):
        document.write_text(text)
        with pytest.raises(
            UserError, match="has no place for this table; write the two lines <!-- sweep: demo -->"
        ):
            require_marks(document, "demo")
    with pytest.raises(UserError, match="has no place"):
        require_marks(tmp_path / "none.md", "demo")
