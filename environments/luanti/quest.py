"""The way to the diamond in minetest_game: as Dreamer 4 walks it in Minecraft, but without a crafting table."""

from reverie.data.sources.vpt.tasks import STATISTICS
from reverie.environments.luanti.names import LADDER
from reverie.environments.minecraft.quest import MILESTONES
from reverie.environments.quest import Prompt, Quest

_PROMPTS = (
    *(("mine_log", 4), ("craft_planks", 3), ("craft_stick", 2), ("craft_wooden_pickaxe", 1)),
    *(
        ("use_wooden_pickaxe", 1),
        ("mine_cobblestone", 3),
        ("craft_stone_pickaxe", 1),
        ("use_stone_pickaxe", 1),
    ),
    *(
        ("mine_coal", 1),
        ("mine_iron_ore", 3),
        ("mine_cobblestone", 8),
        ("craft_furnace", 1),
        ("place_furnace", 1),
    ),
    *(("craft_iron_ingot", 3), ("craft_iron_pickaxe", 1), ("use_iron_pickaxe", 1), ("mine_diamond", None)),
)

_ITEMS = (
    *("log", "planks", "stick", "wooden pickaxe", "cobblestone", "stone pickaxe"),
    *("coal", "iron ore", "furnace", "iron ingot", "iron pickaxe", "diamond"),
)

DIAMOND = Quest(
    statistics={task: STATISTICS[task] for task in LADDER},
    prompts=tuple(Prompt(task=task, count=count) for task, count in _PROMPTS),
    milestones={item: {**MILESTONES, "coal": ("pickup:coal",)}[item] for item in _ITEMS},
)
