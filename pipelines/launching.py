"""Commands of the project started by others of it, each in its own process, so that it can start several."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from reverie.data.errors import UserError
from reverie.data.files.lock import sole_writer

PARENT = "REVERIE_PARENT"
"""Environment variable: number of the process that starts others, with which they end."""
INTERRUPTED = 130
"""Exit code of a command that was asked to stop and has saved its state."""
_LOOK_EVERY = 1.0
_ORPHAN_SECONDS = 60.0


def run_command(arguments: Sequence[str]) -> None:
    """Runs `reverie ARGUMENTS` on this terminal until it ends. Ctrl-C and SIGTERM are passed on, and let it save first.

    Raises:
      KeyboardInterrupt: it was stopped.
      UserError: it failed; it has said why.
    """
    process = start_command(arguments)
    with _passing_on(process):
        code = process.wait()
    if code in (INTERRUPTED, -signal.SIGINT, -signal.SIGTERM):
        raise KeyboardInterrupt
    if code:
        raise UserError(
            f"{arguments[0]}: ended with code {code}, for the reason above; the same command again goes on from there."
        )


def start_command(
    arguments: Sequence[str], variables: Mapping[str, str] | None = None, log: Path | None = None
) -> "subprocess.Popen[bytes]":
    """Starts `reverie ARGUMENTS`, which ends when this process does, by whatever death.

    `variables` join the environment. What it says is added to `log`; on this terminal without one.
    """
    command = [sys.executable, "-m", "reverie.pipelines.cli", *arguments]
    # torch warns from every process that it looked for parameters without a gradient, whether there were any or not
    environment = (
        {"TORCH_CPP_LOG_LEVEL": "ERROR"} | os.environ | dict(variables or {}) | {PARENT: str(os.getpid())}
    )
    # its own session: the terminal's Ctrl-C would reach it beside the one passed on, and two end it without saving
    if log is None:
        return subprocess.Popen(command, env=environment, start_new_session=True)
    with log.open("ab") as file:
        return subprocess.Popen(
            command,
            env=environment,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )


@contextmanager
def _passing_on(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """`process` gets the requests to stop that reach this one."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = [signal.signal(number, lambda got, frame: process.send_signal(got)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, previous, strict=True):
            signal.signal(number, handler)


def wait_for_orphan(folder: Path) -> None:
    """Returns once no other process writes in `folder`, after `_ORPHAN_SECONDS` at most.

    A command whose parent was killed saves and ends a little later; who continues would be refused until then.
    """
    deadline = time.monotonic() + _ORPHAN_SECONDS
    while folder.is_dir() and time.monotonic() < deadline:
        try:
            with sole_writer(folder):
                return
        except UserError:
            time.sleep(_LOOK_EVERY)


def end_with_parent() -> None:
    """Lets this process end, saving first if it trains, when the command that started it dies, by whatever death.

    That is one that used `run_command`, or the first process of a training, which starts the others.
    """
    parent = os.getppid()
    if os.environ.get(PARENT) == str(parent):
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    os.environ[PARENT] = str(os.getpid())


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_EVERY)
    os.kill(os.getpid(), signal.SIGTERM)
