"""Run folders remember what they are and refuse to become something else."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from reverie.data.errors import UserError
from reverie.pipelines.runs.configs import differences, to_plain
from reverie.pipelines.runs.reading import from_plain
from reverie.pipelines.runs.run import keep_softcap, open_run
from reverie.pipelines.training.metrics import read_metrics
from reverie.pipelines.training.session import TrainingConfig
from reverie.tokenizer.model import TokenizerConfig

INPUTS = {"data": "a" * 64, "tokenizer": "b" * 64}


@dataclass(frozen=True, kw_only=True)
class Stage:
    out: Path
    model: TokenizerConfig = field(default_factory=TokenizerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)


def opened(path: Path, *, inputs: dict[str, str] = INPUTS, width: int = 128, steps: int = 10) -> None:
    config = Stage(out=path, model=TokenizerConfig(width=width), training=TrainingConfig(steps=steps, seed=3))
    open_run(path, kind="dynamics", config=config, model=to_plain(config.model), inputs=inputs)


def test_a_run_folder_says_where_it_comes_from(tmp_path: Path) -> None:
    opened(tmp_path / "run")
    provenance = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert provenance["identity"]["inputs"] == INPUTS and provenance["seed"] == 3
    launch = provenance["launches"][0]
    assert "torch" in launch["versions"] and launch["command"] and launch["time"]
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert from_plain(Stage, config, tmp_path, "-") == Stage(
        out=tmp_path / "run", model=TokenizerConfig(), training=TrainingConfig(steps=10, seed=3)
    )


def test_the_same_run_continues_and_may_grow(tmp_path: Path) -> None:
    opened(tmp_path)
    opened(tmp_path, steps=20)
    assert len(json.loads((tmp_path / "provenance.json").read_text())["launches"]) == 2
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["training"]["steps"] == 20


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ({"inputs": INPUTS | {"data": "c" * 64}}, "inputs.data: aaaaaaaaaaaa -> cccccccccccc"),
        ({"inputs": INPUTS | {"tokenizer": "c" * 64}}, "inputs.tokenizer: bbbbbbbbbbbb -> cccccccccccc"),
        ({"width": 64}, "model.width: 128 -> 64"),
    ],
)
def test_another_run_is_refused_with_the_difference(changed: dict, difference: str, tmp_path: Path) -> None:
    opened(tmp_path)
    before = (tmp_path / "config.yaml").read_text()
    with pytest.raises(UserError, match=difference) as raised:
        opened(tmp_path, **changed)
    assert str(tmp_path) in str(raised.value) and "\n" not in str(raised.value)
    assert (tmp_path / "config.yaml").read_text() == before


def test_another_machine_may_compute_the_run_otherwise(tmp_path: Path) -> None:
    """The attention backend is no part of what a run is, be it in the model or in the model of an agent."""
    for backend in ("auto", "math"):
        model = {"model": to_plain(TokenizerConfig(backend=backend)), "dynamics": {"backend": backend}}
        open_run(tmp_path, kind="tokenizer", config=Stage(out=tmp_path), model=model, inputs=INPUTS)
    assert len(json.loads((tmp_path / "provenance.json").read_text())["launches"]) == 2


@pytest.mark.parametrize(
    ("began", "asked", "kept"), [(50.0, None, 50.0), (50.0, 50.0, 50.0), (None, None, None)]
)
def test_a_run_keeps_its_soft_cap_when_the_default_goes(
    began: float | None,
    asked: float | None,
    kept: float | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    def go_on(softcap: float | None) -> None:
        model = keep_softcap(tmp_path, TokenizerConfig(softcap=softcap))
        assert model == TokenizerConfig(softcap=kept)
        card = {"kind": "tokenizer", "model": to_plain(model)}
        open_run(
            tmp_path, kind="tokenizer", config=Stage(out=tmp_path, model=model), model=card, inputs=INPUTS
        )

    go_on(began)
    go_on(asked)
    told = capsys.readouterr().out
    assert ("goes on with its soft cap of 50" in told) == (began != asked)


def test_what_cannot_go_on_with_the_soft_cap_of_the_run_is_refused(tmp_path: Path) -> None:
    card = {"model": to_plain(TokenizerConfig(softcap=50.0))}
    open_run(tmp_path, kind="tokenizer", config=Stage(out=tmp_path), model=card, inputs=INPUTS)
    with pytest.raises(
        UserError, match="began with a soft cap of 50 .*backend sdpa has no soft cap"
    ) as refused:
        keep_softcap(tmp_path, TokenizerConfig(softcap=None, backend="sdpa"))
    assert str(tmp_path) in str(refused.value) and "\n" not in str(refused.value)


def test_a_soft_cap_that_was_never_the_default_is_refused_as_another_model(tmp_path: Path) -> None:
    card = {"model": to_plain(TokenizerConfig(softcap=30.0))}
    open_run(tmp_path, kind="tokenizer", config=Stage(out=tmp_path), model=card, inputs=INPUTS)
    model = keep_softcap(tmp_path, TokenizerConfig(softcap=None))
    with pytest.raises(UserError, match="softcap: 30.0 -> None"):
        card = {"model": to_plain(model)}
        open_run(tmp_path, kind="tokenizer", config=Stage(out=tmp_path), model=card, inputs=INPUTS)


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="not a run folder"):
        opened(tmp_path)


def test_dying_while_it_is_made_does_not_lead_to_a_refusal(tmp_path: Path) -> None:
    (tmp_path / ".partial-provenance.json").write_text('{"identity"')
    opened(tmp_path)
    (tmp_path / "config.yaml").unlink()
    opened(tmp_path)
    assert (tmp_path / "config.yaml").is_file()


def test_differences_name_missing_fields() -> None:
    assert differences({"a": {"x": 1, "y": None}}, {"a": {"x": 1, "z": 2}}) == [
        "a.y: None -> absent",
        "a.z: absent -> 2",
    ]


@pytest.mark.parametrize("name", ["provenance.json", "metrics.jsonl"])
def test_a_file_without_end_is_refused_before_it_is_read(name: str, tmp_path: Path) -> None:
    """A sparse file of a terabyte costs no disk, and would take all memory."""
    opened(tmp_path)
    (tmp_path / name).touch()
    os.truncate(tmp_path / name, 1 << 40)
    with pytest.raises(
        UserError, match=rf"{name}: cannot be read \(it has 1,099,511,627,776 bytes, more than"
    ):
        opened(tmp_path) if name == "provenance.json" else read_metrics(tmp_path / name)
