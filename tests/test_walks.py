"""The two newcomers' pages walked to their end: every command as it stands there, with fewer steps, in a folder of its own."""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from reverie.data.sources.episodes import complete_episodes
from reverie.data.video.codec import encode_video
from tests.data.corpus import draw, taken_actions
from tests.pipelines.interactive.page_client import Page
from tests.test_documents import ROOT, command_lines

pytestmark = pytest.mark.slow

STEPS = "--training.steps 2 --training.evaluate_every 2 --training.save_every 2"
FEWER = {
    "record": "--episodes 12",
    "tokenizer": f"{STEPS} --objective.lpips_weight 0",  # its weights are downloaded
    "dynamics": STEPS,
    "clone": STEPS,
    "imagine": STEPS,
    "baseline": STEPS,
    "evaluate": "--clips 2 --videos 1",
    "play": "--port 0",
}
GAME = "--episodes 2"


def test_own_videos(tmp_path: Path) -> None:
    (tmp_path / "my_videos").mkdir()
    for number in range(4):
        with (tmp_path / "my_videos" / f"{number}.mp4").open("wb") as file:
            encode_video(file, draw(number, taken_actions(number, 80), 80), 20.0, quality="lossless")
    text = (ROOT / "docs/own-videos.md").read_text()
    commands = command_lines(section(text, "## The commands"))
    assert [line.split()[1] for line in commands] == [
        *("fetch-weights", "prepare", "tokenizer", "encode", "dynamics", "evaluate")
    ]
    for line in commands[1:]:
        walk(tmp_path, line)
    assert (tmp_path / "runs/own/evaluation/report.html").is_file()


def test_own_game(tmp_path: Path) -> None:
    text = (ROOT / "docs/own-game.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "my_game.py").write_text(code)
    for line in command_lines(text):
        if line.split()[1] == "play":
            play(tmp_path, line)
        else:
            walk(tmp_path, line)
    assert (tmp_path / "runs/field/evaluation/report.html").is_file()
    assert complete_episodes(tmp_path / "runs/field/play")
    assert (tmp_path / "runs/field/agent/report.html").is_file()


def section(text: str, heading: str) -> str:
    """From a heading to the next."""
    return text.partition(heading)[2].partition("\n## ")[0]


def shorter(line: str) -> list[str]:
    """The command with fewer steps; what is given twice holds as it is given last."""
    words = shlex.split(line)
    more = shlex.split(FEWER.get(words[1], ""))
    if words[1] == "evaluate" and "--env" in words:
        more = shlex.split(GAME)
    if words[1] == "baseline":
        online = ("--collect.episodes", "2", "--collect.prefill", "64")
        more += online if "--online" in words else ("--policy.steps", "2")
    return [sys.executable, "-m", "reverie", *words[1:], *more]


def walk(folder: Path, line: str) -> None:
    """Runs a command; it must end well."""
    done = subprocess.run(shorter(line), cwd=folder, env=surroundings(), capture_output=True, text=True)
    assert done.returncode == 0, f"{line}\n{done.stderr}"


def play(folder: Path, line: str) -> None:
    """Starts the page, dreams a frame, and ends it as Ctrl-C does."""
    process = subprocess.Popen(
        shorter(line), cwd=folder, env=surroundings(), stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().removeprefix("open ").strip()
        with Page(address) as visitor:
            visitor.act("ArrowUp")
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 0 and "first frame after" in said


def surroundings() -> dict[str, str]:
    """Where `reverie` is this checkout."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT / "src", ROOT)))}
