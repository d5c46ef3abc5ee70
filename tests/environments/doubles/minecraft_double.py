"""NOT Minecraft: a stand-in for the game behind MineRL and MineStudio, for tests alone.

It keeps their interface as its sources have it (MineRL 1.0 `env/_multiagent.py`, `env_specs/human_survival_specs.py`; MineStudio
1.1.6 `simulator/entry.py`): a process that can die, a seed that is forgotten at reset, nested statistics, `done` at death, and
what comes back when the process is gone. Its world is a ladder: attack and use, held long enough, climb from log to diamond.
"""

import subprocess
import sys
from collections import Counter

import numpy as np

KEYS = (
    *("ESC", "attack", "back", "drop", "forward", "inventory", "jump", "left", "pickItem", "right"),
    *("sneak", "sprint", "swapHands", "use", *(f"hotbar.{i}" for i in range(1, 10))),
)
LADDER = (
    ("attack", 10, {"mine_block": "oak_log", "pickup": "oak_log"}, 1),
    ("use", 5, {"craft_item": "oak_planks"}, 4),
    ("use", 1, {"craft_item": "crafting_table"}, 1),
    ("use", 1, {"use_item": "crafting_table"}, 1),
    ("use", 1, {"craft_item": "stick"}, 4),
    ("use", 1, {"craft_item": "wooden_pickaxe"}, 1),
    ("attack", 3, {"mine_block": "stone", "pickup": "cobblestone", "use_item": "wooden_pickaxe"}, 1),
    ("use", 1, {"craft_item": "stone_pickaxe"}, 1),
    ("attack", 3, {"mine_block": "iron_ore", "pickup": "iron_ore", "use_item": "stone_pickaxe"}, 1),
    ("use", 1, {"craft_item": "furnace"}, 1),
    ("use", 3, {"craft_item": "iron_ingot"}, 1),
    ("use", 1, {"craft_item": "iron_pickaxe"}, 1),
    ("attack", 1, {"mine_block": "diamond_ore", "pickup": "diamond", "use_item": "iron_pickaxe"}, 1),
)
"""What a key brings, how often, and how many pieces each time."""
ITEMS = sorted({item for _, _, gains, _ in LADDER for item in gains.values()})
KINDS = ("mine_block", "craft_item", "pickup", "use_item", "custom")


class DoubleWorld:
    """One world. Some seeds have a creeper that comes at tick 150."""

    def __init__(self, seed: int | None, resolution: tuple[int, int]) -> None:
        rng = np.random.default_rng(seed)
        self.pace, self.dies_at = int(rng.integers(2, 5)), 150 if rng.random() < 0.3 else None
        self.stage = self.times = self.progress = self.ticks = 0
        self.counts: Counter[tuple[str, str]] = Counter()
        width, height = resolution
        self.picture = np.empty((height, width, 3), np.uint8)
        self.picture[:] = rng.integers(40, 200, 3)

    def tick(self, pressed: set[str]) -> bool:
        """Plays one tick; whether the player is dead."""
        self.ticks += 1
        self.counts["custom", "play_one_minute"] += 1
        key, often, gains, pieces = LADDER[self.stage]
        self.progress += key in pressed
        if self.progress >= self.pace:
            self.progress, self.times = 0, self.times + 1
            for gain in gains.items():
                self.counts[gain] += pieces
            if self.times == often and self.stage + 1 < len(LADDER):
                self.stage, self.times = self.stage + 1, 0
        return self.ticks == self.dies_at

    def pov(self) -> np.ndarray:
        """The world's colour, and a bar that moves on with time and grows with the stage."""
        picture = self.picture.copy()
        column = self.ticks * 4 % (picture.shape[1] - 40)
        picture[-20 * (self.stage + 1) :, column : column + 40] = 255
        return picture


class DoubleProcess:
    """A real process that does nothing: what dies when the game crashes."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-c", "import sys; sys.stdin.read()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
