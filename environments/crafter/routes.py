"""Ways through the world: cheapest paths that may cut trees, dig rock and bridge water, and the next action on them."""

import heapq
from collections.abc import Iterable
from math import inf

import numpy as np
from crafter import constants

from reverie.environments.crafter.situation import CREATURES, DIRECTIONS, Cell, Situation, distance, shifted

WALK, CUT, DIG, BRIDGE, FIGHT = 1.0, 3.0, 2.2, 4.0, 6.0
LAVA_FEAR = 3.0
"""What stepping beside lava costs on top: one wrong step there is the end."""


def route(now: Situation, targets: Iterable[Cell]) -> tuple[list[Cell], float]:
    """The cheapest way to the nearest target, as cells from the first step on, and its cost; ([], inf) without one.

    Targets may be solid. The player's own cell is no target.
    """
    wanted = set(targets) - {now.cell}
    if not wanted:
        return [], inf
    costs = entry_costs(now)
    best, previous = {now.cell: 0.0}, dict[Cell, Cell]()
    queue, done = [(0.0, now.cell)], set[Cell]()
    while queue:
        spent, cell = heapq.heappop(queue)
        if cell in wanted:
            return _trace(previous, now.cell, cell), spent
        if cell in done or (costs[cell] == inf and cell != now.cell):
            continue
        done.add(cell)
        for after in now.neighbours(cell):
            price = WALK if after in wanted and costs.get(after) == inf else costs.get(after, inf)
            if spent + price < best.get(after, inf):
                best[after], previous[after] = spent + price, cell
                heapq.heappush(queue, (spent + price, after))
    return [], inf


def entry_costs(now: Situation) -> dict[Cell, float]:
    """What moving into each cell of the map costs, in steps; inf where the player cannot go."""
    by_material = np.full(max(now.ids.values()) + 1, inf)
    for material, cost in _material_costs(now.inventory).items():
        by_material[now.ids[material]] = cost
    costs = by_material[now.materials] + LAVA_FEAR * _beside_lava(now)
    for cell, thing in now.things.items():
        costs[cell] = FIGHT if isinstance(thing, CREATURES) else inf
    width, height = costs.shape
    rows = costs.tolist()
    return {(x, y): rows[x][y] for x in range(width) for y in range(height)}


def follow(now: Situation, path: list[Cell]) -> str:
    """The next action on the way along `path`: step, turn, dig, cut, fight or bridge."""
    cell = path[0]
    direction = (cell[0] - now.cell[0], cell[1] - now.cell[1])
    material = now.material(cell)
    if cell in now.things:
        return face_and(now, direction, "do")
    if material in constants.walkable:
        return DIRECTIONS[direction]
    if material == "lava":
        return "noop"
    return face_and(now, direction, "place_stone" if material == "water" and len(path) > 1 else "do")


def face_and(now: Situation, direction: Cell, action: str) -> str:
    """`action` if the player looks in `direction` at something solid, else the move that only turns it there."""
    return action if now.facing == direction else DIRECTIONS[direction]


def go_and_do(now: Situation, targets: Iterable[Cell]) -> str | None:
    """Towards the nearest target, and then act on it; None when none can be reached."""
    path, _ = route(now, targets)
    return follow(now, path) if path else None


def go_and_stand(now: Situation, targets: Iterable[Cell]) -> str | None:
    """Onto the nearest target, and then wait; None when none can be reached."""
    wanted = set(targets)
    return "noop" if now.cell in wanted else go_and_do(now, wanted)


def within(now: Situation, targets: Iterable[Cell], cost: float) -> str | None:
    """`go_and_do` if it takes less than `cost`, as the crow flies first, which is cheap to know."""
    close = [cell for cell in targets if distance(now.cell, cell) < cost]
    path, spent = route(now, close)
    return follow(now, path) if spent < cost else None


def step_aside(now: Situation) -> str | None:
    """Any step onto a free cell."""
    return next((move for d, move in DIRECTIONS.items() if now.free(shifted(now.cell, d))), None)


def _material_costs(inventory: dict[str, int]) -> dict[str, float]:
    costs = {**dict.fromkeys(constants.walkable, WALK), "tree": CUT}
    if inventory["wood_pickaxe"]:
        costs |= {"stone": DIG, "coal": DIG}
    if inventory["stone_pickaxe"]:
        costs["iron"] = DIG
    if inventory["stone"] > 1:
        costs["water"] = BRIDGE
    return costs


def _beside_lava(now: Situation) -> np.ndarray:
    lava = np.pad(now.materials == now.ids["lava"], 1)
    return lava[:-2, 1:-1] | lava[2:, 1:-1] | lava[1:-1, :-2] | lava[1:-1, 2:]


def _trace(previous: dict[Cell, Cell], start: Cell, cell: Cell) -> list[Cell]:
    path = [cell]
    while previous[path[-1]] != start:
        path.append(previous[path[-1]])
    return path[::-1]
