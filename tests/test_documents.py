"""Documents: lines that fit a window, a README of a page, commands and flags that exist, a site that holds every page."""

import re
import shlex
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import yaml
from gymnasium.utils.env_checker import check_env

from reverie.pipelines.cli import COMMANDS, parse
from reverie.pipelines.flags import settings_of

ROOT = Path(__file__).parents[1]
PAGES = sorted(ROOT.glob("docs/**/*.md"))
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *PAGES]


def test_no_line_is_longer_than_120_characters() -> None:
    long = [
        f"{document.relative_to(ROOT)}:{number}"
        for document in DOCUMENTS
        for number, line in enumerate(document.read_text().splitlines(), 1)
        if len(line) > 120
    ]
    assert not long


def test_the_readme_is_a_page_with_a_moving_picture() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    (picture,) = re.findall(r"!\[.*\]\((.*)\)", text)
    assert (ROOT / picture).stat().st_size < 2e6
    assert len(re.findall(r"^\|(?:---\|)+$", text, re.MULTILINE)) == 2, (
        "one of results, one of where to read on"
    )


def test_the_site_holds_every_page() -> None:
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    assert sorted(leaves(settings["nav"])) == sorted(str(page.relative_to(ROOT / "docs")) for page in PAGES)
    assert (
        settings["validation"]["links"]["not_found"] == settings["validation"]["links"]["anchors"] == "warn"
    )
    assert (
        "mkdocs build --strict" in (ROOT / "Makefile").read_text()
        and "make docs" in (ROOT / ".ci/run").read_text()
    )


def test_the_site_takes_nothing_from_elsewhere() -> None:
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    assert settings["theme"]["font"] is False and "extra_javascript" not in settings


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_line_parses(document: Path) -> None:
    for line in command_lines(document.read_text()):
        words = shlex.split(line, comments=True)[1:]
        name = next((name for name in COMMANDS if words[: len(name.split())] == name.split()), None)
        assert name is not None, line
        assert parse(name, words[len(name.split()) :]) is not None, line


def test_command_lines_are_found() -> None:
    assert sum(len(command_lines(document.read_text())) for document in DOCUMENTS) > 60
    assert command_lines("```bash\nreverie info \\\n  --preset nano\nreverie play ...\n```") == [
        "reverie info    --preset nano"
    ]


def test_every_flag_of_the_faq_exists() -> None:
    known = {name for command in COMMANDS for name in settings(command)}
    flags = set(re.findall(r"`--([a-z_.]+)", (ROOT / "docs/faq.md").read_text())) - {
        "config",
        "preset",
        "help",
    }
    assert len(flags) > 8
    assert not flags - known


def test_the_game_of_the_page_is_a_game(monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/own-game.md").read_text(), re.DOTALL)
    names: dict[str, Any] = {"__name__": "my_game"}
    exec(code, names)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make("Field-v0", render_mode="rgb_array").unwrapped)


def command_lines(text: str) -> list[str]:
    """Our commands in fenced blocks, those with something left out excepted."""
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    joined = [re.sub(r'"[^"]*"', lambda found: found[0].replace("\n", " "), block) for block in blocks]
    lines = [line.strip() for block in joined for line in block.replace("\\\n", " ").splitlines()]
    whole = [line for line in lines if line.startswith("reverie ") and "..." not in line and "$" not in line]
    return [line for line in whole if line.split()[1] not in ("COMMAND", "--help", "--version")]


def settings(command: str) -> dict[str, Any]:
    """The settings of a command by their dotted names."""
    module = import_module(f"reverie.pipelines.{COMMANDS[command].module}")
    return settings_of(getattr(module, COMMANDS[command].config))


def leaves(nav: Any) -> list[str]:
    """The files of a navigation."""
    if isinstance(nav, str):
        return [nav]
    items = nav.values() if isinstance(nav, dict) else nav
    return [leaf for item in items for leaf in leaves(item)]
