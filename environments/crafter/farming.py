"""A sapling: found in grass, planted, fenced with stones against cows and zombies, and eaten when ripe."""

from crafter import objects

from reverie.environments.crafter.crafting import gather
from reverie.environments.crafter.memory import Memory
from reverie.environments.crafter.routes import go_and_do, go_and_stand, step_aside
from reverie.environments.crafter.situation import DIRECTIONS, Cell, Situation, distance, shifted
from reverie.environments.crafter.survival import ripe

PATIENCE = 1500
"""Steps after which plants get their turn even without a diamond."""
MOST_FENCE_STEPS = 400
GROWING_RANGE = 12
"""Plants grow only while the player is near."""


def eat_plant(now: Situation, memory: Memory) -> str | None:
    """To our plant when it is ripe; forgets it when it is gone."""
    if memory.plant is not None and not isinstance(now.things.get(memory.plant), objects.Plant):
        memory.plant = None
    if memory.plant is None or "eat_plant" in now.achieved or not ripe(now, memory.plant):
        return None
    return go_and_do(now, [memory.plant])


def find_sapling(now: Situation, memory: Memory) -> str | None:
    """Searches grass: for the first sapling, or for another to replace a lost one."""
    another = (
        "eat_plant" not in now.achieved
        and memory.plant is None
        and now.inventory["sapling"] == 0
        and now.inventory["stone"] >= 5
        and _has_time(now, memory)
        and not now.dark
    )
    if "collect_sapling" in now.achieved and not another:
        return None
    return "do" if _open_grass(now, now.ahead) else go_and_stand(now, _meadow(now))


def plant_sapling(now: Situation, memory: Memory) -> str | None:
    """Plants for the achievement, or, with stones for a fence, to eat."""
    to_eat = _has_time(now, memory) and memory.plant is None and now.inventory["stone"] >= 4
    for_achievement = "place_plant" not in now.achieved and not now.dark
    if now.inventory["sapling"] == 0 or not (to_eat or for_achievement):
        return None
    if _open_grass(now, now.ahead):
        memory.plant = now.ahead
        return "place_plant"
    return go_and_stand(now, _meadow(now))


def guard_plant(now: Situation, memory: Memory) -> str | None:
    """Closes the open sides of our plant with stones."""
    if memory.plant is None or "eat_plant" in now.achieved or not _has_time(now, memory):
        return None
    gaps = [c for c in now.neighbours(memory.plant) if now.free(c) or c == now.cell]
    if not gaps:
        return None
    if now.inventory["stone"] < len(gaps):
        return gather(now, "stone")
    memory.fence_steps += 1
    return _fence(now, memory.plant) if memory.fence_steps < MOST_FENCE_STEPS else None


def wait_for_plant(now: Situation, memory: Memory) -> str | None:
    """Stays near our plant."""
    if memory.plant is None or "eat_plant" in now.achieved:
        return None
    if distance(now.cell, memory.plant) > GROWING_RANGE:
        return go_and_do(now, [memory.plant])
    return "noop"


def _has_time(now: Situation, memory: Memory) -> bool:
    return "collect_diamond" in now.achieved or memory.step > PATIENCE


def _meadow(now: Situation) -> list[Cell]:
    return [cell for cell in now.cells("grass") if _open_grass(now, cell) and cell != now.cell]


def _open_grass(now: Situation, cell: Cell) -> bool:
    return now.material(cell) == "grass" and cell not in now.things


def _fence(now: Situation, plant: Cell) -> str | None:
    for gap in now.neighbours(plant):
        if gap != now.cell and now.free(gap):
            action = _close(now, plant, gap)
            if action:
                return action
    # The last open side is the one we stand on: leave it, then close it from outside.
    return step_aside(now) if now.cell in now.neighbours(plant) else None


def _close(now: Situation, plant: Cell, gap: Cell) -> str | None:
    """Puts a stone into `gap`: walk up from two cells away, so that the last step faces it."""
    starts: list[Cell] = []
    for direction, move in DIRECTIONS.items():
        before, start = shifted(gap, direction, -1), shifted(gap, direction, -2)
        if now.cell == before and now.facing == direction:
            return "place_stone"
        if plant in (before, start) or not now.free(before):
            continue
        if start == now.cell:
            return move
        if now.free(start):
            starts.append(start)
    return go_and_stand(now, starts) if starts else None
