"""What the scripted player remembers from step to step."""

from collections import deque
from dataclasses import dataclass, field

from reverie.environments.crafter.situation import Cell


@dataclass
class Memory:
    """Everything that is not in the game's state.

    script          actions still to take without thinking
    plant           where our sapling grows
    hiding          in a hole dug for shelter
    thirsty, hungry on the way to water or food, until satisfied
    step            number of decisions so far
    fence_steps     decisions spent on the fence: some plants cannot be fenced
    """

    script: deque[str] = field(default_factory=deque)
    plant: Cell | None = None
    hiding: bool = False
    thirsty: bool = False
    hungry: bool = False
    step: int = 0
    fence_steps: int = 0
