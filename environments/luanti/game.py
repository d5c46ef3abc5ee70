"""Luanti with minetest_game, played like Minecraft: the same keys, mouse, statistics and tasks, 20 steps a second."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
from PIL import Image

from reverie.data.errors import UserError
from reverie.data.sources.status import PlayerStatus, Status
from reverie.data.sources.vpt.minecraft import KEYS, NULL_MOUSE, SPACE, decode_camera
from reverie.data.sources.vpt.recordings import DEGREES_PER_PIXEL as GUI_DEGREES_PER_PIXEL
from reverie.data.sources.vpt.recordings import SCREEN_HEIGHT, draw_cursors
from reverie.data.sources.vpt.tasks import STATISTICS
from reverie.environments.game import GameCrashed, GameEnv, Outcome, require_steps
from reverie.environments.luanti.channel import Report
from reverie.environments.luanti.names import LADDER, add_counts, minecraft_name
from reverie.environments.luanti.processes import require_programs
from reverie.environments.luanti.quest import DIAMOND
from reverie.environments.luanti.session import FPS, HEIGHT, WIDTH, Session, State
from reverie.environments.quest import count

EPISODE = 6_000
"""Steps of an episode unless more are asked for: five minutes, as long as a segment of VPT's recordings."""
DEGREES_PER_PIXEL = 1 / 16
"""How far the view turns: the largest turn of a step, 10 degrees, must stay on the screen."""
MAP_SEED, CELLS, SEEDS = 4, 10_000, 2**31
PLACES_A_MAP = 200
"""Episodes after which the game starts anew, so that its map on disk stays small."""
TIME_SPEED = 72
"""Game time in days per real day, as in Minecraft: a day lasts 20 minutes."""
_SCREEN_PIXELS = HEIGHT / SCREEN_HEIGHT / GUI_DEGREES_PER_PIXEL
"""Pixels that a cursor moves a degree: VPT counts them on a screen 720 pixels high."""
_CENTER = np.array([WIDTH / 2, HEIGHT / 2])
_LEAST_TICKS, _MOST_TICKS, _STILL_TICKS = 20, 80, 5
_REPORTED_AFTER = 4
"""Steps without a turn after which the server knows where the player looks."""
_STEEPEST = 89.5
_DRAWING = 0.02
"""Seconds that the game's other threads get after each tick while an episode is prepared."""
_FINDING_TICKS = 5_000


class LuantiGame(GameEnv):
    """`luanti`. The reward of a step is the number of tasks accomplished in it; death ends an episode for good.

    Every seed has a place of its own, which nothing has changed before: where an episode of this process was nearby,
    the game starts anew with a fresh map. Raises `GameCrashed` when a process is gone or hangs; the next `reset` starts
    both again.

    `inventory` (item -> number) is what an episode starts with; `frame_size` (height, width) shrinks the frames by
    averaging; `viewing_range` is how far one sees, in nodes.
    """

    def __init__(
        self,
        *,
        seed: int | None = None,
        max_steps: int = EPISODE,
        frame_size: Sequence[int] = (HEIGHT, WIDTH),
        inventory: Mapping[str, int] | None = None,
        viewing_range: int = 64,
    ) -> None:
        self.max_steps = require_steps(max_steps, "luanti")
        if len(frame_size) != 2 or not (1 <= frame_size[0] <= HEIGHT and 1 <= frame_size[1] <= WIDTH):
            raise UserError(
                f"game 'luanti': frame_size must be [height, width] up to {HEIGHT} x {WIDTH}, got {list(frame_size)}."
            )
        super().__init__(
            name="luanti",
            action_space=SPACE,
            tasks=list(LADDER),
            fps=float(FPS),
            frame_size=(int(frame_size[0]), int(frame_size[1])),
            quest=DIAMOND,
        )
        self._inventory = [f"{item} {number}" for item, number in (inventory or {}).items()]
        self._viewing_range = viewing_range
        self._rng = np.random.default_rng(seed)
        self._session: Session | None = None
        self._used: set[int] = set()
        self._steps = 0
        self._stats: dict[str, int] = {}
        self._tasks: dict[str, int] = {}
        self._cursor = _CENTER.copy()
        self._turned = np.zeros(2)  # what rounding to pixels has left over: yaw, pitch in degrees
        self._view, self._resting = (0.0, 0.0), 0
        self._asked_for_inventory = False
        self.seen: Report | None = None
        require_programs()

    @property
    def session(self) -> Session:
        """The running game. Raises `GameCrashed` before the first `reset`, and from a crash to the next one."""
        if self._session is None:
            raise GameCrashed("game 'luanti': does not run; reset it to start it.")
        return self._session

    @property
    def state(self) -> State:
        """Where the player is and what it carries."""
        return self.session.state

    @property
    def cursor(self) -> np.ndarray | None:
        """Where the cursor is, (x, y) on the screen of 640 x 360 pixels; None while no menu is open."""
        return self._cursor if self.session.cursor_visible else None

    @property
    def view(self) -> tuple[float, float]:
        """Where the player looks: yaw and pitch as in `State`, which lags behind while it turns."""
        if self._resting > _REPORTED_AFTER:
            return self.state.yaw, self.state.pitch
        yaw, pitch = self._view
        return yaw % 360, pitch

    def status(self) -> Status:
        """In Minecraft's terms, whose south is where z falls here."""
        state, (x, y, z), (yaw, pitch) = self.state, self.state.position, self.view
        left, top = self._pointed_at().tolist()
        player = PlayerStatus(
            position=(x, y, -z),
            view=((-yaw) % 360 - 180, pitch),
            slot=state.slot - 1,
            cursor=(float(left), float(top)),
            in_gui=self.session.cursor_visible,
            in_inventory=self.session.cursor_visible and self._asked_for_inventory,
        )
        carried = tuple((minecraft_name(item), number) for item, number in state.inventory if number)
        return Status(stats=dict(self._stats), player=player, inventory=carried)

    def look(self, reach: tuple[int, int, int]) -> None:
        """Asks for the nodes up to `reach` (x, y, z) from the player: after the next step they are in `seen`."""
        self.session.command("look", reach=reach)

    def close(self) -> None:
        """Ends the game and its X server."""
        if self._session is not None:
            self._session.close()
            self._session = None

    @contextmanager
    def _closed_by_a_crash(self) -> Iterator[None]:
        """A crash in the block takes the game's last words along before its folder goes."""
        try:
            yield
        except GameCrashed as error:
            words = "" if self._session is None else f" (its log ends with: {self._session.last_words()})"
            self.close()
            raise GameCrashed(f"{str(error).rstrip('.')}{words}.") from None

    def _start(self, seed: int | None) -> np.ndarray:
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        number = int(self._rng.integers(SEEDS))
        with self._closed_by_a_crash():
            self._enter(number)
        return self._picture()

    def _advance(self, action: dict[str, np.ndarray]) -> Outcome:
        self._steps += 1
        with self._closed_by_a_crash():
            reports = self._act({KEYS[i] for i in np.flatnonzero(action["keys"])}, int(action["mouse"]))
        dead = any(item == "deaths" for report in reports for _, item, _ in report.get("counts", ()))
        before = self._tasks
        self._tasks = {task: count(self._stats, STATISTICS[task]) for task in self.tasks}
        accomplished = {task for task in self.tasks if self._tasks[task] > before[task]}
        return Outcome(
            frame=self._picture(),
            reward=float(len(accomplished)),
            terminated=dead,
            truncated=self._steps >= self.max_steps and not dead,
            accomplished=accomplished,
            stats=dict(self._stats),
        )

    def _begin(self) -> None:
        """Forgets the last episode."""
        self._steps, self._stats, self._tasks = 0, {}, dict.fromkeys(self.tasks, 0)
        self._turned = np.zeros(2)
        self._view, self._resting = (0.0, 0.0), 0
        self.seen = None

    def _restart(self) -> None:
        self.close()
        self._used = set()
        self._session = Session(MAP_SEED, self._viewing_range, DEGREES_PER_PIXEL)

    def _enter(self, number: int) -> None:
        """Goes to the place of an episode and waits until it is drawn."""
        cell = number % CELLS
        if self._session is None or cell in self._used or len(self._used) >= PLACES_A_MAP:
            self._restart()
        self._used |= {cell, self._find_place(cell, number)}
        self._settle()
        self.session.command("clock", speed=TIME_SPEED)
        self._act(set(), None)
        self._begin()

    def _find_place(self, cell: int, number: int) -> int:
        """Has the mod find and make the place; returns the cell where it found one."""
        self.session.command("reset", cell=cell, seed=number, inventory=self._inventory)
        for _ in range(_FINDING_TICKS):
            for report in self._act({"hotbar.1"}, None):
                if "reply" in report:
                    return int(report["reply"]["cell"])
            time.sleep(_DRAWING)
        raise GameCrashed(f"game 'luanti': found no place for seed {number}; take another seed.")

    def _settle(self) -> None:
        """Until the player stands and its surroundings are drawn, as far as pictures can tell."""
        still, before = 0, self.session.frame()
        for ticks in range(_MOST_TICKS):
            self._act(set(), None)
            now = self.session.frame()
            still = still + 1 if (now == before).all() else 0
            before = now
            if ticks >= _LEAST_TICKS and still >= _STILL_TICKS:
                return
            time.sleep(_DRAWING)

    def _act(self, names: set[str], mouse: int | None) -> list[Report]:
        """One step with these keys held; `mouse`: a class of `data.sources.vpt.minecraft`, None to rest."""
        session = self.session
        turn = decode_camera(np.asarray(NULL_MOUSE if mouse is None else mouse))[::-1]  # yaw, pitch
        in_menu = session.cursor_visible
        if not in_menu and names & {"inventory", "use"}:
            self._asked_for_inventory = "inventory" in names
        pointer = self._move_cursor(turn) if in_menu else self._turn(turn)
        session.hold(_safe(names, in_menu), pointer)
        reports = session.tick()
        for report in reports:
            add_counts(self._stats, report.get("counts", ()))
            self.seen = report.get("reply", self.seen)
        return reports

    def _move_cursor(self, turn: np.ndarray) -> tuple[int, int]:
        self._cursor = np.clip(self._cursor + turn * _SCREEN_PIXELS, 0, (WIDTH - 1, HEIGHT - 1))
        x, y = np.round(self._cursor).astype(int)
        return int(x), int(y)

    def _turn(self, turn: np.ndarray) -> tuple[int, int]:
        """Where the pointer goes for a turn: the game measures how far it is from the middle, and puts it back."""
        self._cursor = _CENTER.copy()  # where the cursor is when a menu opens
        wanted = (self._turned + turn) / DEGREES_PER_PIXEL
        pixels = np.round(wanted)
        self._turned = (wanted - pixels) * DEGREES_PER_PIXEL
        self._reckon(pixels * DEGREES_PER_PIXEL)
        x, y = (_CENTER + pixels).astype(int)
        return int(x), int(y)

    def _reckon(self, turned: np.ndarray) -> None:
        """Notes by how much the view turns to the right and down."""
        yaw, pitch = self.view
        self._view = (yaw - turned[0], float(np.clip(pitch + turned[1], -_STEEPEST, _STEEPEST)))
        self._resting = 0 if turned.any() else self._resting + 1

    def _pointed_at(self) -> np.ndarray:
        """The cursor, (x, y) int64 on a screen as high as VPT's."""
        return np.round(self._cursor * SCREEN_HEIGHT / HEIGHT).astype(np.int64)

    def _picture(self) -> np.ndarray:
        frame = self.session.frame()
        if self.session.cursor_visible:
            frame = draw_cursors(frame[None], self._pointed_at()[None])[0]
        if self.frame_size != (HEIGHT, WIDTH):
            height, width = self.frame_size
            frame = np.array(Image.fromarray(frame).resize((width, height), Image.Resampling.BOX))
        return frame


def _safe(names: set[str], in_menu: bool) -> set[str]:
    """Without ESC where it would open the game's own menu, whose buttons leave the game."""
    return names if in_menu and "inventory" not in names else names - {"ESC"}
