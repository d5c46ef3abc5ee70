"""One running game: its folder, X server, process, clock, keys and our mod, started together and ended together."""

import os
import select
import shutil
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from reverie.environments.game import GameCrashed
from reverie.environments.luanti.channel import Channel, Report
from reverie.environments.luanti.inputs import Inputs
from reverie.environments.luanti.lockstep import GONE, Lockstep
from reverie.environments.luanti.processes import Child, Folder, Screen, program
from reverie.environments.luanti.settings import conf
from reverie.environments.luanti.watchdog import Watchdog

HEIGHT, WIDTH, FPS = 360, 640, 20
MOD = Path(__file__).with_name("mod")
_STARTING, _ANSWERING = 180.0, 60.0
"""Most seconds that a start, and one step, may take on a busy machine."""
_WORLD = """gameid = minetest_game
backend = sqlite3
player_backend = sqlite3
auth_backend = sqlite3
mod_storage_backend = sqlite3
load_mod_reverie = true
"""
_TOLERANCE = 1e-3
_SLOTS = 32


@dataclass
class State:
    """What the mod reports of the player. Positions and velocities in nodes (a second), x east, y up, z north.

    yaw        degrees, counterclockwise from north, seen from above
    pitch      degrees, positive downwards
    inventory  32 slots of (item, number), the first eight of them the hotbar
    grid       the 9 slots of the crafting grid, row by row
    """

    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    velocity: tuple[float, float, float] = (0.0, 0.0, 0.0)
    yaw: float = 0.0
    pitch: float = 0.0
    health: int = 20
    slot: int = 1
    inventory: list[tuple[str, int]] = field(default_factory=list)
    grid: list[tuple[str, int]] = field(default_factory=list)

    def update(self, report: Report) -> None:
        """Takes over what a report tells."""
        for name in ("position", "velocity"):
            if name in report:
                setattr(self, name, tuple(report[name]))
        for name in ("yaw", "pitch"):
            setattr(self, name, float(report.get(name, getattr(self, name))))
        for name in ("health", "slot"):
            setattr(self, name, int(report.get(name, getattr(self, name))))
        if "inventory" in report:
            slots = [(item, int(number)) for item, number in report["inventory"]]
            self.inventory, self.grid = slots[:_SLOTS], slots[_SLOTS:]


class Session:
    """A game that has started and waits in lock step at its first frame.

    state     what the mod has reported last
    time      seconds of game time since the server started
    folder    where everything of this game lies
    watchdog  ends the processes when they take too long; None until they run

    Raises `UserError` when a program is missing, `GameCrashed` when the start fails.
    """

    def __init__(self, map_seed: int, viewing_range: int, degrees_per_pixel: float) -> None:
        self.state = State()
        self._folder = Folder()
        self.folder = self._folder.path
        self._children: list[Child] = []
        self.watchdog: Watchdog | None = None
        self.time = 0.0
        try:
            self._start(conf((HEIGHT, WIDTH), viewing_range, map_seed, degrees_per_pixel))
        except BaseException:
            self.close()
            raise

    def tick(self) -> list[Report]:
        """One frame and one step of the server, 1 / `FPS` seconds of game time; what the mod reports of them."""
        assert self.watchdog is not None
        with self.watchdog:
            self._lockstep.release()
            self._lockstep.wait()
            return self._reports()

    def hold(self, names: set[str], pointer: tuple[int, int]) -> None:
        """Puts the pointer at (x, y) and holds exactly these keys and buttons."""
        assert self.watchdog is not None
        with self.watchdog:
            self._inputs.move(*pointer)
            self._inputs.hold(names)

    def command(self, name: str, **fields: Any) -> None:
        """Asks the mod for something; it is done in the next tick."""
        self._channel.command(name, **fields)

    @property
    def cursor_visible(self) -> bool:
        """Whether a screen with a cursor is open."""
        return self._lockstep.cursor_visible

    @property
    def pids(self) -> list[int]:
        """Numbers of the processes, the X server's first."""
        return [child.pid for child in self._children]

    def frame(self) -> np.ndarray:
        """(360, 640, 3) uint8."""
        return self._lockstep.frame()

    def last_words(self) -> str:
        """What the game has said last, an error if there is one."""
        log = (self.folder / "game.log").read_text(errors="replace").splitlines()
        errors = [line for line in log if "ERROR" in line and "]: \t" not in line and "traceback" not in line]
        return (errors or log or ["it says nothing"])[-1].strip()

    def close(self) -> None:
        """Ends both processes and removes their folder."""
        if self.watchdog is not None:
            self.watchdog.close()
        for child in reversed(self._children):
            child.kill()
        for name in ("_inputs", "_lockstep", "_channel"):
            if (part := getattr(self, name, None)) is not None:
                part.close()
        self._folder.remove()

    def _start(self, settings: str) -> None:
        folder = self.folder
        home, world = folder / "home", folder / "world"
        (home / ".minetest").mkdir(parents=True)
        (world / "worldmods").mkdir(parents=True)
        (world / "world.mt").write_text(_WORLD)
        shutil.copytree(MOD, world / "worldmods" / "reverie")
        conf_path = home / ".minetest" / "minetest.conf"
        conf_path.write_text(settings)
        self._lockstep = Lockstep(folder, (HEIGHT, WIDTH), FPS)
        self._channel = Channel(world / "reverie")
        screen = Screen((HEIGHT, WIDTH), folder / "screen.log", _STARTING)
        self._children.append(screen)
        game = self._game(screen.display, home, world, conf_path)
        self._children.append(game)
        self._lockstep.started()
        self.watchdog = Watchdog(self._children, _ANSWERING)
        self._inputs = Inputs(screen.display)
        self._await_player(game)
        with self.watchdog:
            while not self._inputs.focus():
                time.sleep(0.05)
            self._lockstep.lock()
            self._lockstep.wait()
        time.sleep(0.3)  # what the server has begun by the real clock it finishes
        for report in self._channel.reports():
            self._take(report)

    def _game(self, display: str, home: Path, world: Path, conf_path: Path) -> Child:
        command = [program("minetest", "luanti"), "--go", "--world", str(world), "--config", str(conf_path)]
        command += ["--gameid", "minetest_game", "--name", "player", "--port", str(_free_port())]
        environment = {
            **os.environ,
            **{"DISPLAY": display, "HOME": str(home), "MINETEST_USER_PATH": str(home / ".minetest")},
            **{"LIBGL_ALWAYS_SOFTWARE": "1", "LP_NUM_THREADS": "0"},
            **self._lockstep.environment,
        }
        return Child(command, environment, (self._lockstep.socket.fileno(),), self.folder / "game.log")

    def _await_player(self, game: Child) -> None:
        until = time.monotonic() + _STARTING
        while True:
            select.select([self._channel.fileno()], [], [], 0.2)
            for report in self._channel.reports():
                self._take(report)
                if "position" in report:
                    return
            if not game.is_running or time.monotonic() > until:
                raise GameCrashed(f"game 'luanti': does not start ({self.last_words()}).")

    def _reports(self) -> list[Report]:
        """The reports up to one step of game time after the last."""
        due = self.time + 1 / FPS - _TOLERANCE
        found: list[Report] = []
        while self.time < due:
            # The game waits at its frame and says nothing, so the socket can only tell that it is gone.
            ready, _, _ = select.select([self._channel.fileno(), self._lockstep.fileno()], [], [])
            if self._lockstep.fileno() in ready:
                raise GameCrashed(GONE)
            for report in self._channel.reports():
                self._take(report)
                found.append(report)
        return found

    def _take(self, report: Report) -> None:
        self.time = report["time"]
        self.state.update(report)


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
