"""`--help` is read from the source: it says what the parser knows, and imports no models."""

import subprocess
import sys
from dataclasses import MISSING, fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from reverie.pipelines import presets
from reverie.pipelines.cli import COMMANDS, main
from reverie.pipelines.help import BASELINES, PRESETS, Setting, Unreadable, presets_of, read_settings
from reverie.pipelines.runs.configs import to_plain


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_default_and_explanation_is_that_of_the_class(name: str) -> None:
    command = COMMANDS[name]
    cls = getattr(import_module(f"reverie.pipelines.{command.module}"), command.config)
    _, settings = read_settings(f"pipelines.{command.module}", command.config)
    shown = {leaf.name: leaf for setting in settings for leaf in setting.leaves()}
    expected = dict(known(cls, ""))
    assert set(shown) == set(expected)
    for flag, value in expected.items():
        assert len(shown[flag].about.split()) > 1, f"--{flag} is not explained"
        assert said(shown[flag]) == value, flag


def test_names_of_presets_are_those_that_there_are() -> None:
    assert tuple(presets.PRESETS) == PRESETS and set(BASELINES) == set(presets.BASELINES)
    for name in COMMANDS:
        assert set(presets_of(name)) == set(presets.presets_of(name)), name


@pytest.mark.parametrize("command", [["evaluate", "--help"], ["data", "show", "-h"], ["help", "play"]])
def test_help_waits_for_no_library(command: list[str]) -> None:
    code = (
        "import sys; from reverie.pipelines.cli import main; assert main(sys.argv[1:]) == 0\n"
        "heavy = {'torch', 'numpy', 'jsonargparse', 'matplotlib', 'av'} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage: reverie " in done.stdout and "--out PATH" in done.stdout


def test_help_of_a_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--mode {pad|crop|stretch} How other sizes are fitted" in text and "(default: pad)" in text
    assert "--source PATH" in text and "(needed)" in text and "--size HEIGHTxWIDTH" in text


def test_source_that_does_not_say_it_plainly_is_left_to_the_parser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "odd.py").write_text("@dataclass\nclass Odd:\n    size: int = len('four')\n    'A size.'\n")
    monkeypatch.setattr("reverie.pipelines.help._ROOT", tmp_path)
    with pytest.raises(Unreadable):
        read_settings("odd", "Odd")


def known(cls: Any, prefix: str, values: Any = None) -> list[tuple[str, Any]]:
    """(flag, default as plain value, or "needed"), by the dataclass itself."""
    found: list[tuple[str, Any]] = []
    for entry in fields(cls):
        kind = get_type_hints(cls)[entry.name]
        if values is not None:
            default = getattr(values, entry.name)
        else:
            default = entry.default if entry.default_factory is MISSING else entry.default_factory()
        if is_dataclass(kind):
            nested = None if default is MISSING else default
            found += known(kind, f"{prefix}{entry.name}.", nested)
        else:
            found.append((f"{prefix}{entry.name}", "needed" if default is MISSING else to_plain(default)))
    return found


def said(setting: Setting) -> Any:
    """What the help says of a default, as a plain value."""
    text = setting.default
    if text is None:
        return "needed"
    if text in ("null", "true", "false"):
        return {"null": None, "true": True, "false": False}[text]
    try:
        value = eval(text, {"__builtins__": {}})
    except (NameError, SyntaxError, TypeError):
        return text
    return to_plain(value)
