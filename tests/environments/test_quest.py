"""The paper's sequence of prompts, and when it moves on."""

import pytest

from reverie.data.errors import UserError
from reverie.data.sources.vpt.tasks import TASKS
from reverie.environments.minecraft.quest import DIAMOND
from reverie.environments.quest import Prompt, Prompter, Quest

SMALL = Quest(
    statistics={"mine": ("mine_block:oak_log", "mine_block:birch_log"), "craft": ("craft_item:planks",)},
    prompts=(Prompt(task="mine", count=2), Prompt(task="craft", count=4), Prompt(task="mine", count=3)),
    milestones={"log": ("pickup:oak_log",), "planks": ("craft_item:planks",)},
)


def test_the_papers_tables() -> None:
    prompts = DIAMOND.prompts
    assert len(prompts) == 25 and len(DIAMOND.milestones) == 12 and tuple(DIAMOND.statistics) == TASKS
    assert prompts[0] == Prompt(task="mine_log", count=10)
    assert prompts[-1] == Prompt(task="mine_diamond", count=None)
    assert {prompt.task for prompt in prompts} <= set(TASKS)
    assert sum(prompt.count or 0 for prompt in prompts if prompt.task == "craft_planks") == 28
    assert list(DIAMOND.milestones)[::11] == ["log", "diamond"]


def test_a_prompt_counts_from_when_it_is_given() -> None:
    prompter = Prompter(SMALL)
    seen = []
    for logs, birch, planks in [
        (1, 0, 0),
        (1, 0, 9),
        (1, 1, 9),
        (1, 1, 12),
        (1, 1, 13),
        (2, 2, 13),
        (3, 2, 13),
    ]:
        prompter.see({"mine_block:oak_log": logs, "mine_block:birch_log": birch, "craft_item:planks": planks})
        seen.append((prompter.task, prompter.done))
    assert seen == [
        ("mine", 0),
        ("mine", 0),
        ("craft", 1),  # the nine planks before do not count
        ("craft", 1),
        ("mine", 2),
        ("mine", 2),
        ("mine", 3),  # the last task stays
    ]
    prompter.see({"mine_block:oak_log": 50, "craft_item:planks": 50})
    assert (prompter.task, prompter.done) == ("mine", 3)


def test_several_pieces_at_once_fulfil_one_prompt_only() -> None:
    prompter = Prompter(SMALL)
    prompter.see({"mine_block:oak_log": 9})
    assert prompter.task == "craft"
    prompter.see({"mine_block:oak_log": 9})
    assert prompter.task == "craft"


def test_a_milestone_is_an_item_that_was_had() -> None:
    assert DIAMOND.reached({"mine_block:iron_ore": 3, "mine_block:birch_log": 1}) == set()
    assert DIAMOND.reached({"pickup:birch_log": 1, "craft_item:iron_ingot": 2}) == {"log", "iron ingot"}


def test_one_task_alone() -> None:
    prompter = Prompter(DIAMOND.only("mine_coal"))
    prompter.see({"mine_block:coal_ore": 500})
    assert (prompter.task, prompter.done) == ("mine_coal", 0)
    with pytest.raises(UserError, match="--task fly: the game has the tasks mine_log, "):
        DIAMOND.only("fly")
