"""The player's eyes and hands: scripts of single actions that look around, turn, dig, walk and click.

A script is a generator of actions; when it goes on, the game has played the action before.
"""

from collections.abc import Generator
from math import atan2, degrees, hypot

import numpy as np

from reverie.data.sources.vpt.minecraft import KEYS, encode_camera
from reverie.data.sources.vpt.recordings import DEGREES_PER_PIXEL, SCREEN_HEIGHT
from reverie.environments.luanti.game import LuantiGame
from reverie.environments.luanti.player.routes import Move
from reverie.environments.luanti.player.terrain import EYE_HEIGHT, OPEN, Cell, Terrain, cell_of
from reverie.environments.luanti.session import HEIGHT

Action = dict[str, np.ndarray]
Script = Generator[Action, None, bool]
"""Returns whether it has reached what it was for."""
FAR, NEAR = (22, 14, 22), (5, 5, 5)
"""How far the player looks around before it plans, and while it works."""
LONGEST_DIG, LONGEST_MOVE = 160, 45
_AIMED, _FACING = 3.0, 25.0
_STILL = 1.0
"""Degrees off at which the view rests: the smallest turn is 0.6, so that aiming better would shake it for ever."""
_CENTERED = 0.3
_CURSOR_DEGREES = DEGREES_PER_PIXEL * SCREEN_HEIGHT / HEIGHT
_LEVEL = 12.0
"""Degrees below the horizon at which the player looks while it walks."""


def act(*names: str, yaw: float = 0.0, pitch: float = 0.0) -> Action:
    """The action that holds these keys and turns by these degrees, to the right and down."""
    keys = np.zeros(len(KEYS), np.bool_)
    keys[[KEYS.index(name) for name in names]] = True
    return {"keys": keys, "mouse": np.asarray(encode_camera(np.array([pitch, yaw])), np.int64)}


class Body:
    """What one player can do in `game`, what it last saw, and where its furnace stands."""

    def __init__(self, game: LuantiGame) -> None:
        self.game = game
        self.terrain: Terrain | None = None
        self.furnace: Cell | None = None

    @property
    def cell(self) -> Cell:
        """Where the feet are."""
        return cell_of(self.game.state.position)

    def count(self, *items: str) -> int:
        """How many of these items are carried. Names without a mod's prefix; `*` at the front stands for anything."""
        return sum(number for item, number in self.game.state.inventory if matches(item, items))

    def slot(self, *items: str) -> int | None:
        """The first slot that holds one of these, from 0."""
        for index, (item, number) in enumerate(self.game.state.inventory):
            if number and matches(item, items):
                return index
        return None

    @property
    def pickaxe(self) -> str:
        """The material of the best pickaxe carried, "" without any."""
        return next(
            (material for material in ("steel", "stone", "wood") if self.count(f"pick_{material}")), ""
        )

    def wait(self, steps: int) -> Script:
        """Does nothing."""
        for _ in range(steps):
            yield act()
        return True

    def look(self, reach: tuple[int, int, int] = FAR) -> Script:
        """Looks around; afterwards `terrain` is up to date."""
        self.game.look(reach)
        yield act()
        self._see()
        return True

    def open_at(self, cell: Cell) -> bool:
        """Whether nothing solid is there, as last seen."""
        return self.terrain is not None and self.terrain.at(cell) in OPEN + "W"

    def dig(self, cell: Cell) -> Script:
        """Aims at a node and hits what is before and in it until it is gone."""
        for _ in range(LONGEST_DIG):
            if self.open_at(cell):
                return True
            yaw, pitch = self._towards(cell)
            is_aimed = max(abs(yaw), abs(pitch)) < _AIMED
            if max(abs(yaw), abs(pitch)) < _STILL:
                yaw = pitch = 0.0
            self.game.look(NEAR)
            yield act(*(["attack"] if is_aimed else []), yaw=yaw, pitch=pitch)
            self._see()
        return False

    def move(self, move: Move) -> Script:
        """Digs and goes one step of a way."""
        for cell in move.clear:
            if not self.open_at(cell) and not (yield from self.dig(cell)):
                return False
        for number in range(LONGEST_MOVE):
            x, _, z = self.game.state.position
            across = hypot(move.to[0] - x, move.to[2] - z)
            if self.cell == move.to and across < _CENTERED:
                return True
            yaw = 0.0 if across < 0.1 else self._turn_to(move.to[0] - x, move.to[2] - z)
            keys = []
            # Slowly to the middle, from where one falls into a hole; a sneaking player would stop at its edge.
            if abs(yaw) < _FACING and across >= 0.1 and (across > 0.4 or number % 2):
                keys.append("forward")
            if move.to[1] > self.cell[1] or self._in_water():
                keys.append("jump")
            yield act(*keys, yaw=yaw, pitch=np.clip(_LEVEL - self.game.view[1], -5, 5))
        return False

    def face(self, cell: Cell) -> Script:
        """Turns to a cell."""
        for _ in range(60):
            yaw, pitch = self._towards(cell)
            if max(abs(yaw), abs(pitch)) < _AIMED:
                return True
            yield act(yaw=yaw, pitch=pitch)
        return False

    def wield(self, slot: int) -> Script:
        """Takes the item of a slot of the hotbar, from 0, into the hand."""
        if self.game.state.slot != slot + 1:
            yield act(f"hotbar.{slot + 1}")
            yield act()
        return True

    def open_inventory(self) -> Script:
        """Opens the inventory."""
        for _ in range(5):
            if self.game.cursor is not None:
                return True
            yield act("inventory")
            yield act()
        return False

    def close_menu(self) -> Script:
        """Closes whatever is open."""
        for _ in range(5):
            if self.game.cursor is None:
                return True
            yield act("ESC")
            yield act()
        return False

    def click(self, place: tuple[int, int], button: str = "attack", *held: str) -> Script:
        """Moves the cursor to a pixel of the screen and presses a button there once."""
        for _ in range(40):
            if self.game.cursor is None:
                return False
            way = (np.array(place) - self.game.cursor) * _CURSOR_DEGREES
            if np.abs(way).max() < 2.5 * _CURSOR_DEGREES:
                break
            yield act(yaw=float(way[0]), pitch=float(way[1]))
        yield act(*held)
        yield act(button, *held)
        yield act(*held)
        yield act()
        return True

    def _see(self) -> None:
        if self.game.seen is None or "nodes" not in self.game.seen:
            return
        seen = Terrain(self.game.seen)
        if self.terrain is None or seen.letters.size >= self.terrain.letters.size:
            self.terrain = seen
        else:
            self.terrain.update(seen)

    def _in_water(self) -> bool:
        x, y, z = self.cell
        return self.terrain is not None and "W" in (
            self.terrain.at((x, y, z)),
            self.terrain.at((x, y - 1, z)),
        )

    def _turn_to(self, east: float, north: float) -> float:
        """Degrees to turn right to look this way."""
        wanted = degrees(atan2(-east, north))  # counterclockwise from north
        return -((wanted - self.game.view[0] + 180) % 360 - 180)

    def _towards(self, cell: Cell) -> tuple[float, float]:
        """Degrees to turn right and down to look at the middle of a cell."""
        x, y, z = self.game.state.position
        east, up, north = cell[0] - x, cell[1] - (y + EYE_HEIGHT), cell[2] - z
        across = hypot(east, north)
        pitch = degrees(atan2(-up, across)) - self.game.view[1]
        return (self._turn_to(east, north) if across > 0.15 else 0.0), float(np.clip(pitch, -90, 90))


def matches(item: str, names: tuple[str, ...]) -> bool:
    """Whether an item such as `default:pine_wood` is one of `names`, such as `stick` or `*wood`."""
    plain = item.rpartition(":")[2]
    return any(plain.endswith(name[1:]) if name.startswith("*") else plain == name for name in names)
