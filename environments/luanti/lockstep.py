"""Lock step with the game: it draws a frame, waits, and goes on when told to.

A small library written in C, `lockstep.c`, is built once by the system's compiler and preloaded into the unchanged game.
"""

import mmap
import shutil
import socket
import struct
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from reverie.data.errors import UserError
from reverie.data.files.durable import cache_folder, file_sha256
from reverie.environments.game import GameCrashed

SOURCE = Path(__file__).with_name("lockstep.c")
GONE = "game 'luanti': the game has ended; its next reset starts it again."
_HEADER = struct.Struct("IIIIQ")
"""`struct shared` of lockstep.c: locked, cursor_visible, width, height, frame_ns."""
_CURSOR_VISIBLE = 4


def library() -> Path:
    """The preloaded library, built unless that was done before. Raises `UserError` without a compiler."""
    target = cache_folder() / "luanti" / f"lockstep-{file_sha256(SOURCE)[:16]}.so"
    if target.exists():
        return target
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise UserError("game 'luanti': needs a C compiler for its lock step; run `make luanti`.")
    target.parent.mkdir(parents=True, exist_ok=True)
    # A folder of its own: the first games of several workers may all be building it.
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        built = Path(folder) / target.name
        command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(built), str(SOURCE), "-ldl"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            reason = done.stderr.strip().splitlines()[-1:] or ["no message"]
            raise UserError(
                f"game 'luanti': {SOURCE.name} cannot be compiled ({reason[0]}); run `make luanti`."
            )
        built.replace(target)
    return target


class Lockstep:
    """This end of the lock step with one game, whose frames are (height, width) and last 1 / `fps` seconds.

    environment, socket  what the game must be started with
    """

    def __init__(self, folder: Path, size: tuple[int, int], fps: float) -> None:
        self.size = size
        height, width = size
        path = folder / "frame"
        with path.open("wb") as file:
            file.write(_HEADER.pack(0, 0, width, height, round(1e9 / fps)))
            file.truncate(_HEADER.size + height * width * 3)
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)
        self._ours, self.socket = socket.socketpair()
        self.socket.set_inheritable(True)
        self.environment = {
            "LD_PRELOAD": str(library()),
            "REVERIE_LOCKSTEP_MEMORY": str(path),
            "REVERIE_LOCKSTEP_SOCKET": str(self.socket.fileno()),
        }

    def started(self) -> None:
        """The game has its end of the socket: when it dies ours is closed."""
        self.socket.close()

    def lock(self) -> None:
        """From its next frame on the game waits for us."""
        self._memory[0] = 1

    def fileno(self) -> int:
        """The socket, on which a byte says that a frame is finished and an end that the game is gone."""
        return self._ours.fileno()

    def wait(self) -> None:
        """Until the game has finished a frame. Raises `GameCrashed` when it is gone."""
        try:
            is_alive = bool(self._ours.recv(1))
        except OSError:
            is_alive = False
        if not is_alive:
            raise GameCrashed(GONE)

    def release(self) -> None:
        """Lets the game play and draw one more frame. Raises `GameCrashed` when it is gone."""
        try:
            self._ours.send(b"g", socket.MSG_NOSIGNAL)
        except OSError:
            raise GameCrashed(GONE) from None

    @property
    def cursor_visible(self) -> bool:
        """Whether the mouse moves a cursor, in a menu, and not the view."""
        return bool(self._memory[_CURSOR_VISIBLE])

    def frame(self) -> np.ndarray:
        """The frame the game waits at, (height, width, 3) uint8, a copy."""
        pixels = np.frombuffer(self._memory, np.uint8, offset=_HEADER.size)
        return pixels.reshape(*self.size, 3)[::-1].copy()

    def close(self) -> None:
        """Ends the game, if it still runs."""
        self._ours.close()
        self.socket.close()
        self._memory.close()
