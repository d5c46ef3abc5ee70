"""Runs in slots: parents first, one failure costs what needs it, environments, and a stop that waits for what runs."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from reverie.pipelines.runs.stops import Stopped
from reverie.pipelines.sweeps.plan import Run
from reverie.pipelines.sweeps.slots import Slots, slot_environment
from reverie.pipelines.sweeps.work import Board, why, work_off


def run(name: str, *parents: str) -> Run:
    return Run(name=name, stage=name, command=name[0], settings={"out": name}, parents=parents, places=())


def board(*runs: Run) -> Board:
    return Board({r.name: r for r in runs}, set())


def starting(scripts: Mapping[str, str]) -> Callable[[Run, Mapping[str, str]], "subprocess.Popen[bytes]"]:
    """Runs as shell scripts; by default nothing."""

    def start(asked: Run, variables: Mapping[str, str]) -> "subprocess.Popen[bytes]":
        command = ["sh", "-c", scripts.get(asked.name, "true")]
        return subprocess.Popen(command, env=os.environ | dict(variables), start_new_session=True)

    return start


def test_a_failure_costs_what_needs_it(tmp_path: Path) -> None:
    runs = (run("a"), run("b", "a"), run("c", "b"), run("d"), run("e", "d"), run("f", "c", "e"))
    said: list[str] = []
    found = board(*runs)
    engine = Slots(2, (), starting({"b": "exit 3"}))
    work_off(found, engine, 2, lambda r, code: f"code {code}" if code else "", said.append)
    assert found.finished == {"a", "d", "e"}
    assert found.failed == {"b": "code 3"} and found.kept == {"c": "b", "f": "b"}
    assert any(line.startswith("b: failed: code 3; ") for line in said)
    assert "3 of 6 done, 0 running, 1 failed, 2 not begun for that" in said[-1]


def test_parents_end_before_children_begin_and_no_more_run_than_slots(tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = f'echo "+ $0" >> {log}; sleep 0.1; echo "- $0" >> {log}'
    runs = [run("a"), run("b"), run("c"), run("d", "a", "b", "c")]
    scripts = {r.name: script.replace("$0", r.name) for r in runs}
    work_off(board(*runs), Slots(2, (), starting(scripts)), 2, lambda r, code: "", lambda line: None)
    lines = log.read_text().splitlines()
    running, most = 0, 0
    for line in lines:
        running += 1 if line[0] == "+" else -1
        most = max(most, running)
    assert most == 2 and lines[-2:] == ["+ d", "- d"] and len(lines) == 8


def test_slots_share_cores_and_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    assert slot_environment(0, 3, ()) == {"OMP_NUM_THREADS": "2"}
    found = [slot_environment(slot, 3, ("0", "GPU-7")) for slot in range(3)]
    assert [x["CUDA_VISIBLE_DEVICES"] for x in found] == ["0", "GPU-7", "0"]
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert slot_environment(0, 3, ())["OMP_NUM_THREADS"] == "5"


def test_each_slot_gets_its_own_device(tmp_path: Path) -> None:
    script = f'touch "{tmp_path}/$CUDA_VISIBLE_DEVICES"; while [ $(ls {tmp_path} | wc -l) -lt 2 ]; do sleep 0.01; done'
    engine = Slots(2, ("3", "5"), starting({"a": script, "b": script}))
    work_off(board(run("a"), run("b")), engine, 2, lambda r, code: "", lambda line: None)
    assert {path.name for path in tmp_path.iterdir()} == {"3", "5"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_lets_what_runs_save(number: int, tmp_path: Path) -> None:
    child = f"import signal, sys, time, pathlib\np = pathlib.Path({str(tmp_path)!r})\n"
    child += "def stop(*_): time.sleep(0.2); (p / 'saved').touch(); sys.exit(130)\n"
    child += "signal.signal(signal.SIGINT, stop)\n(p / 'began').touch()\nwhile True: time.sleep(0.05)"
    (tmp_path / "child.py").write_text(child)
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def ask() -> None:
        while not (tmp_path / "began").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    threading.Thread(target=ask, daemon=True).start()
    engine = Slots(1, (), starting({"a": f"exec {sys.executable} {tmp_path / 'child.py'}"}))
    try:
        with pytest.raises(
            Stopped, match="Stopped with 0 of 2 runs done; the same command continues from here"
        ):
            work_off(board(run("a"), run("b")), engine, 1, lambda r, code: "", lambda line: None)
    finally:
        for n, handler in before.items():
            signal.signal(n, handler)
    assert (tmp_path / "saved").exists()


def test_time_left_comes_from_runs_of_the_same_command() -> None:
    found = board(run("a1"), run("a2"), run("b1"), run("a3"))
    assert found.left(1) == ""
    found.finished |= {"a1", "b1"}
    found.seconds = {"a": [100.0], "b": [10.0]}
    assert found.left(1) == ", about 0:03:20 left" and found.left(2) == ", about 0:01:40 left"


def test_the_reason_is_what_the_latest_launch_said_last(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert why(log, 1) == "code 1, without a word"
    log.write_text("\n$ reverie x\nreverie: an old reason\n\n$ reverie x\nreverie: no such folder.\nbye\n")
    assert why(log, 1) == "no such folder."
    log.write_text("\n$ reverie x\nreverie: an old reason\n\n$ reverie x\nTraceback\nKeyError: 3\n")
    assert why(log, 1) == "KeyError: 3"
    assert why(log, -9) == "ended by SIGKILL, mostly because memory ran out"
