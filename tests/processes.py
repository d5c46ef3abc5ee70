"""Real processes for tests, forked from one that has everything imported: starting one costs milliseconds.

So a run can be started and killed 50 times. What runs in the process is the real code from its first line; only the
interpreter's start and the imports, which write nothing, are not repeated.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TIMEOUT = 300.0
"""Seconds; far more than anything here needs on a busy machine."""
_PRELOAD = [
    *("lightning.fabric", "torch.utils.tensorboard", "reverie.pipelines.datasets.prepare"),
    *("tests.pipelines.small_stages", "tests.data.reading"),
]


def start(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """`target(*arguments)` in a process, and process group, of its own; `target` belongs to a module."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
    process = context.Process(target=_lead_group, args=(target, arguments))
    process.start()
    return process


def finish(process: BaseProcess) -> None:
    """Waits for the end, which must be a good one."""
    process.join(TIMEOUT)
    assert process.exitcode == 0, process.exitcode


def kill_group(process: BaseProcess) -> bool:
    """kill -9 of the process and all it started. Returns whether that, and not its own end, ended it."""
    assert process.pid is not None
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:  # it does not lead its group yet, or has ended
        process.kill()
    process.join(TIMEOUT)
    return process.exitcode == -signal.SIGKILL


def is_running(pid: int) -> bool:
    """Whether a process is there and is no zombie."""
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def _lead_group(target: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    os.setsid()
    multiprocessing.set_start_method("fork", force=True)  # as in a process begun by a shell on Linux
    target(*arguments)
