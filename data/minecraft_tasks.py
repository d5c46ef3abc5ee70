"""The 20 tasks of Dreamer 4 (Table 4), read off Minecraft's statistics.

A task is accomplished where one of its statistics rises from one tick to the next. The statistics are Minecraft's own
counts per world, so the first tick of a recording accomplishes nothing.
"""

from collections.abc import Mapping, Sequence
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


def task_events(stats: Sequence[Mapping[str, Any] | None]) -> np.ndarray:
    """(n, 20) uint8: 1 where a task's statistics rose since the last tick that has any; `stats`: one a tick, or None."""
    events = np.zeros((len(stats), len(TASKS)), np.uint8)
    before: dict[str, float] | None = None
    for row, counts in enumerate(stats):
        if counts is None:
            continue
        now = {
            key.replace("minecraft.", ""): value
            for key, value in counts.items()
            if isinstance(value, int | float)
        }
        if before is not None:
            for column, names in enumerate(STATISTICS.values()):
                events[row, column] = any(now.get(name, 0) > before.get(name, 0) for name in names)
        before = now
    return events
