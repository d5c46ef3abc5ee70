"""The examples of docs/library.md run as they stand."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs/library.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_examples_run(number: int) -> None:
    exec(compile(BLOCKS[number], f"{PAGE.name}, example {number + 1}", "exec"), {})
