"""Smelting: placing a furnace, filling it, waiting, and taking the ingots out."""

from reverie.environments.luanti.player.body import Body, Script, act


def smelt(body: Body, number: int) -> Script:
    """Makes `number` steel ingots of iron lumps."""
    yield act()
    return False
