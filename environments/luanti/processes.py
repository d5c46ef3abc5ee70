"""The game's processes: an X server of its own, the game in a folder of its own, and nothing left of either.

Both die with the process that started them, however that dies; its folder goes with the next start.
"""

import contextlib
import fcntl
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO

from reverie.data.errors import UserError
from reverie.environments.game import GameCrashed

PREFIX = "reverie-luanti-"
_GAMES = "/usr/games"
_DIE_TOGETHER = ("--pdeathsig", "KILL")


def program(*names: str) -> str:
    """The path of the first installed program of these. Raises `UserError` when there is none."""
    search = f"{os.environ.get('PATH', os.defpath)}:{_GAMES}"
    for name in names:
        if found := shutil.which(name, path=search):
            return found
    raise UserError(f"game 'luanti': the program {names[0]!r} is not installed; run `make luanti`.")


def require_programs() -> None:
    """Raises `UserError` unless all programs are there."""
    for names in (("minetest", "luanti"), ("Xvfb",), ("setpriv",), ("cc", "gcc")):
        program(*names)


def is_installed() -> bool:
    """Whether all programs are there."""
    try:
        require_programs()
    except UserError:
        return False
    return True


class Folder:
    """A temporary folder that is removed at the end, or by the next one if its process is killed."""

    def __init__(self) -> None:
        _sweep()
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._lock = _locked(self.path)

    def remove(self) -> None:
        """Deletes it with everything in it."""
        _delete(self.path)
        if self._lock is not None:
            self._lock.close()


def _locked(path: Path) -> IO[str] | None:
    """The open lock of a folder, None if its owner lives or it is gone."""
    try:
        file = (path / "lock").open("w")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return None
    return file


def _sweep() -> None:
    """Removes folders of processes that were killed."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if (path / "lock").exists() and (lock := _locked(path)) is not None:
            _delete(path)
            lock.close()


def _delete(path: Path) -> None:
    """The lock goes last: what is left, by a kill or a game that is still dying, remains for the next sweep to find."""
    for part in path.iterdir():
        if part.name != "lock":
            shutil.rmtree(part, ignore_errors=True) if part.is_dir() else part.unlink(missing_ok=True)
    if [part.name for part in path.iterdir()] == ["lock"]:
        shutil.rmtree(path, ignore_errors=True)


class Child:
    """A process that dies with this one."""

    def __init__(
        self, command: list[str], environment: dict[str, str], descriptors: tuple[int, ...], log: Path
    ) -> None:
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [program("setpriv"), *_DIE_TOGETHER, "--", *command],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=descriptors,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Ends it at once."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()


class Screen(Child):
    """An X server without a screen, on the first display number that is free.

    display  its name, such as ":3"
    """

    def __init__(self, size: tuple[int, int], log: Path, seconds: float) -> None:
        reading, writing = os.pipe()
        height, width = size
        command = [program("Xvfb"), "-displayfd", str(writing), "-screen", "0", f"{width}x{height}x24"]
        command += ["-nolisten", "tcp", "-noreset"]
        try:
            super().__init__(command, dict(os.environ), (writing,), log)
        finally:
            os.close(writing)
        try:
            self.display = f":{_read_line(reading, seconds)}"
        except GameCrashed:
            self.kill()
            raise
        finally:
            os.close(reading)


def _read_line(descriptor: int, seconds: float) -> str:
    text, until = b"", time.monotonic() + seconds
    while not text.endswith(b"\n"):
        ready, _, _ = select.select([descriptor], [], [], max(until - time.monotonic(), 0))
        part = os.read(descriptor, 64) if ready else b""
        if not part:
            raise GameCrashed("game 'luanti': the X server does not start; reset the game to try again.")
        text += part
    return text.decode().strip()
