"""The writer for people who record in their own code, used as docs/data/own-program.md says and as it should not be."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reverie.data import EpisodeWriter
from reverie.data.actions import ActionSpace, Categorical
from reverie.data.errors import UserError
from reverie.data.shards.index import ShardIndex
from reverie.data.shards.reader import read_clip
from reverie.pipelines.datasets.prepare import PrepareConfig, prepare

ROOT = Path(__file__).parents[3]
FRAMES, ACTIONS, REWARD = np.zeros((5, 64, 64, 3), np.uint8), {"move": np.arange(5) % 3}, np.arange(5.0)


def write(folder: Path, **changes: Any) -> Path:
    writer = EpisodeWriter(
        folder, env="mine", fps=20, frame_size=(64, 64), action_space=ActionSpace({"move": Categorical(3)})
    )
    writer.write(**{"name": "a", "frames": FRAMES, "actions": ACTIONS, "reward": REWARD, **changes})
    return folder


def test_the_example_of_the_docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "data" / "own-program.md").read_text(), re.DOTALL
    )
    exec(next(block for block in blocks if "EpisodeWriter" in block), {})
    prepare(PrepareConfig(source=Path("my_game"), out=Path("shards"), validation_fraction=0, workers=1))
    index = ShardIndex.load("shards")
    (episode,) = index.episodes("train")
    steps = read_clip(index, episode.samples[0]).steps
    assert index.tasks == ["reach_goal"] and steps.events[:, 0].tolist() == [0] * 99 + [1]
    assert steps.action_mask.tolist() == [True] * 99 + [False]
    assert index.action_space.components["keys"].names == ("w", "a", "s", "d")


def test_what_may_be_left_out(tmp_path: Path) -> None:
    source = write(tmp_path / "mine", name="é b", reward=[0, 1, 2, 3, 4])
    prepare(PrepareConfig(source=source, out=tmp_path / "shards", validation_fraction=0, workers=1))
    index = ShardIndex.load(tmp_path / "shards")
    (episode,) = index.episodes("train")
    steps = read_clip(index, episode.samples[0]).steps
    assert episode.name == "episodes/é b" and steps.reward.tolist() == [0, 1, 2, 3, 4]
    assert steps.actions["move"][:4].tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"frames": FRAMES.astype(np.float32)}, "frames are 5 of float32"),
        ({"frames": FRAMES[:0], "actions": {"move": REWARD[:0]}, "reward": REWARD[:0]}, "frames are 0"),
        ({"frames": FRAMES[:, :32]}, "frames has shape"),
        ({"reward": REWARD * np.nan}, "reward holds values that are not finite"),
        ({"reward": REWARD[:, None]}, "reward has shape"),
        ({"events": np.zeros((5, 1))}, "events has shape"),
        ({"actions": {}}, "no action 'move'"),
        ({"actions": {"move": np.full(5, 7)}}, "outside its range"),
        ({"name": "../../x"}, "cannot be the name"),
        ({"name": "b/c"}, "cannot be the name"),
        ({"name": ".b"}, "cannot be the name"),
        ({"name": ""}, "cannot be the name"),
    ],
)
def test_wrong_arguments_write_nothing(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        write(tmp_path / "mine", **changes)
    assert [path.name for path in tmp_path.rglob("*.*")] == ["recording.json"]
