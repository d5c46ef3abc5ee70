"""Push and pull: to and from folders, and a local server that speaks the hub's protocol; nothing unasked-for arrives."""

import builtins
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reverie.data.files.durable import file_sha256
from reverie.pipelines.cli import main
from reverie.pipelines.worlds.manifest import MANIFEST
from reverie.pipelines.worlds.places import SHIPPED
from reverie.pipelines.worlds.world import load_world
from tests.pipelines.worlds.hub_server import HubServer

MINIGRID = SHIPPED / "minigrid"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    pytest.importorskip("huggingface_hub")
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
        monkeypatch.setenv("REVERIE_CACHE", str(tmp_path / "cache"))
        yield server


def _files(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): file_sha256(p) for p in folder.rglob("*") if p.is_file()}


def _renamed(hub: HubServer, name: str = "mine") -> dict[str, bytes]:
    """The shipped world on the hub, under another name."""
    files = {n: (MINIGRID / n).read_bytes() for n in _files(MINIGRID)}
    files[MANIFEST] = json.dumps(json.loads(files[MANIFEST]) | {"name": name}).encode()
    hub.repositories["me/world"] = files
    return files


def test_a_world_goes_to_a_folder_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", "world:minigrid", str(tmp_path / "sent")]) == 0
    assert main(["pull", str(tmp_path / "sent"), "--out", str(tmp_path / "back")]) == 0
    assert _files(tmp_path / "sent") == _files(MINIGRID) == _files(tmp_path / "back")
    assert "reverie play --world" in capsys.readouterr().out


def test_a_world_goes_to_the_hub_and_back(hub: HubServer, tmp_path: Path) -> None:
    assert main(["push", "world:minigrid", "hf://me/world", "--private"]) == 0
    assert hub.private == {"me/world": True}
    assert set(hub.repositories["me/world"]) == set(_files(MINIGRID))
    assert main(["pull", "hf://me/world", "--out", str(tmp_path / "back")]) == 0
    assert _files(tmp_path / "back") == _files(MINIGRID)


def test_a_pulled_world_is_found_by_its_name(hub: HubServer) -> None:
    _renamed(hub)
    assert main(["pull", "hf://me/world"]) == 0
    assert load_world("world:mine", device="cpu").name == "mine"


def test_what_the_manifest_does_not_name_is_left_behind(hub: HubServer, tmp_path: Path) -> None:
    files = _renamed(hub)
    files["evil.pkl"] = pickle.dumps(print)
    files["model.py"] = b"print('run')"
    assert main(["pull", "hf://me/world", "--out", str(tmp_path / "back")]) == 0
    assert set(_files(tmp_path / "back")) == set(_files(MINIGRID))
    assert not [path for _, path in hub.asked if "evil" in path or "model.py" in path]


@pytest.mark.parametrize(
    "name", ["../../escaped.json", "/tmp/escaped.json", "model.pkl", "a/b/c.json", "run.py"]
)
def test_a_manifest_that_names_such_files_is_refused_before_they_are_fetched(
    hub: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    files = _renamed(hub)
    content = json.loads(files[MANIFEST])
    content["files"][name] = {"bytes": 1, "sha256": "0" * 64}
    files[MANIFEST] = json.dumps(content).encode()
    assert main(["pull", "hf://me/world", "--out", str(tmp_path / "back")]) == 1
    assert "no file that a world may hold" in capsys.readouterr().err
    assert not [path for _, path in hub.asked if MANIFEST not in path and "resolve" in path]
    assert not (tmp_path / "back").exists()


def _longer(content: bytes) -> bytes:
    return content + b"x"


def _changed(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize(("damage", "told"), [(_longer, "expected"), (_changed, "checksum")])
def test_other_bytes_than_the_manifests_are_refused(
    hub: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Any, told: str
) -> None:
    files = _renamed(hub)
    files["dynamics/model.safetensors"] = damage(files["dynamics/model.safetensors"])
    assert main(["pull", "hf://me/world", "--out", str(tmp_path / "back")]) == 1
    assert told in capsys.readouterr().err
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("hf://me/nothing", "404|NotFound"),
        ("hf://me", "OWNER/NAME"),
        ("hf://me/../world", "OWNER/NAME"),
        ("s3://me/world", "hf://OWNER/NAME"),
        ("nowhere", "world.json"),
    ],
)
def test_places_without_a_world_are_a_sentence(
    hub: HubServer, capsys: pytest.CaptureFixture[str], source: str, told: str
) -> None:
    import re

    assert main(["pull", source]) == 1
    error = capsys.readouterr().err
    assert re.search(told, error) and "Traceback" not in error and error.count("\n") == 1


def test_nothing_but_a_world_is_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    assert main(["push", "world:minigrid", str(tmp_path)]) == 1
    assert "is no world" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_damaged_world_is_not_sent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", "world:minigrid", str(tmp_path / "sent")]) == 0
    (tmp_path / "sent/README.md").write_text("other")
    assert main(["push", str(tmp_path / "sent"), str(tmp_path / "on")]) == 1
    assert "README.md" in capsys.readouterr().err and not (tmp_path / "on").exists()


def test_without_the_hubs_library_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "huggingface_hub":
            raise ImportError
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    assert main(["pull", "hf://me/world"]) == 1
    assert 'pip install "reverie[hub]"' in capsys.readouterr().err
