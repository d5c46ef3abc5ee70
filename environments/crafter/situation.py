"""What the scripted player knows: the whole state of one moment of the game, with the questions it asks of it."""

from collections import Counter

import crafter
import numpy as np
from crafter import constants, objects

Cell = tuple[int, int]
DIRECTIONS: dict[Cell, str] = {
    (-1, 0): "move_left",
    (1, 0): "move_right",
    (0, -1): "move_up",
    (0, 1): "move_down",
}
CREATURES = (objects.Cow, objects.Zombie, objects.Skeleton)
DAY, EVENING, DARK = 300, (100, 165), 0.35
"""Steps of a day, those of its evening, and the daylight below which zombies crowd the grass."""
MONSTERS = (objects.Zombie, objects.Skeleton)


def shifted(cell: Cell, direction: Cell, steps: int = 1) -> Cell:
    """The cell `steps` steps away."""
    return cell[0] + steps * direction[0], cell[1] + steps * direction[1]


def distance(a: Cell, b: Cell) -> int:
    """Steps between two cells when nothing is in the way."""
    return abs(a[0] - b[0]) + abs(a[1] - b[1])


class Situation:
    """A snapshot of the game. Cells are (column, row); outside the map there is no material.

    cell, facing  where the player stands, and the direction in which it looks
    inventory     item -> amount, with health, food, drink and energy
    dark, evening whether it is night, or soon will be
    achieved      names of the achievements unlocked so far
    things        cell -> creature, plant or arrow
    """

    def __init__(self, game: crafter.Env) -> None:
        world, player = game._world, game._player
        self.cell: Cell = (int(player.pos[0]), int(player.pos[1]))
        self.facing: Cell = (int(player.facing[0]), int(player.facing[1]))
        self.inventory: dict[str, int] = player.inventory
        self.achieved = {name for name, count in player.achievements.items() if count > 0}
        self.sleeping: bool = player.sleeping
        self.dark = bool(world.daylight < DARK)
        self.evening = EVENING[0] <= game._step % DAY < EVENING[1]
        self.materials: np.ndarray = world._mat_map
        self.ids: dict[str, int] = world._mat_ids
        self.things = {(int(o.pos[0]), int(o.pos[1])): o for o in world.objects if o is not player}
        self._names: dict[int, str] = world._mat_names

    @property
    def ahead(self) -> Cell:
        """The cell the player faces."""
        return shifted(self.cell, self.facing)

    def material(self, cell: Cell) -> str | None:
        """What the ground of a cell is; None outside the map."""
        width, height = self.materials.shape
        inside = 0 <= cell[0] < width and 0 <= cell[1] < height
        return self._names[int(self.materials[cell])] if inside else None

    def free(self, cell: Cell) -> bool:
        """Whether one can walk into the cell now."""
        return self.material(cell) in constants.walkable and cell not in self.things

    def neighbours(self, cell: Cell) -> list[Cell]:
        """The four cells around."""
        return [shifted(cell, direction) for direction in DIRECTIONS]

    def cells(self, material: str) -> list[Cell]:
        """All cells of one material."""
        return [(int(x), int(y)) for x, y in np.argwhere(self.materials == self.ids[material])]

    def where(self, *kinds: type) -> list[Cell]:
        """Cells of all things of these kinds."""
        return [cell for cell, thing in self.things.items() if isinstance(thing, kinds)]

    def beside(self, *materials: str) -> bool:
        """Whether all of these lie in the 3 x 3 cells around the player, where tools are made."""
        x, y = self.cell
        around = set(self.materials[max(x - 1, 0) : x + 2, max(y - 1, 0) : y + 2].ravel().tolist())
        return all(self.ids[name] in around for name in materials)

    def lacking(self, needed: Counter[str]) -> list[str]:
        """Items of which the player has less than needed."""
        return [item for item, amount in needed.items() if self.inventory[item] < amount]
