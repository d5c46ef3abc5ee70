"""Episodes of npz as Dreamer V2 and V-D4RL save them, with numpy: their rows are shifted by one, and come out right."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reverie.data.actions import ActionSpace, Categorical, Continuous
from reverie.data.errors import UserError
from reverie.data.sources.layout import Layout
from tests.damage import damaged_bytes
from tests.data.limits import time_limit
from tests.data.numbered import pictures, run, skipped, stored

LENGTHS = (9, 14, 7, 11)


def episode_of(number: int, *, one_hot: bool = True) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The arrays that Dreamer V2 saves of an episode, and the classes taken: row 0 came by none."""
    rng = np.random.default_rng(number)
    n = LENGTHS[number % len(LENGTHS)]
    taken = rng.integers(0, 5, n)
    action = np.zeros((n + 1, 5), np.float32)
    action[np.arange(1, n + 1), taken] = 1
    if not one_hot:
        action[1:] = rng.uniform(-1, 1, (n, 5))
    ends = number % 2 == 0
    return {
        "image": pictures(number, taken),
        "action": action,
        "reward": np.concatenate([[0], rng.normal(size=n)]).astype(np.float32),
        "is_first": np.arange(n + 1) == 0,
        "is_last": np.arange(n + 1) == n,
        "is_terminal": (np.arange(n + 1) == n) & ends,
        "discount": np.where((np.arange(n + 1) == n) & ends, 0, 1).astype(np.float32),
    }, taken


def write(folder: Path, number: int, **changes: Any) -> Path:
    """As Dreamer V2 does: `np.savez_compressed` under time, a random name, and the length."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {key: value for key, value in {**episode_of(number)[0], **changes}.items() if value is not None}
    path = folder / f"20210101T00000{number}-abc{number}-{LENGTHS[number % 4] + 1}.npz"
    np.savez_compressed(path, **arrays)
    return path


def test_dreamer_v2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [write(tmp_path / "in", number) for number in range(4)]
    index = run(tmp_path / "in", tmp_path / "out", fps=15)
    assert (
        "is taken for npz episodes, whose actions led to their frames: 4 episodes" in capsys.readouterr().out
    )
    assert index.action_space == ActionSpace({"action": Categorical(5)})
    for number, path in enumerate(paths):
        episode, (arrays, taken) = stored(index)[path.stem], episode_of(number)
        np.testing.assert_array_equal(episode.frames, arrays["image"])
        np.testing.assert_array_equal(episode.actions["action"][:-1], taken)
        assert episode.action_mask.tolist() == [True] * len(taken) + [False]
        np.testing.assert_array_equal(episode.reward, arrays["reward"])
        assert episode.is_terminal == (number % 2 == 0)
        episode.require_aligned()


def test_v_d4rl_of_stacked_pictures_and_real_actions(tmp_path: Path) -> None:
    """Channels first, three pictures in a row as DrQ keeps them: the newest is the picture."""
    paths = []
    for number in range(3):
        arrays, _ = episode_of(number, one_hot=False)
        first = np.moveaxis(arrays["image"], -1, 1)
        stack = np.concatenate([np.roll(first, 2, 0), np.roll(first, 1, 0), first], axis=1)
        keep = {"image": None, "is_first": None, "is_last": None, "is_terminal": None}
        paths.append(write(tmp_path / "in", number, **keep, observation=stack, action=arrays["action"]))
    index = run(tmp_path / "in", tmp_path / "out", fps=15)
    (component,) = index.action_space.components.values()
    assert isinstance(component, Continuous) and component.n == 5
    for number, path in enumerate(paths):
        episode, (arrays, _) = stored(index)[path.stem], episode_of(number, one_hot=False)
        np.testing.assert_array_equal(episode.frames, arrays["image"])
        np.testing.assert_array_equal(episode.actions["action"][:-1], arrays["action"][1:])
        assert episode.is_terminal == (number % 2 == 0)  # by the discount


def test_rows_that_are_not_shifted_can_be_declared(tmp_path: Path) -> None:
    arrays, taken = episode_of(0)
    for number in range(2):
        write(tmp_path / "in", number * 4, action=np.append(taken, 0), reward=arrays["reward"])
    index = run(tmp_path / "in", tmp_path / "out", fps=15, layout=Layout(led_to=False))
    for episode in stored(index).values():
        np.testing.assert_array_equal(episode.actions["action"][:-1], taken)
        np.testing.assert_array_equal(episode.reward[1:], arrays["reward"][:-1])


def test_chunks_of_dreamer_v3_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "in", 0, stepid=np.zeros((10, 20), np.uint8))
    with pytest.raises(UserError, match="chunk of Dreamer V3's replay"):
        run(tmp_path / "in", tmp_path / "out", fps=15)


class Bomb:
    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return Path.touch, (Path("/tmp/reverie-bomb"),)  # type: ignore[return-value]


ROWS = LENGTHS[1] + 1
DAMAGES: dict[str, dict[str, Any]] = {
    "objects": {"image": np.array([Bomb()] * ROWS, object)},
    "objects as actions": {"action": np.array([Bomb()] * ROWS, object)},
    "no action but the rest": {"action": None},
    "floats": {"image": np.zeros((ROWS, 24, 64, 3), np.float32)},
    "one picture": {"image": np.zeros((24, 64, 3), np.uint8)},
    "no rows": {"image": np.zeros((0, 24, 64, 3), np.uint8)},
    "a number": {"image": np.uint8(3)},
    "states": {"image": np.zeros((ROWS, 17), np.uint8)},
    "too few pictures": {"image": np.zeros((3, 24, 64, 3), np.uint8)},
    "too few actions": {"action": np.zeros((ROWS - 1, 5), np.float32)},
    "actions of text": {"action": np.array(["x"] * ROWS)},
    "actions of NaN": {"action": np.full((ROWS, 5), np.nan, np.float32)},
    "actions of another width": {"action": np.zeros((ROWS, 7), np.float32)},
    "actions complex": {"action": np.zeros((ROWS, 5), np.complex64)},
    "actions as dates": {"action": np.zeros(ROWS, "M8[s]")},
    "reward of NaN": {"reward": np.full(ROWS, np.nan)},
    "reward infinite": {"reward": np.full(ROWS, np.inf)},
    "reward of text": {"reward": np.array(["x"] * ROWS)},
    "reward too long": {"reward": np.zeros(99)},
    "reward of two columns": {"reward": np.zeros((ROWS, 2))},
    "reward alone": {"reward": np.float32(1)},
    "ends of text": {"is_terminal": np.array(["x"] * ROWS)},
    "ends of columns": {"is_terminal": np.zeros((ROWS, 3))},
    "no ends": {"is_terminal": np.zeros(0)},
    "two episodes": {"is_first": np.arange(ROWS) % 5 == 0},
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_arrays_cost_themselves(tmp_path: Path, kind: str) -> None:
    paths = [write(tmp_path / "in", number) for number in (0, 2)]
    bad = write(tmp_path / "in", 1, **DAMAGES[kind])
    with time_limit():
        index = run(tmp_path / "in", tmp_path / "out", fps=15)
    for number, path in zip((0, 2), paths):
        assert stored(index)[path.stem].numbers == list(range(LENGTHS[number] + 1))
    assert bad.stem in stored(index) or bad.name in skipped(index)[bad.stem]
    assert not Path("/tmp/reverie-bomb").exists()


@pytest.mark.parametrize("seed", range(20))
def test_damaged_files_cost_themselves(tmp_path: Path, seed: int) -> None:
    paths = [write(tmp_path / "in", number) for number in (0, 2)]
    bad, rng = write(tmp_path / "in", 1), random.Random(seed)
    content = bad.read_bytes()
    bad.unlink()
    if rng.random() < 0.15:
        (tmp_path / "outside.npz").write_bytes(content)
        bad.symlink_to(tmp_path / "outside.npz")
    else:
        bad.write_bytes(damaged_bytes(content, rng))
    with time_limit():
        index = run(tmp_path / "in", tmp_path / "out", fps=15)
    for number, path in zip((0, 2), paths):
        assert stored(index)[path.stem].numbers == list(range(LENGTHS[number] + 1))
    if bad.stem not in stored(index):
        assert skipped(index)[bad.stem]


def test_objects_are_refused_in_a_sentence(tmp_path: Path) -> None:
    write(tmp_path / "in", 0)
    write(tmp_path / "in", 1, image=np.array([Bomb()] * ROWS, object))
    (sentence,) = skipped(run(tmp_path / "in", tmp_path / "out", fps=15)).values()
    assert "would have to be unpickled; save plain numbers" in sentence


def test_other_archives_are_no_episodes(tmp_path: Path) -> None:
    np.savez(tmp_path / "weights.npz", w=np.zeros(3))
    with pytest.raises(UserError, match=r"holds no videos, nor anything else that is read; found 1 \*\.npz"):
        run(tmp_path, tmp_path / "out", fps=15)
