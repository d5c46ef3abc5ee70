"""Gathering materials, placing a table and a furnace, and making tools."""

from collections import Counter
from math import inf

from crafter import constants

from reverie.environments.crafter.routes import entry_costs, face_and, follow, go_and_do, route, step_aside
from reverie.environments.crafter.situation import DIRECTIONS, Cell, Situation, shifted

SOURCES = {"wood": "tree", "stone": "stone", "coal": "coal", "iron": "iron", "diamond": "diamond"}
STATION_COST = 18.0
"""A table or furnace further away than this many steps is not worth the way: a new one is placed."""


def needs(*names: str) -> Counter[str]:
    """What making or placing these takes, together."""
    total: Counter[str] = Counter()
    for name in names:
        total.update((constants.make.get(name) or constants.place[name])["uses"])
    return total


def gather(now: Situation, item: str) -> str | None:
    """Towards the nearest source of `item`, and collect it."""
    return go_and_do(now, now.cells(SOURCES[item]))


def place(now: Situation, what: str) -> str:
    """Puts a table or furnace onto the faced cell, or turns and makes room until that is possible."""
    if now.free(now.ahead) and now.material(now.ahead) in constants.place[what]["where"]:
        return f"place_{what}"
    return _turn_to_room(now) or _dig_room(now) or step_aside(now) or "noop"


def make(now: Situation, tool: str) -> str | None:
    """The next action towards a tool: gather what is missing, reach or place the stations, make it."""
    stations = constants.make[tool]["nearby"]
    missing = now.lacking(needs(tool))
    if now.beside(*stations):
        return gather(now, missing[0]) if missing else f"make_{tool}"
    path, cost = route(now, _workplaces(now, stations))
    if cost < STATION_COST and not missing:
        return follow(now, path)
    absent = [station for station in stations if not now.beside(station)]
    missing_for_all = now.lacking(needs(tool, *absent))
    if path and "furnace" in stations and not missing and missing_for_all:
        return follow(now, path)
    if missing_for_all:
        return gather(now, missing_for_all[0])
    return place(now, absent[0])


def _workplaces(now: Situation, stations: list[str]) -> list[Cell]:
    """Cells the player can stand on with all stations within one cell."""
    around = [_around(now.cells(station)) for station in stations]
    shared = set.intersection(*around) if around else set()
    costs = entry_costs(now)
    return [cell for cell in shared if costs.get(cell, inf) < inf]


def _around(cells: list[Cell]) -> set[Cell]:
    return {(x + i, y + j) for x, y in cells for i in (-1, 0, 1) for j in (-1, 0, 1)}


def _turn_to_room(now: Situation) -> str | None:
    """A step after which the player faces a free cell: two free cells in a row, away from lava."""
    for direction, move in DIRECTIONS.items():
        if now.free(shifted(now.cell, direction)) and now.free(shifted(now.cell, direction, 2)):
            return move
    return None


def _dig_room(now: Situation) -> str | None:
    for direction in DIRECTIONS:
        material = now.material(shifted(now.cell, direction))
        if material == "tree" or (material in ("stone", "coal") and now.inventory["wood_pickaxe"]):
            return face_and(now, direction, "do")
    return None
