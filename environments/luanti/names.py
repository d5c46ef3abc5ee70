"""This game's items by the names of Minecraft's, so that tasks are read off statistics as in `data.sources.vpt.tasks`."""

from collections.abc import Iterable

from reverie.data.sources.vpt.tasks import TASKS

_WOODS = {"": "oak", "jungle": "jungle", "pine_": "spruce", "acacia_": "acacia", "aspen_": "birch"}
MINECRAFT = {
    **{f"default:{ours}tree": f"{theirs}_log" for ours, theirs in _WOODS.items()},
    **{f"default:{ours}wood": f"{theirs}_planks" for ours, theirs in _WOODS.items()},
    **{f"default:{ours}leaves": f"{theirs}_leaves" for ours, theirs in _WOODS.items()},
    "default:jungleleaves": "jungle_leaves",
    "default:pine_needles": "spruce_leaves",
    "default:stick": "stick",
    "default:stone": "stone",
    "default:desert_stone": "stone",
    "default:cobble": "cobblestone",
    "default:desert_cobble": "cobblestone",
    "default:mossycobble": "mossy_cobblestone",
    "default:stone_with_coal": "coal_ore",
    "default:coal_lump": "coal",
    "default:stone_with_iron": "iron_ore",
    "default:iron_lump": "iron_ore",
    "default:steel_ingot": "iron_ingot",
    "default:stone_with_diamond": "diamond_ore",
    "default:diamond": "diamond",
    "default:furnace": "furnace",
    "default:furnace_active": "furnace",
    "default:chest": "chest",
    "default:torch": "torch",
    "default:torch_wall": "torch",
    "default:dirt_with_grass": "grass_block",
    **{
        f"default:{tool}_{ours}": f"{theirs}_{name}"
        for tool, name in {"pick": "pickaxe", "axe": "axe", "shovel": "shovel", "sword": "sword"}.items()
        for ours, theirs in {
            "wood": "wooden",
            "stone": "stone",
            "steel": "iron",
            "diamond": "diamond",
        }.items()
    },
}
"""Items that the two games share. An iron lump is what iron ore drops: in Minecraft, the ore itself."""

TABLE_TASKS = ("craft_crafting_table", "open_crafting_table", "place_crafting_table")
"""What cannot be done here: tools are made in the inventory, there is no table."""
LADDER = tuple(task for task in TASKS if task not in TABLE_TASKS)


def minecraft_name(item: str) -> str:
    """Minecraft's name of an item, or its own without the mod's prefix, such as `flowers:rose` -> `rose`."""
    return MINECRAFT.get(item) or item.rpartition(":")[2]


def add_counts(stats: dict[str, int], counts: Iterable[tuple[str, str, float]]) -> None:
    """Adds what a report counted, as (kind, item, number), to `kind:item` -> number."""
    for kind, item, number in counts:
        name = f"{kind}:{minecraft_name(item)}"
        stats[name] = stats.get(name, 0) + int(number)
