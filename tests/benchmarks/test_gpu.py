"""The GPU command at small sizes: killed at any moment it goes on, and a row that fails does not stop the next."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu.__main__ import main, write_table
from benchmarks.gpu.rows import ROWS
from benchmarks.gpu.store import Store
from benchmarks.gpu.worker import record
from tests.processes import ROOT, TIMEOUT


def test_records_are_whole_and_of_one_device(tmp_path: Path) -> None:
    first, second = Store(tmp_path / "gpu.json", "A"), Store(tmp_path / "gpu.json", "B")
    first.put("x", {"figures": {"mfu": 0.5}})
    second.put("x", {"problem": "none"})
    first.put("y", {"figures": {}})
    assert first.records() == {"x": {"figures": {"mfu": 0.5}}, "y": {"figures": {}}}
    assert second.records() == {"x": {"problem": "none"}}


def test_the_most_valuable_rows_come_first_and_every_name_is_one() -> None:
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
    assert "1 video" in names[0] and ROWS[0].goal == "80 frames/s"
    assert all(row.seconds < 9.5 * 60 for row in ROWS), "each fits into one call"


def test_what_does_not_fit_into_the_time_waits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "gpu.json"
    assert main(["--minutes", "0", "--out", str(out), "--folder", str(tmp_path / "work")]) == 3
    said = capsys.readouterr().out
    assert f"{len(ROWS)} rows are left" in said and not out.exists()


def test_a_row_that_fails_is_a_record() -> None:
    def fails() -> dict[str, Any]:
        raise MemoryError("no\nroom")

    assert record(fails) == {"problem": "MemoryError: no room"}
    assert record(lambda: {"mfu": 0.1}) == {"figures": {"mfu": 0.1}}


def test_the_table_has_a_line_for_every_row(tmp_path: Path) -> None:
    store = Store(tmp_path / "gpu.json", "A")
    store.put(ROWS[0].name, {"figures": {"frames_per_second": 81.25, "mfu": 0.5, "seconds": [1.0]}})
    store.put(ROWS[1].name, {"problem": "OutOfMemoryError: of 80 GB"})
    lines = write_table(store, ROWS).splitlines()[4:]
    assert len(lines) == len(ROWS)
    assert lines[0].endswith("| 80 frames/s | frames/s 81.25, MFU 50.0% |")
    assert lines[1].endswith("| OutOfMemoryError: of 80 GB |")
    assert all(line.endswith("| not yet |") for line in lines[2:])


def command(folder: Path) -> list[str]:
    rows = [ROWS[0].name, ROWS[1].name]
    places = ["--out", str(folder / "gpu.json"), "--folder", str(folder / "work")]
    return [sys.executable, "-m", "benchmarks.gpu", "--small", *places, "--only", *rows]


@pytest.mark.slow  # three processes that import torch
def test_killed_it_goes_on_with_the_next_row(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
    running = subprocess.Popen(command(tmp_path), cwd=ROOT, env=environment, start_new_session=True)
    deadline = time.monotonic() + TIMEOUT
    while not out.exists():
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(running.pid, signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL, "it ended before it could be killed"
    (before,) = json.loads(out.read_text()).values()
    assert list(before) == [ROWS[0].name]
    subprocess.run(command(tmp_path), cwd=ROOT, env=environment, check=True)
    (after,) = json.loads(out.read_text()).values()
    assert after[ROWS[0].name] == before[ROWS[0].name], "measured once"
    assert after[ROWS[1].name]["figures"]["frames_per_second"] > 0
