"""Files of sweeps: what they mean, and one sentence for each that is wrong."""

from pathlib import Path

import pytest
import yaml

from reverie.data.errors import UserError
from reverie.pipelines.sweeps.file import load_sweep, merged, unfolded
from reverie.pipelines.sweeps.plan import make_plan

CONTENT = """
title: Two rates
seeds: 2
inputs: {shards: runs/mine/shards}
stages:
  tokenizer: {preset: nano, data: $shards}
  encode: {data: $shards, tokenizer: $tokenizer}
  dynamics: {data: $encode, training: {steps: 5, seed: $seed}, optimizer.lr: 0.1}
  evaluate: {data: $shards, tokenizer: $tokenizer, dynamics: $dynamics}
variants:
  slow: {}
  fast: {dynamics: {optimizer: {lr: 1}}}
figures:
  Error: evaluate/rollouts.averages.psnr
  Gain: {path: dynamics/heldout/loss, scale: 100, digits: 0, share: [slow, fast]}
against: slow
"""


def changed(tmp_path: Path, **changes: object) -> Path:
    content = yaml.safe_load(CONTENT)
    for key, value in changes.items():
        if value is None:
            del content[key]
        else:
            content[key] = value
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return tmp_path / "s.yaml"


def test_what_variants_and_seeds_share_is_one_run(tmp_path: Path) -> None:
    sweep = load_sweep(changed(tmp_path))
    plan = make_plan(sweep, tmp_path / "out")
    # one tokenizer and one encoding for all; dynamics and evaluation for each of two variants and two seeds
    assert [run.stage for run in plan.runs.values()].count("tokenizer") == 1
    assert len(plan.runs) == 2 + 2 * 4
    assert plan.run("slow", 0, "encode") is plan.run("fast", 1, "encode")
    assert plan.run("slow", 0, "encode").places == (("fast", 0), ("fast", 1), ("slow", 0), ("slow", 1))
    run = plan.run("fast", 1, "dynamics")
    out = str(tmp_path / "out" / "runs" / run.name)
    encoded = str(plan.run("fast", 1, "encode").out)
    assert run.settings == {
        "data": encoded,
        "training": {"steps": 5, "seed": 1},
        "optimizer": {"lr": 1},
        "out": out,
    }
    assert run.parents == (plan.run("fast", 1, "encode").name,)
    order = list(plan.runs)
    assert all(order.index(p) < order.index(r.name) for r in plan.runs.values() for p in r.parents)


def test_names_are_of_settings_and_of_nothing_else(tmp_path: Path) -> None:
    """Another place or another variant beside them changes none; another setting changes it and all that follows."""
    plan = make_plan(load_sweep(changed(tmp_path)), tmp_path / "out")
    elsewhere = make_plan(
        load_sweep(changed(tmp_path, variants={"slow": {}, "fast": {}, "new": {}})), Path("elsewhere")
    )
    assert plan.at["slow", 1, "evaluate"] == elsewhere.at["slow", 1, "evaluate"]
    stages = yaml.safe_load(CONTENT)["stages"]
    stages["tokenizer"]["training"] = {"steps": 3}
    other = make_plan(load_sweep(changed(tmp_path, stages=stages)), tmp_path / "out")
    assert not set(other.runs) & set(plan.runs)


def test_dotted_and_nested_settings_meet() -> None:
    assert unfolded({"a.b.c": 1, "a": {"b": {"d": 2}}, "x": {"y.z": 3}}) == {
        "a": {"b": {"c": 1, "d": 2}},
        "x": {"y": {"z": 3}},
    }
    assert merged({"a": {"b": 1, "c": 2}}, {"a": {"b": {"d": 3}}}) == {"a": {"b": {"d": 3}, "c": 2}}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"stages": None}, "stages: missing, and needed"),
        ({"seed": [0]}, "seed: is not known (did you mean seeds?)"),
        ({"seeds": [0, 0]}, "seeds: must be a number of seeds or a list of different ones"),
        ({"seeds": -1}, "seeds: must be a number of seeds"),
        ({"seeds": True}, "seeds: must be a number of seeds"),
        ({"stages": {}}, "stages: holds none"),
        ({"stages": {"tokeniser": {}}}, "'tokeniser' is no command of a sweep (did you mean tokenizer?)"),
        ({"stages": {"tokenizer": {"out": "x"}}}, "stages.tokenizer.out: is chosen by the sweep"),
        ({"stages": {"tokenizer": 3}}, "stages.tokenizer: must hold `name: value` pairs, got 3"),
        (
            {"stages": {"encode": {"data": "$tokenizer"}}, "variants": None},
            "$tokenizer is no input, and no stage before `encode`",
        ),
        (
            {"variants": {"fast": {"dynamic": {}}}},
            "variants.fast.dynamic: is not known (did you mean dynamics?)",
        ),
        ({"figures": {"Error": "evaluation/x"}}, "figures.Error: must be STAGE/PATH"),
        (
            {"figures": {"E": {"path": "evaluate/x", "share": ["slow", "no"]}}},
            "figures.E.share: must be two variants",
        ),
        ({"against": "slows"}, "against: must be `previous` or one of slow, fast, got 'slows'"),
        ({"inputs": {"seed": "x"}}, "stages.seed: cannot be a name"),
        ({"inputs": [1]}, "inputs: must hold `name: value` pairs"),
    ],
)
def test_a_wrong_file_is_one_sentence(changes: dict[str, object], sentence: str, tmp_path: Path) -> None:
    file = changed(tmp_path, **changes)
    with pytest.raises(UserError) as error:
        load_sweep(file)
    text = str(error.value)
    assert text.startswith(f"{file}: ") and sentence in text and "\n" not in text


def test_seeds_that_nothing_takes_are_refused(tmp_path: Path) -> None:
    stages = {"tokenizer": {"preset": "nano", "data": "$shards"}}
    sweep = load_sweep(changed(tmp_path, stages=stages, variants={"a": {}}, figures={}, against="a"))
    with pytest.raises(
        UserError, match=r"seeds: 2 are asked for, but no stage takes one; write `training.seed: \$seed`"
    ):
        make_plan(sweep, tmp_path)


def test_what_is_no_file_or_no_yaml(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file; give the YAML file of a sweep"):
        load_sweep(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("stages: [")
    with pytest.raises(UserError, match=r"bad.yaml: cannot be read"):
        load_sweep(tmp_path / "bad.yaml")
