"""Minari datasets that the library wrote of a game of pictures, against what the library reads of them.

Its DataCollector needs jax, which is large; without it the same game is recorded into the library's own buffers.
"""

import json
import random
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

minari = pytest.importorskip("minari")
pytest.importorskip("h5py")
pytest.importorskip("pyarrow")

from reverie.data.actions import ActionSpace, Binary, Categorical, Continuous  # noqa: E402
from reverie.data.errors import UserError  # noqa: E402
from tests.damage import damaged_bytes  # noqa: E402
from tests.data.limits import time_limit  # noqa: E402
from tests.data.numbered import NONE, SIZE, picture, run, shown, skipped, stored  # noqa: E402

LENGTHS = (8, 12, 5, 9)
SPACES: dict[str, gym.Space[Any]] = {
    "discrete": gym.spaces.Discrete(5, start=1),
    "box": gym.spaces.Box(-2.0, 3.0, (2,), np.float32),
    "binary": gym.spaces.MultiBinary(3),
    "dict": gym.spaces.Dict(
        {"move": gym.spaces.Discrete(5), "arm": gym.spaces.Box(-1.0, 1.0, (2,), np.float32)}
    ),
}


class Counting(gym.Env[Any, Any]):
    """Its pictures show episode, number and the action that led to them; ends for good, or is cut, after LENGTHS steps."""

    def __init__(self, kind: str, nested: bool) -> None:
        image = gym.spaces.Box(0, 255, (*SIZE, 3), np.uint8)
        state = gym.spaces.Box(-1.0, 1.0, (2,), np.float64)
        self.nested, self.episode = nested, -1
        self.observation_space = gym.spaces.Dict({"pixels": image, "state": state}) if nested else image
        self.action_space = SPACES[kind]

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        super().reset(**options)
        self.episode, self.number = self.episode + 1, 0
        return self._see(NONE), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.number += 1
        ends = self.number == LENGTHS[self.episode % len(LENGTHS)]
        even = self.episode % 2 == 0
        return self._see(digest(action)), 0.5 * self.number, ends and even, ends and not even, {}

    def _see(self, came_by: int) -> Any:
        seen = picture(self.episode, self.number, came_by)
        return {"pixels": seen, "state": np.zeros(2)} if self.nested else seen


def digest(action: Any) -> int:
    """A few bits of any action."""
    parts = action.values() if isinstance(action, dict) else [action]
    return int(sum(np.sum(np.floor(np.asarray(part, np.float64) * 4)) for part in parts)) % 15


def record(folder: Path, kind: str, data_format: str, *, nested: bool = False, jpeg: bool = True) -> Any:
    options = {"data_format": data_format, "jpeg_encoding": jpeg}
    game = Counting(kind, nested)
    game.action_space.seed(3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(folder))
        if find_spec("jax") is not None:
            env = minari.DataCollector(game, **options)
            for _ in LENGTHS:
                play(env)
            return env.create_dataset("counting/test-v0", algorithm_name="random")
        spaces = {"observation_space": game.observation_space, "action_space": game.action_space}
        buffers = [buffer_of(play(game), game) for _ in LENGTHS]
        return minari.create_dataset_from_buffers("counting/test-v0", buffers, **spaces, **options)


Played = tuple[list[Any], list[Any], list[tuple[float, bool, bool]]]


def play(env: Any) -> Played:
    """n + 1 observations, n actions, n (reward, ended, cut)."""
    seen, taken, came = [env.reset()[0]], [], []
    while not came or not (came[-1][1] or came[-1][2]):
        taken.append(env.action_space.sample())
        observation, *what, _ = env.step(taken[-1])
        seen.append(observation)
        came.append((what[0], what[1], what[2]))
    return seen, taken, came


def buffer_of(played: Played, game: Counting) -> Any:
    from minari.data_collector import EpisodeBuffer

    seen, taken, came = played
    rewards, ended, cut = (list(column) for column in zip(*came))
    return EpisodeBuffer(
        observations=columns(seen),
        actions=columns(taken),
        rewards=rewards,
        terminations=ended,
        truncations=cut,
    )


def columns(rows: list[Any]) -> Any:
    return {key: [row[key] for row in rows] for key in rows[0]} if isinstance(rows[0], dict) else rows


CASES = [
    ("discrete", "hdf5", False, True),
    ("box", "hdf5", True, False),
    ("dict", "hdf5", True, True),
    ("discrete", "arrow", False, True),
    ("binary", "arrow", True, False),
    ("dict", "arrow", False, False),
    ("box", "parquet", False, True),
]


@pytest.mark.parametrize(("kind", "data_format", "nested", "jpeg"), CASES)
def test_everything_is_what_the_library_reads(
    tmp_path: Path,
    kind: str,
    data_format: str,
    nested: bool,
    jpeg: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    dataset = record(tmp_path / "in", kind, data_format, nested=nested, jpeg=jpeg)
    index = run(tmp_path / "in", tmp_path / "out", fps=10, quality="lossless")
    assert f"is taken for a Minari dataset ({data_format}): 4 episodes at 10 fps" in capsys.readouterr().out
    assert index.action_space == ActionSpace(
        {
            "discrete": {"action": Categorical(5)},
            "box": {"action": Continuous(2, -2.0, 3.0)},
            "binary": {"action": Binary(3)},
            "dict": {"arm": Continuous(2, -1.0, 1.0), "move": Categorical(5)},
        }[kind]
    )
    found = stored(index)
    assert len(found) == len(LENGTHS)
    for told in dataset.iterate_episodes():
        episode, n = found[f"episode_{told.id}"], LENGTHS[told.id]
        seen = told.observations["pixels"] if nested else told.observations
        np.testing.assert_array_equal(episode.frames, seen)
        assert episode.action_mask.tolist() == [True] * n + [False]
        taken = told.actions if kind == "dict" else {"action": told.actions}
        for name, values in taken.items():
            first = 1 if kind == "discrete" else 0
            np.testing.assert_array_equal(episode.actions[name][:-1], np.asarray(values) - first)
        np.testing.assert_array_equal(episode.reward[1:], told.rewards)
        assert episode.reward_mask.tolist() == [False] + [True] * n
        assert episode.is_terminal == bool(told.terminations[-1]) == (told.id % 2 == 0)
        assert episode.numbers == list(range(n + 1))
        for i in range(n):  # each picture shows the action that stands at the one before
            action = {name: values[i] for name, values in taken.items()}
            assert shown(episode.frames[i + 1])[2] == digest(action)


def home(folder: Path) -> Path:
    return folder / "counting" / "test-v0" / "data"


def changed(folder: Path, **values: Any) -> None:
    path = home(folder) / "metadata.json"
    content = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in ("hdf5", "arrow")}
    for kind, folder in folders.items():
        record(folder, "discrete", kind)
    return folders


def test_no_game_is_made_to_learn_its_spaces(tmp_path: Path, recorded: dict[str, Path]) -> None:
    shutil.copytree(recorded["hdf5"], tmp_path / "in")
    changed(tmp_path / "in", action_space=..., env_spec='{"id": "os:Bad-v0", "entry_point": "os:abort"}')
    with pytest.raises(UserError, match="has no usable action_space .* no game is made to learn it"):
        run(tmp_path / "in", tmp_path / "out", fps=10)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"data_format": "zarr"}, "has data_format 'zarr'"),
        ({"action_space": "{"}, "no usable action_space"),
        ({"action_space": '{"type": "Discrete"}'}, "not understood"),
        ({"action_space": '{"type": "Box", "low": [["x"]], "high": 1}'}, "not understood"),
        ({"action_space": "[1]"}, "no usable action_space"),
    ],
)
def test_damaged_metadata_is_one_sentence(
    tmp_path: Path, recorded: dict[str, Path], values: dict[str, Any], sentence: str
) -> None:
    shutil.copytree(recorded["hdf5"], tmp_path / "in")
    changed(tmp_path / "in", **values)
    with pytest.raises(UserError, match=sentence):
        run(tmp_path / "in", tmp_path / "out", fps=10)


def test_episodes_that_are_not_there_are_told(tmp_path: Path, recorded: dict[str, Path]) -> None:
    shutil.copytree(recorded["arrow"], tmp_path / "in")
    shutil.rmtree(home(tmp_path / "in") / "2")
    index = run(tmp_path / "in", tmp_path / "out", fps=10)
    assert set(stored(index)) == {"episode_0", "episode_1", "episode_3"}
    assert "counts 4 episodes, episode_2 and 0 more are not there" in skipped(index)["metadata.json"]


def test_several_datasets_ask_for_one(tmp_path: Path, recorded: dict[str, Path]) -> None:
    for kind, folder in recorded.items():
        shutil.copytree(folder, tmp_path / "in" / kind)
    with pytest.raises(UserError, match="holds 2 Minari datasets; give one of them"):
        run(tmp_path / "in", tmp_path / "out", fps=10)


@pytest.mark.parametrize("seed", range(20))
def test_damaged_tables_cost_themselves(tmp_path: Path, recorded: dict[str, Path], seed: int) -> None:
    shutil.copytree(recorded["arrow"], tmp_path / "in")
    rng = random.Random(seed)
    path = next((home(tmp_path / "in") / "1").glob("*.arrow"))
    content = path.read_bytes()
    path.unlink()
    if rng.random() < 0.2:
        path.symlink_to(next((home(recorded["arrow"]) / "1").glob("*.arrow")))  # leads out
    else:
        path.write_bytes(damaged_bytes(content, rng))
    with time_limit():
        index = run(tmp_path / "in", tmp_path / "out", fps=10)
    for number in (0, 2, 3):
        assert stored(index)[f"episode_{number}"].numbers == list(range(LENGTHS[number] + 1))
