"""A scripted Crafter player: survive first, then climb the tech tree to the diamond, then what is left.

It sees the whole map and acts only through the game's 17 actions. Every behaviour either names an action or
passes.
"""

from collections.abc import Callable, Iterator

from crafter import constants, objects

from reverie.environments.crafter import farming, survival
from reverie.environments.crafter.crafting import gather, make, needs, place
from reverie.environments.crafter.game import CrafterGame
from reverie.environments.crafter.memory import Memory
from reverie.environments.crafter.routes import go_and_do, within
from reverie.environments.crafter.situation import Situation

Behaviour = Callable[[Situation, Memory], str | None]
ACTIONS = {name: number for number, name in enumerate(constants.actions)}
WOOD_STOCK, STONE_STOCK = 6, 9
"""Wood and stone carried before the first stone tools are made: enough for all tools and a second table."""


class Expert:
    """Plays one episode of `game`."""

    def __init__(self, game: CrafterGame) -> None:
        self.game = game
        self.memory = Memory()

    def act(self) -> int:
        """The number of the next action."""
        self.memory.step += 1
        return ACTIONS[choose(Situation(self.game.inner), self.memory)]

    def disturbed(self) -> None:
        """Drops the script: the player no longer stands where it was meant to."""
        self.memory.script.clear()


def choose(now: Situation, memory: Memory) -> str:
    """The first action that a behaviour names."""
    urgent = "noop" if now.sleeping else survival.fight(now)
    if urgent:
        memory.script.clear()
        return urgent
    if memory.script:
        return memory.script.popleft()
    for behaviour in BEHAVIOURS:
        action = behaviour(now, memory)
        if action:
            return action
    return "noop"


def _first_tools(now: Situation, memory: Memory) -> str | None:
    """A table, and tools of wood."""
    if "place_table" not in now.achieved:
        enough = needs("table", "wood_pickaxe", "wood_sword")
        return gather(now, "wood") if now.lacking(enough) else place(now, "table")
    return _make_missing(now, "wood_pickaxe", "wood_sword")


def _passing_by(now: Situation, memory: Memory) -> str | None:
    """Drinks and eats early when water or a cow is near."""
    action = None
    if "collect_drink" not in now.achieved:
        action = within(now, now.cells("water"), 12)
    if not action and "eat_cow" not in now.achieved:
        action = within(now, now.where(objects.Cow), 10)
    return action


def _stone_tools(now: Situation, memory: Memory) -> str | None:
    if "make_stone_pickaxe" not in now.achieved:
        for item, stock in (("wood", WOOD_STOCK), ("stone", STONE_STOCK)):
            if now.inventory[item] < stock:
                return gather(now, item)
    return _make_missing(now, "stone_pickaxe", "stone_sword")


def _place_stone(now: Situation, memory: Memory) -> str | None:
    wanted = "place_stone" not in now.achieved and now.inventory["stone"] > 0
    return "place_stone" if wanted and now.free(now.ahead) else None


def _iron_pickaxe(now: Situation, memory: Memory) -> str | None:
    return _make_of_iron(now, "iron_pickaxe")


def _diamond(now: Situation, memory: Memory) -> str | None:
    ready = now.inventory["iron_pickaxe"] > 0 and "collect_diamond" not in now.achieved
    return gather(now, "diamond") if ready else None


def _iron_sword(now: Situation, memory: Memory) -> str | None:
    return _make_of_iron(now, "iron_sword")


def _what_is_left(now: Situation, memory: Memory) -> str | None:
    hunts = {"eat_cow": objects.Cow, "defeat_zombie": objects.Zombie, "defeat_skeleton": objects.Skeleton}
    for achievement, kind in hunts.items():
        if achievement not in now.achieved:
            action = go_and_do(now, now.where(kind))
            if action:
                return action
    return go_and_do(now, now.cells("water")) if "collect_drink" not in now.achieved else None


def _make_missing(now: Situation, *tools: str) -> str | None:
    actions: Iterator[str | None] = (make(now, tool) for tool in tools if f"make_{tool}" not in now.achieved)
    return next((action for action in actions if action), None)


def _make_of_iron(now: Situation, tool: str) -> str | None:
    if f"make_{tool}" in now.achieved:
        return None
    for item in now.lacking(needs(tool)):
        if item != "wood":
            return gather(now, item)
    return make(now, tool)


BEHAVIOURS: tuple[Behaviour, ...] = (
    lambda now, memory: survival.rest_when_safe(now),
    survival.wait_inside,
    survival.flee,
    lambda now, memory: survival.shut_out(now),
    survival.drink,
    survival.eat,
    survival.sleep,
    survival.hide_by_night,
    farming.eat_plant,
    _first_tools,
    _passing_by,
    farming.find_sapling,
    _stone_tools,
    _place_stone,
    farming.plant_sapling,
    farming.guard_plant,
    _iron_pickaxe,
    _diamond,
    _iron_sword,
    _what_is_left,
    farming.wait_for_plant,
)
"""What the player wants, most urgent first."""
