"""Smelting: placing a furnace, filling it, waiting, and taking the ingots out."""

from reverie.environments.luanti.player.body import Body, Script, act
from reverie.environments.luanti.player.crafting import HOTBAR, to_hotbar
from reverie.environments.luanti.player.terrain import Cell

ORE, FUEL, RESULT = (300, 98), (300, 146), (352, 109)
ROWS = (188, 219, 243, 267)
"""Heights of the inventory's four rows on the furnace's screen."""
STEPS_AN_INGOT, WARM_UP = 62, 40
SIDES = ((1, 0), (0, 1), (-1, 0), (0, -1))


def place_furnace(body: Body) -> Script:
    """Puts a furnace beside the player; where it stands is in `body.furnace` afterwards."""
    slot = body.slot("furnace")
    if slot is None or (slot >= HOTBAR and not (yield from to_hotbar(body, slot, HOTBAR - 1))):
        return False
    yield from body.look()
    spot = _spot(body)
    if spot is None:
        return False
    for cell in ((spot[0], spot[1] + 1, spot[2]), spot):
        if not body.open_at(cell) and not (yield from body.dig(cell)):
            return False
    yield from body.wield(min(slot, HOTBAR - 1))
    yield from body.face((spot[0], spot[1] - 1, spot[2]))
    yield act("use")
    yield from body.look()
    assert body.terrain is not None
    if body.terrain.at(spot) != "F":
        return False
    body.furnace = spot
    return True


def smelt(body: Body, number: int) -> Script:
    """At the furnace: takes out what is done, puts in all iron lumps and coal, and waits for `number` ingots."""
    assert body.furnace is not None
    yield from body.face(body.furnace)
    yield act("use")
    yield from body.wait(3)
    if body.game.cursor is None:
        body.furnace = None  # it is out of reach, or gone
        return False
    for items, place in ((("iron_lump",), ORE), (("coal_lump",), FUEL)):
        slot = body.slot(*items)
        if slot is not None:
            yield from body.click(_inventory_place(slot))
            yield from body.click(place)
            yield from body.click(_inventory_place(slot))  # what found no room goes back
    yield from body.wait(number * STEPS_AN_INGOT + WARM_UP)
    free = next((i for i, (_, held) in enumerate(body.game.state.inventory) if not held), None)
    if free is not None:
        yield from body.click(RESULT)
        yield from body.click(_inventory_place(free))
    yield from body.close_menu()
    return True


def _spot(body: Body) -> Cell | None:
    """A cell beside the player's feet with ground below that is open, or can be opened."""
    assert body.terrain is not None
    x, y, z = body.cell
    around = [(x + east, y, z + north) for east, north in SIDES]
    firm = [cell for cell in around if body.terrain.at((cell[0], cell[1] - 1, cell[2])) in "SEHCI"]
    diggable = [cell for cell in firm if body.terrain.at(cell) in " .SELC"]
    return min(diggable, key=lambda cell: not body.open_at(cell), default=None)


def _inventory_place(slot: int) -> tuple[int, int]:
    row, column = divmod(slot, 8)
    return 228 + 26 * column, ROWS[row]
