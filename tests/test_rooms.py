"""The order of the house: each room imports only what its place allows (docs/architecture.md)."""

import ast
import shutil
from pathlib import Path

import pytest

from tests.rooms import DOORS, ROOMS, TOP, rooms, wrong_imports

ROOT = Path(__file__).parents[1]


def test_every_import_follows_the_order_of_the_rooms() -> None:
    assert wrong_imports(ROOT) == []


def test_every_folder_is_a_room_with_a_place_in_the_order() -> None:
    assert set(rooms(ROOT)) == {*ROOMS, "pipelines"}


def test_the_order_has_no_cycle() -> None:
    """A room may import only rooms named before it, so rooms cannot come to need each other."""
    order = [*ROOMS, "pipelines"]
    for room, allowed in ROOMS.items():
        later = [other for other in allowed if order.index(other) >= order.index(room)]
        assert not later, f"{room} may import {later}, which come after it"


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_says_what_it_is_for_imports_and_does_not_know(room: str) -> None:
    tree = ast.parse((ROOT / room.replace(".", "/") / "__init__.py").read_text())
    text = ast.get_docstring(tree) or ""
    assert "mport" in text and ("nows no" in text or "Changes no" in text), text


def test_doors_exist() -> None:
    for module in DOORS:
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__init__.py").is_file(), module


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("data/video/resize.py", "from reverie.data.shards.index import ShardIndex"),
        ("data/shards/steps.py", "import reverie.data.loading.loader"),
        ("data/sources/logs.py", "from reverie.data.sources.vpt import minecraft"),
        ("nn/heads.py", "def late():\n    from reverie.tokenizer.model import Tokenizer"),
        ("rssm/scan.py", "from reverie.dynamics import model"),
        ("environments/game.py", "from reverie.agent.player import Player"),
        ("pipelines/runs/stops.py", "from reverie.pipelines.training.loop import fit"),
        ("evaluation/metrics.py", "from reverie.pipelines import presets"),
        ("data/files/remote.py", "from ..shards import index"),
    ],
)
def test_a_wrong_import_is_found(module: str, line: str, tmp_path: Path) -> None:
    for top in TOP:
        shutil.copytree(ROOT / top, tmp_path / top, ignore=shutil.ignore_patterns("__pycache__"))
    assert wrong_imports(tmp_path) == []
    file = tmp_path / module
    file.write_text(f"{file.read_text()}\n{line}\n")
    assert {found.split(",")[0] for found in wrong_imports(tmp_path)} == {module[:-3].replace("/", ".")}
