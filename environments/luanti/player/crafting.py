"""Making things in the inventory's 3 x 3 grid, click by click."""

from dataclasses import dataclass

from reverie.environments.luanti.player.body import Body, Script, matches

HOTBAR = 8
RESULT = (378, 115)
ROWS = (206, 231, 256, 280)
"""Heights of the inventory's four rows on the screen."""
LOGS, COBBLE = ("*tree",), ("cobble", "desert_cobble")
PLANKS = ("wood", "junglewood", "pine_wood", "acacia_wood", "aspen_wood")
"""By name: a pick_wood is none."""
_NOTHING = ("", 0)
_ROOM = 90
"""A slot with so many of 99 takes what comes of crafting."""


def inventory_place(slot: int) -> tuple[int, int]:
    """Where slot 0 to 31 is on the screen."""
    row, column = divmod(slot, 8)
    return 228 + 26 * column, ROWS[row]


def grid_place(cell: int) -> tuple[int, int]:
    """Where cell 0 to 8 of the grid is on the screen."""
    row, column = divmod(cell, 3)
    return 273 + 26 * column, 91 + 24 * row


@dataclass(frozen=True)
class Recipe:
    """What it makes, one of these items, and what to put where: pairs of item names and cells of the grid."""

    makes: tuple[str, ...]
    parts: tuple[tuple[tuple[str, ...], tuple[int, ...]], ...]


HEAD, HANDLE = (0, 1, 2), (4, 7)
RECIPES = {
    "planks": Recipe(PLANKS, ((LOGS, (4,)),)),
    "stick": Recipe(("stick",), ((PLANKS, (4,)),)),
    "pick_wood": Recipe(("pick_wood",), ((PLANKS, HEAD), (("stick",), HANDLE))),
    "pick_stone": Recipe(("pick_stone",), ((COBBLE, HEAD), (("stick",), HANDLE))),
    "pick_steel": Recipe(("pick_steel",), ((("steel_ingot",), HEAD), (("stick",), HANDLE))),
    "furnace": Recipe(("furnace",), ((COBBLE, (0, 1, 2, 3, 5, 6, 7, 8)),)),
}


def craft(body: Body, name: str, times: int = 1) -> Script:
    """Makes something with the inventory open and closed again; True if there is more of it than before."""
    recipe = RECIPES[name]
    before = body.count(*recipe.makes)
    if not (yield from body.open_inventory()):
        return False
    yield from _empty_grid(body)
    for items, cells in recipe.parts:
        if not (yield from _lay(body, items, cells, times)):
            yield from body.close_menu()
            return False
    for _ in range(times):
        yield from _put_away(body, RESULT, recipe.makes)
    yield from _empty_grid(body)
    yield from body.close_menu()
    return body.count(*recipe.makes) > before


def _lay(body: Body, items: tuple[str, ...], cells: tuple[int, ...], times: int) -> Script:
    """Puts `times` of an item into each cell, from a single slot that has enough."""
    needed = times * len(cells)
    slots = enumerate(body.game.state.inventory)
    slot = next((i for i, (item, number) in slots if number >= needed and matches(item, items)), None)
    if slot is None:
        return False
    yield from body.click(inventory_place(slot))
    for cell in cells:
        for _ in range(times):
            yield from body.click(grid_place(cell), "use")
    if body.game.state.inventory[slot][1]:
        yield from body.click(inventory_place(slot))  # what is left goes back
    return True


def _empty_grid(body: Body) -> Script:
    """Takes everything in the grid back."""
    for cell in range(9):
        if cell < len(body.game.state.grid) and body.game.state.grid[cell][1]:
            item = body.game.state.grid[cell][0].rpartition(":")[2]
            yield from _put_away(body, grid_place(cell), (item,))
    return True


def _put_away(body: Body, place: tuple[int, int], items: tuple[str, ...]) -> Script:
    """Takes what lies at a pixel of the screen and puts it with others of its kind, or into an empty slot."""
    slots = list(enumerate(body.game.state.inventory))
    alike = [i for i, (held, number) in slots if 0 < number <= _ROOM and matches(held, items)]
    empty = [i for i, (_, number) in slots if not number]
    # Planks of several woods do not mix, and which of them it is cannot be seen here: an empty slot takes any.
    free = alike if alike and len(items) == 1 else empty
    if not free:
        return False
    yield from body.click(place)
    yield from body.click(inventory_place(free[0]))
    return True


def to_hotbar(body: Body, slot: int, place: int) -> Script:
    """Swaps a slot of the inventory with one of the hotbar, both from 0."""
    if not (yield from body.open_inventory()):
        return False
    had = body.game.state.inventory[place] != _NOTHING
    yield from body.click(inventory_place(slot))
    yield from body.click(inventory_place(place))
    if had:
        yield from body.click(inventory_place(slot))
    yield from body.close_menu()
    return True
