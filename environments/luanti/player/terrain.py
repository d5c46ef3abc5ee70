"""What the player knows of the world: a box of nodes around it, one letter each, as `mod/surroundings.lua` gives them.

Letters: air is a space, "." what one walks through, T logs, L leaves, E earth, G what falls, S stone, C coal, I iron,
D diamonds, H other hard things, F furnaces, W water, X lava, # anything else solid, ? unknown.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

Cell = tuple[int, int, int]
"""x east, y up, z north."""
OPEN = " ."
"""Letters one can walk through."""
EYE_HEIGHT = 1.47


def cell_of(position: tuple[float, float, float]) -> Cell:
    """The cell in which the feet of a player at `position` are."""
    x, y, z = position
    return round(x), round(y + 0.45), round(z)


class Terrain:
    """A box of nodes. `low` is its lowest corner, `letters` (z, y, x) one byte each; its outermost nodes count as unknown."""

    def __init__(self, seen: Mapping[str, Any]) -> None:
        x, y, z = (int(value) for value in seen["low"])
        self.low: Cell = (x, y, z)
        size = [2 * int(reach) + 1 for reach in seen["reach"]]
        letters = np.frombuffer(seen["nodes"].encode("ascii"), np.uint8).reshape(size[2], size[1], size[0])
        self.letters = letters.copy()

    @property
    def strides(self) -> Cell:
        """What one step in x, y and z is in the flat box."""
        _, height, width = self.letters.shape
        return 1, width, width * height

    def walled(self) -> str:
        """The flat box, z slowest and x fastest, with unknown at its faces."""
        walled = np.full_like(self.letters, ord("?"))
        walled[1:-1, 1:-1, 1:-1] = self.letters[1:-1, 1:-1, 1:-1]
        return walled.tobytes().decode("ascii")

    def contains(self, cell: Cell, margin: int = 0) -> bool:
        """Whether a cell lies in the box, so many cells from its faces."""
        places = zip(cell, self.low, self.letters.shape[::-1])
        return all(margin <= value - low < size - margin for value, low, size in places)

    def index(self, cell: Cell) -> int:
        """Where a cell of the box is in `walled`."""
        return sum((value - low) * stride for value, low, stride in zip(cell, self.low, self.strides))

    def cell(self, index: int) -> Cell:
        """Inverse of `index`."""
        _, row, layer = self.strides
        z, rest = divmod(index, layer)
        y, x = divmod(rest, row)
        return x + self.low[0], y + self.low[1], z + self.low[2]

    def at(self, cell: Cell) -> str:
        """The letter of a cell, "?" outside."""
        if not self.contains(cell):
            return "?"
        x, y, z = (value - low for value, low in zip(cell, self.low))
        return chr(self.letters[z, y, x])

    def all(self, letters: str) -> list[Cell]:
        """All cells with one of these letters, not at the faces."""
        found = np.isin(self.letters[1:-1, 1:-1, 1:-1], np.frombuffer(letters.encode(), np.uint8))
        return [
            (int(x) + 1 + self.low[0], int(y) + 1 + self.low[1], int(z) + 1 + self.low[2])
            for z, y, x in np.argwhere(found)
        ]

    def update(self, smaller: "Terrain") -> None:
        """Takes over what a smaller box shows, where it lies inside this one."""
        offsets = [a - b for a, b in zip(smaller.low, self.low)][::-1]
        sizes = smaller.letters.shape
        if all(o >= 0 and o + s <= mine for o, s, mine in zip(offsets, sizes, self.letters.shape)):
            z, y, x = offsets
            self.letters[z : z + sizes[0], y : y + sizes[1], x : x + sizes[2]] = smaller.letters


def nearest(cells: Iterable[Cell], to: Cell, number: int) -> list[Cell]:
    """The `number` cells closest to one."""
    return sorted(cells, key=lambda cell: sum((a - b) ** 2 for a, b in zip(cell, to)))[:number]
