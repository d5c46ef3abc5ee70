"""Which recordings left the Overworld, told by their item events (Dreamer 4's test of action generalization).

The logs do not name the dimension. What can be broken or picked up in the Nether or the End alone does: a recording in
which one of these statistics rises belongs to the group `NETHER_END`.
"""

from collections.abc import Iterable

OVERWORLD, NETHER_END = "overworld", "nether_end"

_NETHER = (
    *("netherrack", "nether_quartz_ore", "nether_gold_ore", "ancient_debris", "quartz", "glowstone"),
    *("soul_sand", "soul_soil", "basalt", "polished_basalt", "blackstone", "gilded_blackstone"),
    *("polished_blackstone_bricks", "cracked_polished_blackstone_bricks", "chiseled_polished_blackstone"),
    *("nether_bricks", "nether_brick_fence", "nether_brick_stairs", "nether_wart", "nether_wart_block"),
    *("crimson_nylium", "crimson_stem", "crimson_fungus", "crimson_roots", "weeping_vines", "shroomlight"),
    *("warped_nylium", "warped_stem", "warped_fungus", "warped_roots", "twisting_vines", "warped_wart_block"),
    *("weeping_vines_plant", "twisting_vines_plant", "nether_sprouts"),
    *("blaze_rod", "ghast_tear", "magma_cream", "wither_skeleton_skull"),
)
_END = (
    *("end_stone", "end_stone_bricks", "chorus_plant", "chorus_flower", "chorus_fruit", "end_rod"),
    *("purpur_block", "purpur_pillar", "purpur_stairs", "purpur_slab"),
    *("shulker_shell", "dragon_egg", "dragon_head", "dragon_breath", "elytra"),
)
# Minecraft itself says picked_up.
_KINDS = ("mine_block", "pickup", "picked_up")
BEYOND_OVERWORLD = frozenset(f"{kind}:{item}" for kind in _KINDS for item in (*_NETHER, *_END))
"""Statistics that rise in the Nether and the End."""


def dimension_group(rose: Iterable[frozenset[str]]) -> str:
    """The group of a recording of whose ticks `data.sources.vpt.tasks.risen` told what rose."""
    left = any(not BEYOND_OVERWORLD.isdisjoint(names) for names in rose if names)
    return NETHER_END if left else OVERWORLD
