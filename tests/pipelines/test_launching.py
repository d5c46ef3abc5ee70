"""Commands that other commands start: they say why they failed, save when they are stopped, and never stay behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from reverie.data.errors import UserError
from reverie.data.files.lock import sole_writer
from reverie.pipelines.demo import demo_processes
from reverie.pipelines.launching import run_command, wait_for_orphan
from tests.pipelines.launches import launch
from tests.processes import TIMEOUT, is_running

DEMO = ["--recorded_episodes", "30", "--episodes", "2", "--steps_scale", "0.05", "--processes", "2"]


def test_a_failure_is_told_after_its_reason(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="tokeniser: ended with code 2, for the reason above"):
        run_command(["tokeniser"])
    assert "unknown command 'tokeniser'" in capfd.readouterr().err


@pytest.mark.parametrize(("gpu", "cores", "expected"), [(True, 16, 1), (False, 16, 2), (False, 1, 1)])
def test_a_demo_takes_no_more_gpus_than_one(
    gpu: bool, cores: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.accelerator.is_available", lambda: gpu)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(cores)))
    assert demo_processes() == expected


@pytest.mark.slow
def test_a_demo_that_is_stopped_and_killed_goes_on(tmp_path: Path) -> None:
    out, checkpoints = tmp_path / "demo", tmp_path / "demo" / "tokenizer" / "checkpoints"
    demo = launch(["demo", "--out", str(out), *DEMO], tmp_path / "stopped")
    _wait_for(lambda: _said(tmp_path / "stopped", "tokenizer 2"))
    os.kill(demo.pid or 0, signal.SIGINT)
    demo.join(TIMEOUT)
    assert demo.exitcode == 130, (tmp_path / "stopped").read_text()
    assert list(checkpoints.iterdir()) and not _children(out)

    demo = launch(["demo", "--out", str(out), *DEMO], tmp_path / "killed")
    _wait_for(lambda: bool(_children(out)))
    demo.kill()
    _wait_for(lambda: not _children(out))

    demo = launch(["demo", "--out", str(out), *DEMO], tmp_path / "finished")
    demo.join(TIMEOUT)
    assert demo.exitcode == 0, (tmp_path / "finished").read_text()
    assert (out / "evaluation" / "report.html").exists()


def _said(file: Path, words: str) -> bool:
    return file.exists() and words in file.read_text()


def _children(out: Path) -> list[int]:
    """Processes that train in a folder of `out`."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and is_running(int(process.name)):
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
            except OSError:  # it has just ended
                continue
            if b"--preset" in words and str(out / "tokenizer").encode() in words:
                found.append(int(process.name))
    return found


def _wait_for(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + TIMEOUT
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_who_continues_waits_for_what_a_killed_parent_has_left(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from reverie.data.files.lock import sole_writer\n"
        "with sole_writer(Path(sys.argv[1])): print('in', flush=True); time.sleep(2)"
    )
    writer = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
    assert writer.stdout is not None and writer.stdout.readline() == b"in\n"
    wait_for_orphan(tmp_path)
    with sole_writer(tmp_path):
        pass
    assert writer.wait(TIMEOUT) == 0
    wait_for_orphan(tmp_path / "not there")
