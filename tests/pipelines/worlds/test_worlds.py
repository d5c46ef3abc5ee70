"""Worlds as folders: packed from runs, checked byte by byte, taken wherever a run of a stage is."""

import json
import shutil
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reverie.data.errors import UserError
from reverie.data.shards.index import ShardIndex
from reverie.pipelines.cli import main, parse
from reverie.pipelines.training.checkpoints import load_agent, load_dynamics, load_tokenizer, weights_sha256
from reverie.pipelines.worlds.manifest import MANIFEST, read_manifest, require_file_name
from reverie.pipelines.worlds.packing import PackConfig, pack
from reverie.pipelines.worlds.places import SHIPPED, known_worlds
from reverie.pipelines.worlds.world import load_world
from tests.evaluation.conftest import save_agent, save_dynamics, save_tokenizer


@pytest.fixture(scope="module")
def runs(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, index = tmp_path_factory.mktemp("runs"), ShardIndex.load(prepared)
    save_tokenizer(folder / "tokenizer", index.frame_size)
    save_dynamics(folder / "dynamics", index, folder / "tokenizer")
    save_agent(folder / "imagine", index, folder / "tokenizer", seed=3)
    return folder


@pytest.fixture(scope="module")
def packed(runs: Path, prepared: Path) -> Path:
    out = runs / "packed"
    pack(
        PackConfig(
            data=prepared,
            tokenizer=runs / "tokenizer",
            agent=runs / "imagine",
            out=out,
            name="small",
            contexts=3,
            context=10,
        )
    )
    return out


@pytest.fixture
def copy(packed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(packed, tmp_path / "copy"))


@pytest.mark.parametrize(
    ("part", "load", "run"),
    [("tokenizer", load_tokenizer, "tokenizer"), ("agent", load_agent, "imagine")],
)
def test_weights_are_those_of_the_runs_to_16_bits(
    packed: Path, runs: Path, part: str, load: Any, run: str
) -> None:
    found, before = load(packed / part).state_dict(), load(runs / run).state_dict()
    assert found.keys() == before.keys()
    for name, x in before.items():
        assert torch.equal(found[name], x.half().float() if x.is_floating_point() else x), name


def test_the_world_model_is_the_agents_own(packed: Path) -> None:
    own = load_agent(packed / "agent").dynamics.state_dict()
    assert all(
        torch.equal(own[name], x) for name, x in load_dynamics(packed / "dynamics").state_dict().items()
    )


def test_a_world_without_an_agent_has_the_weights_of_the_dynamics_run(runs: Path, prepared: Path) -> None:
    out = runs / "video"
    pack(PackConfig(data=prepared, tokenizer=runs / "tokenizer", dynamics=runs / "dynamics", out=out))
    world = load_world(out)
    with pytest.raises(UserError, match="holds no agent"):
        _ = world.agent
    before = load_dynamics(runs / "dynamics").state_dict()
    assert world.dynamics is not None
    assert all(torch.equal(x, before[n].half().float()) for n, x in world.dynamics.state_dict().items())


def test_starts_are_held_out_frames_with_what_led_to_them(packed: Path, prepared: Path) -> None:
    from reverie.data.shards.reader import ShardReader

    index = ShardIndex.load(prepared)
    reader = ShardReader(index)
    samples = {(s.episode, s.start): s for s in index.samples("validation")}
    world = load_world(packed)
    assert len(world.starts) == 3
    for start in world.starts:
        episode, _, first = start.place.rpartition(", frame ")
        clip, offset = next(
            (s, int(first) - s.start)
            for (name, _), s in samples.items()
            if name == episode and s.start <= int(first) < s.start + s.n
        )
        stop = min(offset + len(start.frames), clip.n)
        assert np.array_equal(start.frames[: stop - offset], reader.frames(clip, offset, stop))
        led, known = reader.steps(clip).actions_into(offset, stop)
        assert np.array_equal(start.known[: stop - offset], known)
        assert all(np.array_equal(start.actions[name][: stop - offset], x) for name, x in led.items())


def test_packing_twice_gives_the_same_bytes(packed: Path, runs: Path, prepared: Path, tmp_path: Path) -> None:
    again = PackConfig(
        data=prepared,
        tokenizer=runs / "tokenizer",
        agent=runs / "imagine",
        out=tmp_path / "again",
        name="small",
        contexts=3,
        context=10,
    )
    assert (
        pack(again).files["dynamics/model.safetensors"]
        == read_manifest(packed).files["dynamics/model.safetensors"]
    )


def test_runs_of_different_tokenizers_are_refused(runs: Path, prepared: Path, tmp_path: Path) -> None:
    save_tokenizer(tmp_path / "other", ShardIndex.load(prepared).frame_size, seed=9)
    config = PackConfig(
        data=prepared, tokenizer=tmp_path / "other", agent=runs / "imagine", out=tmp_path / "w"
    )
    with pytest.raises(UserError, match="another tokenizer"):
        pack(config)
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("name", ["tokenizer/model.safetensors", "contexts.npz", "README.md"])
def test_a_damaged_file_is_named(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}.*damaged"):
        load_world(copy)


def test_a_file_that_leads_elsewhere_is_refused(copy: Path) -> None:
    real = copy.with_name("elsewhere.md")
    (copy / "README.md").rename(real)
    (copy / "README.md").symlink_to(real)
    with pytest.raises(UserError, match="no regular file"):
        load_world(copy)


@pytest.mark.parametrize(
    "name",
    [
        "../x.json",
        "/etc/x.json",
        "a/../x.json",
        "a/b/c.json",
        ".x.json",
        "a/.json",
        "x.pt",
        "x.pkl",
        "x.py",
        "a\\x.json",
        "x.json\n",
        "",
        "C:/x.json",
        "x.json/",
        MANIFEST,
        "x.bin",
        "contexts.npz.exe",
    ],
)
def test_path_tricks_and_other_kinds_of_file_are_refused(copy: Path, name: str) -> None:
    with pytest.raises(ValueError, match="no file that a world may hold"):
        require_file_name(name)
    content = json.loads((copy / MANIFEST).read_text())
    content["files"][name] = {"bytes": 1, "sha256": "0" * 64}
    (copy / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(UserError, match=MANIFEST):
        load_world(copy)


@pytest.mark.parametrize(
    ("field", "value"),
    [("format", 2), ("name", "../x"), ("fps", 0), ("files", []), ("frame_size", [1]), ("unknown", 1)],
)
def test_a_manifest_that_is_none_is_refused(copy: Path, field: str, value: Any) -> None:
    content = json.loads((copy / MANIFEST).read_text()) | {field: value}
    (copy / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(UserError, match=MANIFEST):
        load_world(copy)


def test_pickled_starts_are_refused(copy: Path) -> None:
    from reverie.pipelines.worlds.starts import load_starts

    np.savez(copy / "contexts.npz", frames=np.array([{}], dtype=object), known=np.zeros((1, 1)))
    with pytest.raises(UserError, match="contexts.npz"):
        load_starts(copy / "contexts.npz", load_world(SHIPPED / "minigrid").action_space, (40, 40))


PLACES = {
    "encode": "--data d --tokenizer W --out o",
    "dynamics": "--data d --tokenizer W --out o",
    "clone": "--data d --dynamics W --out o",
    "imagine": "--data d --agent W --out o",
    "evaluate": "--data d --tokenizer W --dynamics W --cloned W --agent W --out o",
    "fvd": "--data d --tokenizer W --dynamics W --policy W --out o",
    "play": "--data d --tokenizer W --dynamics W --out o",
    "profile generate": "--tokenizer W --dynamics W",
    "record": '--env e --players {"agent":1} --agent W --tokenizer W --out o',
    "pack": "--data d --tokenizer W --agent W --out o",
}


@pytest.mark.parametrize("given", ["world:minigrid", str(SHIPPED / "minigrid")])
@pytest.mark.parametrize("command", PLACES)
def test_every_place_that_takes_a_run_takes_a_world(command: str, given: str) -> None:
    arguments = PLACES[command].replace("W", given).split()
    config = parse(command, arguments)
    parts = {"cloned": "agent", "policy": "agent"}
    named = [flag[2:] for flag, value in zip(arguments, arguments[1:]) if value == given]
    for field in named:
        assert getattr(config, field) == SHIPPED / "minigrid" / parts.get(field, field)


def test_no_field_for_runs_is_forgotten() -> None:
    """Any field of a command that says it takes a run folder of these stages resolves worlds."""
    from importlib import import_module

    from reverie.pipelines.cli import COMMANDS

    missing = []
    for name, command in COMMANDS.items():
        cls = getattr(import_module(f"reverie.pipelines.{command.module}"), command.config)
        assert is_dataclass(cls)
        for field in fields(cls):
            if field.name in ("tokenizer", "dynamics", "agent", "cloned", "policy") and "Path" in str(
                field.type
            ):
                missing += [] if name in PLACES or name.startswith("profile") else [f"{name}.{field.name}"]
    assert not missing


def test_an_unknown_world_is_told_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["encode", "--data", "d", "--tokenizer", "world:mars", "--out", "o"]) != 0
    assert "world:minigrid" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(known_worlds()))
def test_shipped_worlds_are_whole_small_and_tell_no_places(name: str) -> None:
    folder = SHIPPED / name
    manifest = read_manifest(folder)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert manifest.name == name
    assert {path.relative_to(folder).as_posix() for path in files} == {*manifest.files, MANIFEST}
    assert sum(path.stat().st_size for path in files) <= 5e6
    text = "".join(path.read_text() for path in files if path.suffix in (".md", ".json", ".yaml"))
    assert not [word for word in ("/tmp/", "/work/", "/home/", "/root/") if word in text]


def test_worlds_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["worlds"]) == 0
    assert "minigrid" in capsys.readouterr().out
    assert main(["worlds", "--path", "world:minigrid"]) == 0
    assert "## Scores" in capsys.readouterr().out


def test_the_card_leaves_out_scores_of_other_weights(runs: Path, prepared: Path, tmp_path: Path) -> None:
    score = {"value": 20.0, "low": 19.0, "high": 21.0, "n": 3}
    report = {
        "reconstruction": {"scores": {"psnr": score}},
        "rollouts": {
            "horizon": 4,
            "context": 2,
            "windows": 3,
            "averages": {"psnr": 18.0},
            "advantage": {"copy": {"average": score}},
        },
        "provenance": {
            "tokenizer_sha256": weights_sha256(runs / "tokenizer"),
            "dynamics_sha256": weights_sha256(runs / "dynamics"),
        },
    }
    (tmp_path / "report.json").write_text(json.dumps(report))
    with_agent = {"agent": runs / "imagine"}, "over copying", False
    without = {"dynamics": runs / "dynamics"}, "over copying", True
    for part, words, there in (with_agent, without):
        out = tmp_path / "scored"
        pack(PackConfig(data=prepared, tokenizer=runs / "tokenizer", out=out, evaluation=tmp_path, **part))
        card = (out / "README.md").read_text()
        assert "| tokenizer, dB | 20.00 [19.00, 21.00] |" in card
        assert (words in card) == there
