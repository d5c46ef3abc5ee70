"""The command line: every command explains itself, every preset and file parses, mistakes are one line."""

import json
import re
import shutil
from dataclasses import fields, is_dataclass, replace
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml

from reverie.data.errors import UserError
from reverie.pipelines.cli import COMMANDS, main, parse
from reverie.pipelines.endings import ending
from reverie.pipelines.info import build_preset, count
from reverie.pipelines.presets import BASELINES, PRESETS
from reverie.pipelines.runs.configs import to_plain
from reverie.pipelines.stages.tokenizer import train_tokenizer
from reverie.pipelines.training.loop import FabricConfig
from tests.pipelines.small_stages import Corpus

ROOT = Path(__file__).parents[2]
PATHS = ["--data", "d", "--out", "o"]
NEEDED = {
    "record": ["--out", "o"],
    "prepare": ["--source", "s", "--out", "o"],
    "tokenizer": PATHS,
    "encode": [*PATHS, "--tokenizer", "t"],
    "dynamics": PATHS,
    "clone": [*PATHS, "--dynamics", "m"],
    "imagine": [*PATHS, "--agent", "a"],
    "baseline": [*PATHS, "--version", "v3"],
    "evaluate": [*PATHS, "--tokenizer", "t"],
    "fvd": [*PATHS, "--tokenizer", "t", "--dynamics", "m"],
    "play": [*PATHS, "--tokenizer", "t", "--dynamics", "m"],
    "demo": ["--out", "o"],
    "info": [],
    "data info": ["d"],
    "data show": ["d"],
    "data check": ["--path", "d"],
    "data download": ["--index", "i.json", "--out", "o"],
    "data export": ["d", "--out", "o"],
    "fetch-weights": [],
    "report": ["r"],
    "worlds": [],
    "pack": [*PATHS, "--tokenizer", "t", "--dynamics", "m"],
    "push": ["world:minigrid", "d"],
    "pull": ["d"],
    "sweep": ["s.yaml"],
    "improve": ["--out", "o"],
}
STAGES = ("tokenizer", "dynamics", "clone", "imagine", "baseline")
NEEDED |= {f"profile {stage}": NEEDED[stage] for stage in STAGES} | {"profile generate": []}
FILES = sorted(file for file in (ROOT / "configs").rglob("*.yaml") if file.parent.name != "sweeps")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_explains_every_field(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        parse(name, ["--help"])
    assert exited.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    text = re.sub(r"\[ITEM,\.\.\.\], --\S+\+ ", "", text)  # the second form of a flag for a list
    cls = getattr(import_module(f"reverie.pipelines.{COMMANDS[name].module}"), COMMANDS[name].config)
    for flag in _flags(cls):
        explanation = re.split(r" --|\(type:|\(required", text.split(f"--{flag} ")[-1])[0]
        assert f"--{flag} " in text and len(explanation.split()) > 2, f"--{flag} is not explained"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_parses_with_what_it_needs(name: str) -> None:
    assert parse(name, NEEDED[name]) is not None


@pytest.mark.parametrize(("preset", "stage"), [(p, s) for p, stages in PRESETS.items() for s in stages])
def test_every_preset_parses_to_its_values(preset: str, stage: str) -> None:
    config = parse(stage, [*NEEDED[stage], "--preset", preset])
    for field, value in PRESETS[preset][stage].items():
        assert getattr(config, field) == value


@pytest.mark.parametrize("preset", BASELINES)
def test_every_baseline_parses_to_its_values(preset: str) -> None:
    version = BASELINES[preset]["model"].world_model.generation
    config = parse("baseline", [*PATHS, "--version", version, "--preset", preset])
    for field, value in BASELINES[preset].items():
        assert getattr(config, field) == value


def test_the_version_alone_chooses_a_baseline() -> None:
    config = parse("baseline", [*PATHS, "--version", "v2", "--model.world_model.deter", "24"])
    atari = BASELINES["v2-atari"]["model"]
    assert config.model == replace(atari, world_model=replace(atari.world_model, deter=24))


@pytest.mark.parametrize("file", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_shipped_file_parses(file: Path) -> None:
    if file.parent.name == "baselines":
        needed = ["--out", "o"] if file.stem.endswith("-online") else PATHS
        config = parse("baseline", ["--config", str(file), *needed])
        assert config.version == file.stem.partition("-")[0]
    else:
        assert parse(file.stem, ["--config", str(file), *NEEDED[file.stem]]) is not None


@pytest.mark.parametrize("flags", [["--baseline", "a", "--baseline", "b"], ["--baseline", "[a, b]"]])
def test_baselines_are_given_one_by_one_or_as_a_list(flags: list[str]) -> None:
    assert parse("evaluate", [*PATHS, *flags]).baseline == [Path("a"), Path("b")]


@pytest.mark.parametrize(
    ("preset", "low", "high"),
    [("nano", 1e6, 6e6), ("small", 25e6, 36e6), ("base", 135e6, 165e6), ("paper", 1.9e9, 2.1e9)],
)
def test_presets_have_their_size(preset: str, low: float, high: float) -> None:
    tokenizer, agent = build_preset(PRESETS[preset])
    assert low < count(tokenizer) + count(agent) < high


def test_paper_preset_has_the_papers_shapes() -> None:
    tokenizer, agent = build_preset(PRESETS["paper"])
    assert 390e6 < count(tokenizer) < 410e6 and 1.55e9 < count(agent.dynamics) < 1.65e9
    assert tokenizer.config.num_patches == 960 and tokenizer.config.latent_shape == (256, 32)
    dynamics = PRESETS["paper"]["dynamics"]
    assert dynamics["model"].context_length == 192
    assert (dynamics["batches"].length, dynamics["batches"].long_length) == (64, 256)


def test_info_counts_the_preset_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--preset", "small"]) == 0
    tokenizer, agent = build_preset(PRESETS["small"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "small" and lines[-1].split() == ["total", f"{count(tokenizer) + count(agent):,}"]


def test_later_sources_win(tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("preset: small\nmodel:\n  width: 96\n  depth: 4\n")
    second.write_text("model:\n  depth: 8\n")
    flags = ["--config", str(first), "--config", str(second), "--batches.length=7"]
    config = parse("dynamics", [*PATHS, *flags])
    assert (config.model.width, config.model.depth, config.batches.length) == (96, 8, 7)
    assert config.model.num_heads == 6, "from the preset"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["dynamics", *PATHS, "--preset", "huge"], "choose one of nano, small, base, paper"),
        (["info", "--preset", "huge"], "choose one of nano, small, base, paper"),
        (["dynamics", *PATHS, "--model.widht", "96"], "model.widht"),
        (["dynamics", *PATHS, "--model.depth", "deep"], "model.depth"),
        (["dynamics", *PATHS, "--model.max_sampling_steps", "3"], "power of two"),
        (["dynamics", "--out", "o"], "data"),
        (["dynamics", *PATHS, "--config", "missing.yaml"], "missing.yaml"),
        (["dynamics", *PATHS, "--training.step", "5"], "did you mean --training.steps"),
        (["dynamics", *PATHS, "--trainin.steps", "5"], "did you mean --training.steps"),
        (["record", "--out", "o", "--wrkers=2"], "did you mean --workers"),
        (["dynamics", *PATHS, "--training.steps", "1.5"], "--training.steps: must be a whole number"),
        (["dynamics", *PATHS, "--training.steps", "inf"], "--training.steps: must be a whole number"),
        (["dynamics", *PATHS, "--optimizer.lr", "3e"], "--optimizer.lr: must be a number"),
        (
            ["dynamics", *PATHS, "--fabric.strategy", "dpp"],
            "--fabric.strategy: must be one of auto, ddp, fsdp",
        ),
        (
            ["prepare", *NEEDED["prepare"], "--size", "72"],
            "--size: must be two numbers such as 72x128, got 72",
        ),
        (["prepare", *NEEDED["prepare"], "--size", "72xwide"], "--size: must be two numbers such as 72x128"),
        (["record", "--out", "o", "--players", "human"], "--players: must be names with values"),
        (["dynamics", *PATHS, "--config", "."], "is not valid YAML"),
        (["dynamcs"], "did you mean dynamics?"),
        (["data", "exprot"], "did you mean export?"),
        (["dynamcs"], "unknown command 'dynamcs'"),
        (["--verison"], "did you mean --version?"),
        (["xyz"], "use one of record, prepare,"),
        (["dynamics", *PATHS, "--preset", "nanno"], "did you mean nano"),
        (["dynamics", *PATHS, "--training", "5"], "--training: is a group of settings"),
        (["dynamics", *PATHS, "--training.steps"], "--training.steps: needs a value, a whole number"),
        (["dynamics", *PATHS, "nano"], "nano: belongs to no flag"),
        (["dynamics", *PATHS, "--config", "missing.yaml"], "missing.yaml: no such file"),
        (["dynamics", "--out", "o"], "--data: missing, and needed"),
        (
            ["evaluate", *PATHS, "--tokenizer", "t", "--greedy", "yes"],
            "--greedy: must be true or false, got yes",
        ),
        (["data"], "data: needs one of info, show, check, download, export"),
        (["data", "inof"], "data: unknown 'inof'; use one of info, show, check, download, export"),
        (["data", "check"], "path"),
    ],
)
def test_usage_mistakes_are_one_line(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert sentence in _only_line(capsys)


@pytest.mark.parametrize("stage", ["tokenizer", "encode", "dynamics", "clone", "imagine"])
def test_missing_folders_are_one_line(
    stage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([stage, *NEEDED[stage]]) == 1
    assert "d: no such folder" in _only_line(capsys)
    assert not list(tmp_path.iterdir()), "nothing is left behind"


@pytest.mark.parametrize(
    ("flags", "field", "value"),
    [
        (["--size", "72x128"], "size", (72, 128)),
        (["--size=72x128"], "size", (72, 128)),
        (["--size", "72", "128"], "size", (72, 128)),
        (["--size", "72,128"], "size", (72, 128)),
        (["--size", "[72, 128]"], "size", (72, 128)),
        (["--size", "null"], "size", None),
        (["--clip_length", "1e3"], "clip_length", 1000),
        (["--clip_length", "64.0"], "clip_length", 64),
        (["--seed", "1_000"], "seed", 1000),
        (["--shard_mb", "1e3"], "shard_mb", 1000.0),
    ],
)
def test_values_are_taken_as_people_write_them(flags: list[str], field: str, value: object) -> None:
    assert getattr(parse("prepare", [*NEEDED["prepare"], *flags]), field) == value


def test_lists_of_any_length_are_no_pairs() -> None:
    config = parse("data download", [*NEEDED["data download"], "--members", "[mp4]"])
    assert config.members == ("mp4",)
    with pytest.raises(UserError, match=r'--members: must be a list such as "\[a, b\]", got video'):
        parse("data download", [*NEEDED["data download"], "--members", "video"])


def test_a_wrong_number_in_a_file_is_named_too(tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text("training:\n  steps: many\n")
    with pytest.raises(
        UserError, match="training.steps: must be a whole number such as 1000, got many"
    ) as raised:
        parse("dynamics", [*PATHS, "--config", str(file)])
    assert str(raised.value).startswith(f"{file}: ")


def test_a_device_that_is_not_there_is_one_sentence(corpus: Corpus, tmp_path: Path) -> None:
    for flags in ({"accelerator": "cuda"}, {"accelerator": "abacus"}, {"accelerator": "cuda", "devices": 4}):
        config = corpus.config("tokenizer", tmp_path / "run")
        config = replace(config, fabric=FabricConfig(**flags))
        with pytest.raises(UserError, match="--fabric.accelerator .*: cannot be had here") as raised:
            train_tokenizer(config)
        assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_a_finished_stage_says_where_it_is_and_what_comes_next(
    corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tmp_path / "settings.yaml"
    run = corpus.finished("tokenizer")
    settings.write_text(yaml.safe_dump(to_plain(corpus.config("tokenizer", run))))
    assert main(["tokenizer", "--config", str(settings)]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[-2:] == [
        f"tokenizer: {run} holds step 12",
        f"next: reverie encode --data {corpus.shards} --tokenizer {run} --out ...",
    ]


def test_after_plain_video_no_agent_is_suggested(corpus: Corpus, tmp_path: Path) -> None:
    run = Path(shutil.copytree(corpus.finished("dynamics"), tmp_path / "run"))
    config = corpus.config("dynamics", run)
    assert list(ending("dynamics", config))[1].startswith("next: reverie clone ")
    for card in run.glob("checkpoints/0*/config.json"):
        card.write_text(json.dumps(json.loads(card.read_text()) | {"action_space": {}}))
        sums = card.with_name("checksums.json")
        digest = {card.name: sha256(card.read_bytes()).hexdigest()}
        sums.write_text(json.dumps(json.loads(sums.read_text()) | digest))
    assert list(ending("dynamics", config))[1].startswith("next: reverie evaluate ")


@pytest.mark.parametrize(
    ("arguments", "found", "wanted"),
    [
        (["clone", "--dynamics", "{tokenizer}"], "a tokenizer", "a dynamics model"),
        (["encode", "--tokenizer", "{dynamics}"], "a dynamics model", "a tokenizer"),
        (["imagine", "--agent", "{dynamics}"], "a dynamics model", "an agent"),
        (
            ["evaluate", "--tokenizer", "{tokenizer}", "--dynamics", "{tokenizer}"],
            "a tokenizer",
            "a dynamics model",
        ),
        (["evaluate", "--tokenizer", "{tokenizer}", "--agent", "{dynamics}"], "a dynamics model", "an agent"),
        (
            ["evaluate", "--tokenizer", "{tokenizer}", "--baseline", "{dynamics}"],
            "a dynamics model",
            "a baseline",
        ),
        (
            ["play", "--tokenizer", "{dynamics}", "--dynamics", "{dynamics}"],
            "a dynamics model",
            "a tokenizer",
        ),
    ],
)
def test_a_run_of_another_kind_is_named(
    arguments: list[str],
    found: str,
    wanted: str,
    corpus: Corpus,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs = {name: corpus.finished(name) for name in ("tokenizer", "dynamics")}
    data = corpus.finished("encode") if arguments[0] in ("clone", "imagine") else corpus.shards
    given = [part.format(**runs) for part in arguments]
    assert main([*given, "--data", str(data), "--out", str(tmp_path / "out")]) == 1
    assert f"holds {found}, expected {wanted}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("model:\n  widht: 96\n", "model.widht: there is no such setting; did you mean model.width;"),
        ("modle:\n  width: 96\n", "modle: there is no such setting; did you mean model;"),
        ("batches:\n  bogus: 9\n", "batches.bogus: there is no such setting;"),
        ("model: 96\n", "model: is a group of settings; set them one by one, such as model.latent_shape"),
        ("model.widht: 96\n", "model.widht: there is no such setting; did you mean model.width;"),
        ("- 96\n", "must hold settings, one `name: value` a line"),
        ("{", "is not valid YAML"),
    ],
)
def test_mistakes_in_files_are_named_with_the_file(content: str, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "typo.yaml"
    file.write_text(content)
    with pytest.raises(UserError) as raised:
        parse("dynamics", [*PATHS, "--config", str(file)])
    assert str(raised.value).startswith(f"{file}: ") and sentence in str(raised.value)


def test_files_are_written_as_people_write_flags(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("size: 72x128\nclip_length: 1e3\nfps: 1e1\nshard_mb: 1_000\n")
    config = parse("prepare", [*NEEDED["prepare"], "--config", str(file)])
    assert (config.size, config.clip_length, config.fps, config.shard_mb) == ((72, 128), 1000, 10.0, 1000.0)


def test_one_dash_is_as_good_as_two() -> None:
    assert parse("dynamics", [*PATHS, "-training.steps", "3"]).training.steps == 3


def _flags(cls: Any, prefix: str = "") -> list[str]:
    """Flags of all fields that hold values; groups are explained by their parts."""
    hints, found = get_type_hints(cls), []
    for field in fields(cls):
        nested = is_dataclass(hints[field.name])
        found += _flags(hints[field.name], f"{prefix}{field.name}.") if nested else [f"{prefix}{field.name}"]
    return found


def _only_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1 and not captured.out, captured
    return lines[0]
