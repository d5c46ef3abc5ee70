"""A scripted player for Luanti that climbs from the first log to tools of stone and on to iron and diamonds.

It plans from what it carries and sees, so that it can begin anew at any moment: after a slip it just thinks again.
"""

from collections.abc import Iterator

from reverie.environments.luanti.game import LuantiGame
from reverie.environments.luanti.player.body import Action, Body, Script, act
from reverie.environments.luanti.player.crafting import COBBLE, HOTBAR, LOGS, PLANKS, craft, to_hotbar
from reverie.environments.luanti.player.furnace import place_furnace, smelt
from reverie.environments.luanti.player.routes import Map, in_reach, route
from reverie.environments.luanti.player.terrain import Cell, nearest

LOG_STOCK, PLANK_STOCK, COBBLE_STOCK, COAL_STOCK, IRON_STOCK = 4, 9, 12, 2, 3
CHOICES = 6
"""Targets that a way is searched to at once."""
DEPTHS = {"S": -20, "C": -8, "I": -12, "D": -100}
"""Letter of an ore -> the height at which it is looked for by digging, where none is in sight."""
HEADINGS = ((1, 0), (0, 1), (-1, 0), (0, -1))
PATIENCE = 12
"""Moves after which the player looks around again."""
MOST_FAILURES = 3
"""Moves that may fail before other targets are tried."""


class Expert:
    """Plays one episode of `game`."""

    def __init__(self, game: LuantiGame) -> None:
        self.body = Body(game)
        self._given_up: set[Cell] = set()
        self._failures = 0
        self._heading = 0
        self._script = self._play()

    def act(self) -> Action:
        """The next action."""
        return next(self._script)

    def disturbed(self) -> None:
        """Thinks again from the start: the player no longer stands where it was meant to."""
        self._script = self._play()

    def _play(self) -> Iterator[Action]:
        while True:
            yield from self.body.close_menu()
            if not (yield from self._next_goal()):
                yield from self._step_aside()

    def _next_goal(self) -> Script:
        """Works on the first thing that is missing."""
        body = self.body
        if not body.pickaxe:
            return (yield from self._wooden_pickaxe())
        if not (yield from self._wield_pickaxe()):
            return False
        if body.pickaxe == "wood":
            if body.count("stick") < 2:
                return (yield from self._sticks())
            if body.count(*COBBLE) < 3:
                return (yield from self._mine("S"))
            return (yield from craft(body, "pick_stone"))
        if body.pickaxe == "stone":
            return (yield from self._steel_pickaxe())
        return (yield from self._mine("D"))

    def _wooden_pickaxe(self) -> Script:
        body = self.body
        wood = body.count(*PLANKS) + 4 * body.count(*LOGS)
        needed = 3 if body.count("stick") > 1 else 4
        if wood < (needed if body.count(*PLANKS) else 4 * LOG_STOCK):
            return (yield from self._mine("T"))
        if body.count(*PLANKS) < PLANK_STOCK and body.count(*LOGS):
            return (yield from craft(body, "planks"))
        if body.count("stick") < 2:
            return (yield from craft(body, "stick"))
        return (yield from craft(body, "pick_wood"))

    def _sticks(self) -> Script:
        body = self.body
        if body.count(*PLANKS):
            return (yield from craft(body, "stick"))
        if body.count(*LOGS):
            return (yield from craft(body, "planks"))
        return (yield from self._mine("T"))

    def _steel_pickaxe(self) -> Script:
        body = self.body
        if body.count("steel_ingot") >= IRON_STOCK:
            if body.count("stick") < 2:
                return (yield from self._sticks())
            return (yield from craft(body, "pick_steel"))
        if body.furnace is not None:
            return (yield from smelt(body, IRON_STOCK - body.count("steel_ingot")))
        if body.count("coal_lump") < COAL_STOCK and not body.count("iron_lump"):
            return (yield from self._mine("C"))
        if body.count("iron_lump") + body.count("steel_ingot") < IRON_STOCK:
            return (yield from self._mine("I"))
        if body.count(*COBBLE) < COBBLE_STOCK and not body.count("furnace"):
            return (yield from self._mine("S"))
        if not body.count("furnace") and not (yield from craft(body, "furnace")):
            return False
        return (yield from place_furnace(body))

    def _wield_pickaxe(self) -> Script:
        slot = self.body.slot(f"pick_{self.body.pickaxe}")
        assert slot is not None
        if slot >= HOTBAR:
            return (yield from to_hotbar(self.body, slot, 0))
        return (yield from self.body.wield(slot))

    def _mine(self, letter: str) -> Script:
        """Goes to the nearest node of a kind and digs it, and those of its kind that are in reach then."""
        body = self.body
        yield from body.look()
        assert body.terrain is not None
        known = [cell for cell in body.terrain.all(letter) if cell not in self._given_up]
        targets = nearest(known, body.cell, CHOICES)
        if not targets:
            return (yield from self._search(letter))
        if not (yield from self._go(targets)):
            return False
        for target in targets:
            if in_reach(body.terrain, body.cell, target) and not (yield from body.dig(target)):
                self._given_up.add(target)
                return False
        return True

    def _go(self, targets: list[Cell]) -> Script:
        """A stretch of the way to the first of a few targets; True once it is in reach."""
        body = self.body
        assert body.terrain is not None
        way, arrives = route(Map(body.terrain, body.pickaxe), body.cell, targets)
        if not way and not arrives:
            self._given_up.update(targets)
            return False
        for move in way[:PATIENCE]:
            if not (yield from body.move(move)):
                self._failures += 1
                if self._failures > MOST_FAILURES:
                    self._failures = 0
                    self._given_up.update(targets)
                return False
        if not arrives and len(way) <= PATIENCE:
            self._given_up.update(targets)
        return arrives and len(way) <= PATIENCE

    def _search(self, letter: str) -> Script:
        """Towards where such things are: down to their depth, and then straight on."""
        body = self.body
        x, y, z = body.cell
        east, north = HEADINGS[self._heading % len(HEADINGS)]
        down = min(max(y - DEPTHS[letter], 0), 8) if letter in DEPTHS else 0
        length = 10 if down else 14
        before = body.cell
        yield from self._go([(x + east * length, y - down, z + north * length)])
        if max(abs(a - b) for a, b in zip(before, body.cell)) < 3:
            self._heading += 1
        return True

    def _step_aside(self) -> Script:
        """Shakes itself loose: a turn, a hop."""
        self._heading += 1
        turn = 8.0 if self._heading % 2 else -8.0
        for number in range(10):
            yield act("forward", "jump", yaw=turn if number < 6 else 0.0)
        return True
