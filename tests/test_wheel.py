"""The wheel, installed by name into a fresh environment far from the repository, does what the checkout does."""

import os
import re
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from reverie import __version__
from tests.pipelines.interactive.page_client import Page

ROOT = Path(__file__).parents[1]
SMALL = ("--training.steps", "2", "--training.evaluate_every", "2", "--training.save_every", "2")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment that holds the wheel, and sees the libraries of this one without its `reverie`."""
    folder = tmp_path_factory.mktemp("fresh")
    source = folder / "source"
    source.mkdir()
    tracked = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, check=True).stdout
    subprocess.run(
        ["tar", "c", "--null", "-T", "-"],
        cwd=ROOT,
        input=tracked,
        stdout=(folder / "all.tar").open("wb"),
        check=True,
    )
    subprocess.run(["tar", "x", "-f", folder / "all.tar", "-C", source], check=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    wheel = [*pip, "wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", folder / "dist", source]
    subprocess.run(wheel, check=True, env=outside())
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
    ).stdout.strip()
    Path(site, "libraries.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    subprocess.run(
        [python, "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--no-index"]
        + ["--ignore-installed", "--no-deps", "--find-links", folder / "dist", "reverie[crafter,parquet]"],
        check=True,
        env=outside(),
    )
    return python.parent


def test_it_is_the_wheel_that_runs(fresh: Path, tmp_path: Path) -> None:
    where = run(
        tmp_path, fresh / "python", "-c", "import reverie; print(reverie.__file__, reverie.__version__)"
    )
    file, version = where.split()
    assert Path(file).is_relative_to(fresh.parent) and version == __version__
    assert run(tmp_path, fresh / "reverie", "--version") == f"reverie {__version__}\n"
    ask = "import importlib.metadata as m; print(m.metadata('reverie')['License-Expression'], m.files('reverie'))"
    told = run(tmp_path, fresh / "python", "-c", ask)
    assert told.startswith("MIT ") and "reverie/py.typed" in told and "LICENSE" in told


def test_its_needs_are_met_by_what_the_tests_run_with(fresh: Path, tmp_path: Path) -> None:
    """No dependency of the wheel or of the two extras is missing here: `pip install` would have nothing to add."""
    missing = (
        "import importlib.metadata as m; from packaging.requirements import Requirement as R\n"
        "for r in map(R, m.requires('reverie')):\n"
        "    if r.marker is None or any(r.marker.evaluate({'extra': e}) for e in ('crafter', 'parquet')):\n"
        "        assert r.specifier.contains(m.version(r.name)), r\n"
    )
    assert run(tmp_path, fresh / "python", "-c", missing) == ""


def test_both_ways_to_call_it_print_help_and_presets(fresh: Path, tmp_path: Path) -> None:
    assert "tokenizer" in run(tmp_path, fresh / "reverie", "--help")
    assert run(tmp_path, fresh / "python", "-m", "reverie", "info").startswith("nano\n")
    assert "--training.steps" in run(tmp_path, fresh / "reverie", "dynamics", "--help")


def test_a_stage_learns_with_the_settings_of_the_wheel(fresh: Path, tmp_path: Path) -> None:
    command = fresh / "reverie"
    run(tmp_path, command, "record", "--env", "minigrid-empty", "--episodes", "4", "--out", "episodes")
    run(tmp_path, command, "prepare", "--source", "episodes", "--out", "shards")
    settings = ("--preset", "nano", "--objective.lpips_weight", "0")
    told = run(tmp_path, command, "tokenizer", *settings, *SMALL, "--data", "shards", "--out", "tokenizer")
    assert "tokenizer holds step 2" in told and "next: reverie encode" in told
    shipped = ("--config", "configs/crafter/tokenizer.yaml", "--objective.lpips_weight", "0")
    told = run(tmp_path, command, "tokenizer", *shipped, *SMALL, "--data", "shards", "--out", "other")
    assert "other holds step 2" in told


def test_a_world_that_ships_moves_within_a_minute(fresh: Path, tmp_path: Path) -> None:
    """From the command to the first dreamed frame on a page, as the command itself says."""
    process = subprocess.Popen(
        [fresh / "reverie", "play", "--world", "crafter", "--port", "0", "--device", "cpu"],
        cwd=tmp_path,
        env=outside(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        with Page(process.stdout.readline().removeprefix("open ").strip()) as visitor:
            first, then = visitor.frame, visitor.act("ArrowUp")
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    (seconds,) = re.findall(r"first frame after ([0-9.]+) s", said)
    crowd = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    print(f"first frame after {seconds} s, on cores with {crowd:.1f} times the work that they can do")
    assert first.shape == then.shape and not np.array_equal(first, then)
    assert float(seconds) < 60 * crowd


def run(folder: Path, *command: object) -> str:
    """What a command prints, run in `folder`."""
    done = subprocess.run(
        [str(part) for part in command], cwd=folder, env=outside(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def outside() -> dict[str, str]:
    """The surroundings of a user: nothing leads to the checkout."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
