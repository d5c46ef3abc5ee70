"""The way to the diamond, as Dreamer 4 evaluates it: Tables 4 (tasks), 5 (milestones) and 6 (prompts)."""

from reverie.data.sources.vpt.tasks import LOGS, PLANKS, STATISTICS
from reverie.environments.quest import Prompt, Quest

_PROMPTS = (
    *(("mine_log", 10), ("craft_planks", 20), ("craft_crafting_table", 1), ("place_crafting_table", 1)),
    *(("craft_stick", 4), ("craft_wooden_pickaxe", 1), ("use_wooden_pickaxe", 1), ("mine_cobblestone", 3)),
    *(("craft_planks", 4), ("craft_crafting_table", 1), ("place_crafting_table", 1), ("craft_stick", 4)),
    *(("craft_stone_pickaxe", 1), ("use_stone_pickaxe", 1), ("mine_iron_ore", 3), ("mine_cobblestone", 8)),
    *(("craft_planks", 4), ("craft_crafting_table", 1), ("place_crafting_table", 1), ("craft_furnace", 1)),
    *(("craft_iron_ingot", 3), ("craft_stick", 2), ("craft_iron_pickaxe", 1), ("use_iron_pickaxe", 1)),
    ("mine_diamond", None),
)


def _got(*items: str) -> tuple[str, ...]:
    """An item is had once it was picked up or made; a block that was broken without the right tool drops nothing."""
    return tuple(f"{kind}:{item}" for item in items for kind in ("pickup", "craft_item"))


MILESTONES = {
    "log": _got(*LOGS),
    "planks": _got(*PLANKS),
    "stick": _got("stick"),
    "crafting table": _got("crafting_table"),
    "wooden pickaxe": _got("wooden_pickaxe"),
    "cobblestone": _got("cobblestone"),
    "stone pickaxe": _got("stone_pickaxe"),
    "iron ore": _got("iron_ore"),
    "furnace": _got("furnace"),
    "iron ingot": _got("iron_ingot"),
    "iron pickaxe": _got("iron_pickaxe"),
    "diamond": _got("diamond"),
}

DIAMOND = Quest(
    statistics=STATISTICS,
    prompts=tuple(Prompt(task=task, count=count) for task, count in _PROMPTS),
    milestones=MILESTONES,
)
