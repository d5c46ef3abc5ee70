"""The examples of docs/library.md run as they stand."""

import re
from pathlib import Path

import gymnasium
import pytest

from reverie.pipelines.worlds.registration import register_dream

PAGE = Path(__file__).parents[1] / "docs/library.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)

if "reverie/dream-v0" not in gymnasium.registry:
    register_dream("reverie/")  # what the installed package's entry point does


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_examples_run(number: int) -> None:
    exec(compile(BLOCKS[number], f"{PAGE.name}, example {number + 1}", "exec"), {})
