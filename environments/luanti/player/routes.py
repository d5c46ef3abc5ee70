"""Ways through the world: walking, jumping up, dropping down, and digging what is in the way, by what each costs in steps."""

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf, sqrt

from reverie.environments.luanti.player.terrain import OPEN, Cell, Terrain

WALK, JUMP, DROP, SWIM = 5.0, 9.0, 4.0, 12.0
HAND: Mapping[str, float] = {"L": 12, "E": 20, "G": 45, "T": 80}
"""Letter -> steps that digging takes with bare hands."""
DIG: Mapping[str, Mapping[str, float]] = {
    "": HAND,
    "wood": {**HAND, "S": 42, "C": 42},
    "stone": {**HAND, "S": 28, "C": 28, "H": 60, "I": 60},
    "steel": {**HAND, "S": 22, "C": 22, "H": 30, "I": 30, "D": 70},
}
"""Material of the pickaxe -> letter -> steps."""
DEEPEST_DROP = 3
WET = 40.0
"""What digging beside water costs on top."""
REACH = 3.4
"""How far from the eye a node may be to be dug."""
_EXPANSIONS = 6_000
_HEURISTIC = 4.0


@dataclass(frozen=True)
class Move:
    """One step of a way: to the cell `to`, after digging what is in `clear`, from top to bottom."""

    to: Cell
    clear: tuple[Cell, ...]


class Map:
    """A terrain as a graph of cells in which the player's feet can be, with a certain pickaxe."""

    def __init__(self, terrain: Terrain, pickaxe: str) -> None:
        self.terrain, self.letters = terrain, terrain.walled()
        self._up, self._layer = terrain.strides[1], terrain.strides[2]
        self._costs = {**dict.fromkeys(OPEN, 0.0), "W": SWIM, **DIG[pickaxe]}

    def moves(self, i: int) -> Iterator[tuple[int, float, tuple[int, ...]]]:
        """From index i: index reached, cost, and what has to be open for that, from top to bottom."""
        up = self._up
        for step in (1, -1, self._layer, -self._layer):
            n = i + step
            yield from self._priced(n, WALK, (n + up, n), self._holds(n - up) or self._is_water(n))
            yield from self._priced(n + up, JUMP, (i + 2 * up, n + 2 * up, n + up), self._holds(n))
            yield from self._priced(
                n - up, WALK + DROP, (n + up, n, n - up), self._holds(n - 2 * up) or self._is_water(n - up)
            )
            yield from self._drop(n)
        yield from self._priced(i - up, DROP, (i - up,), self._holds(i - 2 * up))

    def is_dug_out(self, i: int) -> bool:
        """Whether one can stand at index i as it is."""
        return self.letters[i] in OPEN and self.letters[i + self._up] in OPEN

    def clearing(self, i: int) -> float:
        """Steps that opening the cell at index i takes."""
        cost = self._costs.get(self.letters[i], inf)
        if cost in (0.0, SWIM) or cost == inf:
            return cost
        around = [self.letters[i + step] for step in (1, -1, self._layer, -self._layer, self._up)]
        if "X" in around:
            return inf
        return cost + (WET if "W" in around else 0.0) + (HAND["G"] if around[-1] == "G" else 0.0)

    def _priced(
        self, to: int, cost: float, open_: tuple[int, ...], holds: bool
    ) -> Iterator[tuple[int, float, tuple[int, ...]]]:
        if holds:
            total = cost + sum(self.clearing(n) for n in open_)
            if total < inf:
                yield to, total, open_

    def _drop(self, n: int) -> Iterator[tuple[int, float, tuple[int, ...]]]:
        """Over an edge and down through air."""
        for deep in range(2, DEEPEST_DROP + 1):
            if self.letters[n - (deep - 1) * self._up] not in OPEN:
                return
            to = n - deep * self._up
            if self.letters[to] in OPEN and self._holds(to - self._up):
                yield from self._priced(to, WALK + DROP * deep, (n + self._up, n), True)
                return

    def _holds(self, i: int) -> bool:
        return i >= 0 and self.letters[i] not in " .?WX"

    def _is_water(self, i: int) -> bool:
        return self.letters[i] == "W"


def route(ways: Map, start: Cell, targets: Sequence[Cell]) -> tuple[list[Move], bool]:
    """The cheapest way to where one of a few targets is seen within reach, and True; else the way that comes closest."""
    terrain = ways.terrain
    if not terrain.contains(start, 2):
        return [], False
    first = terrain.index(start)
    best, came = {first: 0.0}, dict[int, tuple[int, tuple[int, ...]]]()
    queue, done = [(_hope(start, targets), first)], set[int]()
    closest = (_hope(start, targets), first)
    for _ in range(_EXPANSIONS):
        if not queue:
            break
        _, i = heapq.heappop(queue)
        if i in done:
            continue
        done.add(i)
        cell = terrain.cell(i)
        hope = _hope(cell, targets)
        closest = min(closest, (hope, i))
        if hope <= _HEURISTIC * 6 and any(in_reach(terrain, cell, target) for target in targets):
            return _trace(terrain, came, first, i), True
        if not terrain.contains(cell, 4):
            continue
        for to, cost, open_ in ways.moves(i):
            spent = best[i] + cost
            if spent < best.get(to, inf):
                best[to], came[to] = spent, (i, open_)
                heapq.heappush(queue, (spent + _hope(terrain.cell(to), targets), to))
    return _trace(terrain, came, first, closest[1]), False


def _hope(cell: Cell, targets: Sequence[Cell]) -> float:
    """At least what reaching the nearest target costs."""
    return _HEURISTIC * min(sum(abs(a - b) for a, b in zip(cell, target)) for target in targets)


def in_reach(terrain: Terrain, cell: Cell, target: Cell) -> bool:
    """Whether a player at `cell` has the target in reach, with nothing but plants and leaves before it."""
    eye = (cell[0], cell[1] + 0.97, cell[2])
    way = [b - a for a, b in zip(eye, target)]
    distance = sqrt(sum(part * part for part in way))
    if distance > REACH:
        return False
    steps = int(distance / 0.2)
    for number in range(1, steps):
        x, y, z = (a + part * number / steps for a, part in zip(eye, way))
        between = (round(x), round(y), round(z))
        if between != target and between != cell and terrain.at(between) not in " .L":
            return False
    return True


def _trace(
    terrain: Terrain, came: dict[int, tuple[int, tuple[int, ...]]], first: int, last: int
) -> list[Move]:
    moves: list[Move] = []
    while last != first:
        last, open_, to = *came[last], last
        moves.append(Move(terrain.cell(to), tuple(terrain.cell(i) for i in open_)))
    return moves[::-1]
