"""Staying alive: monsters, thirst, hunger, and sleep in a hole that nothing can enter."""

from crafter import objects

from reverie.environments.crafter.memory import Memory
from reverie.environments.crafter.routes import face_and, go_and_do, go_and_stand
from reverie.environments.crafter.situation import DIRECTIONS, MONSTERS, Cell, Situation, distance, shifted

SIEGE = 3
"""Monsters within this distance of a hole would be met on leaving it."""
NIGHT_FLIGHT, DAY_FLIGHT = 6, 4
"""Health at which the player hides: each zombie that comes near costs two or more."""
OPPOSITE = {direction: (-direction[0], -direction[1]) for direction in DIRECTIONS}


def fight(now: Situation) -> str | None:
    """Strikes a monster that stands beside the player."""
    for direction in DIRECTIONS:
        if isinstance(now.things.get(shifted(now.cell, direction)), MONSTERS):
            return face_and(now, direction, "do")
    return None


def shut_out(now: Situation) -> str | None:
    """When weak, puts a stone before a zombie that is two cells ahead."""
    comes = isinstance(now.things.get(shifted(now.cell, now.facing, 2)), objects.Zombie)
    weak = now.inventory["health"] <= 5 and now.inventory["stone"] > 0
    return "place_stone" if comes and weak and now.free(now.ahead) else None


def rest_when_safe(now: Situation) -> str | None:
    """Inside a closed hole: sleeps, or waits for health to come back."""
    hurt = now.inventory["health"] <= 6 or now.inventory["energy"] <= 3
    if not hurt or not fed(now) or not _enclosed(now):
        return None
    return "sleep" if now.inventory["energy"] < 9 else "noop"


def wait_inside(now: Situation, memory: Memory) -> str | None:
    """Stays in the hole it has dug until morning, or while monsters stand around it, if food and drink last."""
    lasting = now.inventory["food"] > 1 and now.inventory["drink"] > 1
    besieged = any(distance(now.cell, monster) <= SIEGE for monster in now.where(*MONSTERS))
    memory.hiding = memory.hiding and lasting and (now.dark or besieged) and _enclosed(now)
    if not memory.hiding:
        return None
    return "sleep" if now.inventory["energy"] < 9 else "noop"


def flee(now: Situation, memory: Memory) -> str | None:
    """Weak, and by night among zombies even sooner: into a hole. Not before thirst is gone when water is at hand."""
    outside = now.material(now.cell) in ("grass", "sand")
    limit = NIGHT_FLIGHT if now.dark and outside else DAY_FLIGHT
    drinking = memory.thirsty and now.material(now.ahead) == "water"
    if drinking or now.inventory["health"] > limit or not (fed(now) and can_dig(now)):
        return None
    return dig_in(now, memory)


def hide_by_night(now: Situation, memory: Memory) -> str | None:
    """Leaves the grass to the zombies until morning."""
    outside = now.material(now.cell) in ("grass", "sand")
    return dig_in(now, memory) if now.dark and outside and can_dig(now) and fed(now) else None


def drink(now: Situation, memory: Memory) -> str | None:
    """To the water when thirsty, and there until thirst is gone."""
    memory.thirsty = now.inventory["drink"] <= (7 if memory.thirsty else 6 if now.evening else 4)
    return go_and_do(now, now.cells("water")) if memory.thirsty else None


def eat(now: Situation, memory: Memory) -> str | None:
    """A ripe plant of one's own, or the nearest cow."""
    memory.hungry = now.inventory["food"] <= (5 if memory.hungry or now.evening else 4)
    if not memory.hungry:
        return None
    if memory.plant is not None and ripe(now, memory.plant):
        return go_and_do(now, [memory.plant])
    return go_and_do(now, now.where(objects.Cow))


def sleep(now: Situation, memory: Memory) -> str | None:
    """Digs in when tired; and once, early, for the achievement of waking up. In the open only when exhausted."""
    energy = now.inventory["energy"]
    curious = energy < 9 and "wake_up" not in now.achieved and (now.dark or "collect_diamond" in now.achieved)
    action = None
    if can_dig(now) and (energy <= 3 or curious):
        action = dig_in(now, memory)
    elif now.inventory["wood_pickaxe"] and energy <= 3:
        action = go_and_do(now, now.cells("stone"))
    return action or ("sleep" if energy == 0 else None)


def fed(now: Situation) -> bool:
    """Whether food and drink last through a sleep."""
    return now.inventory["food"] > 2 and now.inventory["drink"] > 2


def can_dig(now: Situation) -> bool:
    """Whether the player can open rock and close it behind itself."""
    return now.inventory["wood_pickaxe"] > 0 and now.inventory["stone"] > 0


def ripe(now: Situation, cell: Cell) -> bool:
    """Whether an edible plant stands there."""
    thing = now.things.get(cell)
    return isinstance(thing, objects.Plant) and thing.ripe


def dig_in(now: Situation, memory: Memory) -> str | None:
    """Goes to the nearest rock that can hold a closed hole of two cells; there, starts the script that digs it."""
    entrances = _hole_entrances(now)
    if now.cell not in entrances:
        return go_and_stand(now, entrances) if entrances else None
    memory.hiding = True
    memory.script.extend(_dig_script(now, entrances[now.cell]))
    return memory.script.popleft()


def _dig_script(now: Situation, inwards: Cell) -> list[str]:
    step = DIRECTIONS[inwards]
    second = [] if now.free(shifted(now.cell, inwards, 2)) else ["do"]
    turn = [] if now.facing == inwards else [step]
    return [*turn, "do", step, *second, step, DIRECTIONS[OPPOSITE[inwards]], "place_stone", "sleep"]


def _hole_entrances(now: Situation) -> dict[Cell, Cell]:
    """Cell to stand on -> direction in which two cells of rock lie with nothing open around them."""
    found: dict[Cell, Cell] = {}
    for rock in now.cells("stone"):
        for inwards in DIRECTIONS:
            entrance = shifted(rock, OPPOSITE[inwards])
            reachable = now.free(entrance) or entrance == now.cell
            if reachable and entrance not in found and _makes_hole(now, rock, inwards):
                found[entrance] = inwards
    return found


def _makes_hole(now: Situation, rock: Cell, inwards: Cell) -> bool:
    inner = shifted(rock, inwards)
    sides = [(inwards[1], inwards[0]), (-inwards[1], -inwards[0])]
    walls = [shifted(cell, side) for cell in (rock, inner) for side in sides] + [shifted(inner, inwards)]
    diggable = now.material(inner) in ("stone", "coal") or now.free(inner)
    return diggable and all(_solid(now, wall) for wall in walls)


def _solid(now: Situation, cell: Cell) -> bool:
    return now.material(cell) not in (None, "lava", "grass", "sand", "path")


def _enclosed(now: Situation) -> bool:
    """Whether every way out of here ends after one cell."""
    return not any(
        now.free(cell) and any(now.free(beyond) for beyond in now.neighbours(cell) if beyond != now.cell)
        for cell in now.neighbours(now.cell)
    )
