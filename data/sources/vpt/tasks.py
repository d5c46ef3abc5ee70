"""The 20 tasks of Dreamer 4 (Table 4), read off Minecraft's statistics.

A task is accomplished where one of its statistics rises from one tick to the next. The statistics are Minecraft's own
counts per world, so the first tick of a recording accomplishes nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

LOGS = tuple(f"{wood}_log" for wood in ("oak", "spruce", "birch", "jungle", "acacia", "dark_oak"))
PLANKS = tuple(f"{wood}_planks" for wood in ("oak", "spruce", "birch", "jungle", "acacia", "dark_oak"))


def _any(kind: str, *items: str) -> tuple[str, ...]:
    return tuple(f"{kind}:{item}" for item in items)


STATISTICS: dict[str, tuple[str, ...]] = {
    "mine_log": _any("mine_block", *LOGS),
    # Cobblestone is what stone drops: Minecraft counts the block that was broken.
    "mine_cobblestone": _any("mine_block", "stone", "cobblestone"),
    "mine_iron_ore": _any("mine_block", "iron_ore"),
    "mine_coal": _any("mine_block", "coal_ore"),
    "mine_diamond": _any("mine_block", "diamond_ore"),
    "craft_planks": _any("craft_item", *PLANKS),
    "craft_stick": _any("craft_item", "stick"),
    "craft_crafting_table": _any("craft_item", "crafting_table"),
    "craft_furnace": _any("craft_item", "furnace"),
    # Taking the ingot out of a furnace counts as crafting it.
    "craft_iron_ingot": _any("craft_item", "iron_ingot"),
    "craft_wooden_pickaxe": _any("craft_item", "wooden_pickaxe"),
    "craft_stone_pickaxe": _any("craft_item", "stone_pickaxe"),
    "craft_iron_pickaxe": _any("craft_item", "iron_pickaxe"),
    "open_crafting_table": _any("custom", "interact_with_crafting_table"),
    "open_furnace": _any("custom", "interact_with_furnace"),
    # Placing a block counts as using its item; breaking a block with a tool counts as using the tool.
    "place_crafting_table": _any("use_item", "crafting_table"),
    "place_furnace": _any("use_item", "furnace"),
    "use_wooden_pickaxe": _any("use_item", "wooden_pickaxe"),
    "use_stone_pickaxe": _any("use_item", "stone_pickaxe"),
    "use_iron_pickaxe": _any("use_item", "iron_pickaxe"),
}
TASKS = tuple(STATISTICS)


def risen(stats: Iterable[Mapping[str, Any] | None]) -> list[frozenset[str]]:
    """For each tick the statistics, as `kind:item`, that rose since the last tick that has any.

    Args:
        stats: the counts of each tick, `minecraft.kind:minecraft.item` -> number; None where they are missing.
    """
    rose: list[frozenset[str]] = []
    before: Mapping[str, Any] | None = None
    for counts in stats:
        new = {} if counts is None or before is None or counts == before else counts
        rose.append(frozenset(_plain(name) for name in new if _count(new, name) > _count(before, name)))
        before = before if counts is None else counts
    return rose


def task_events(rose: Sequence[frozenset[str]]) -> np.ndarray:
    """(n, 20) uint8: 1 where one of a task's statistics rose; `rose`: n ticks, see `risen`."""
    events = np.zeros((len(rose), len(TASKS)), np.uint8)
    for row, names in enumerate(rose):
        if names:
            events[row] = [not names.isdisjoint(statistics) for statistics in STATISTICS.values()]
    return events


def _plain(name: str) -> str:
    return name.replace("minecraft.", "")


def _count(counts: Mapping[str, Any] | None, name: str) -> float:
    """0 where the statistic is missing, or no number."""
    value = (counts or {}).get(name, 0)
    return value if isinstance(value, int | float) else 0
