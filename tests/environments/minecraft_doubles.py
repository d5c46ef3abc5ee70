"""Puts the doubles of MineRL and MineStudio (folder `doubles`, clearly not the games) where Python looks for the games."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

FOLDER = Path(__file__).with_name("doubles")
GAMES = ("minecraft-minerl", "minecraft-minestudio")


@pytest.fixture
def doubles(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that holds them, on the path of this process and of those it starts."""
    monkeypatch.syspath_prepend(FOLDER)
    yield FOLDER
    for name in [
        n for n in sys.modules if n.partition(".")[0] in ("minerl", "minestudio", "minecraft_double")
    ]:
        del sys.modules[name]
