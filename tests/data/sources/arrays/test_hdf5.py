"""HDF5 files that h5py wrote, in robomimic's, D4RL's and a declared layout: rows at their frames, damage told."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

h5py = pytest.importorskip("h5py")

from reverie.data.errors import UserError  # noqa: E402
from reverie.data.sources.corpus import find_corpus  # noqa: E402
from reverie.data.sources.layout import Layout  # noqa: E402
from tests.damage import damaged_bytes  # noqa: E402
from tests.data.limits import time_limit  # noqa: E402
from tests.data.numbered import pictures, run, skipped, stored  # noqa: E402

LENGTHS = (9, 14, 7, 11)


def steps(episode: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n,) classes, (n, 3) of a robot, (n,) rewards of the n steps of an episode."""
    rng = np.random.default_rng(episode)
    n = LENGTHS[episode % len(LENGTHS)]
    return rng.integers(0, 5, n), rng.uniform(-1, 1, (n, 3)).astype(np.float32), rng.normal(size=n)


def write_robomimic(path: Path, *, with_next: bool = True, episodes: int = 4) -> Path:
    """As robomimic's documentation of its datasets has them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "env_kwargs": {"control_freq": 20}})
        for episode in range(episodes):
            classes, robot, reward = steps(episode)
            shown = pictures(episode, classes)
            demo = data.create_group(f"demo_{episode}")
            demo.attrs["num_samples"] = len(classes)
            demo["obs/agentview_image"] = shown[:-1]
            demo["obs/robot0_eef_pos"] = robot
            if with_next:
                demo["next_obs/agentview_image"] = shown[1:]
            demo["actions"], demo["rewards"] = robot, reward
            demo["dones"] = np.arange(len(classes)) == len(classes) - 1
            demo["classes"] = classes
    return path


@pytest.mark.parametrize("with_next", [True, False])
def test_robomimic(tmp_path: Path, with_next: bool, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_robomimic(tmp_path / "in" / "lift.hdf5", with_next=with_next)
    index = run(tmp_path / "in", tmp_path / "out", layout=Layout(action="actions,classes"))
    assert index.fps == 20
    assert "is taken for robomimic's HDF5 files: 4 episodes at 20 fps" in capsys.readouterr().out
    with h5py.File(path) as file:
        for number in range(4):
            demo, episode = file[f"data/demo_{number}"], stored(index)[f"lift/data/demo_{number}"]
            read = demo["obs/agentview_image"][()]
            if with_next:
                read = np.concatenate([read, demo["next_obs/agentview_image"][-1:]])
            np.testing.assert_array_equal(episode.frames, read)
            n = len(read)
            np.testing.assert_array_equal(episode.actions["action"][:-1], demo["actions"][: n - 1])
            assert episode.action_mask.tolist() == [True] * (n - 1) + [False]
            np.testing.assert_allclose(episode.reward[1:], demo["rewards"][: n - 1], rtol=1e-6)
            assert episode.reward_mask.tolist() == [False] + [True] * (n - 1)
            assert episode.is_terminal
            episode.require_aligned("classes")


def write_d4rl(path: Path, first_channel: bool = False) -> Path:
    """As D4RL's documentation has it: rows end to end, terminals where an episode ends, timeouts where it is cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = [steps(episode) for episode in range(4)]
    seen = [pictures(episode, classes)[:-1] for episode, (classes, _, _) in enumerate(parts)]
    seen[-1] = pictures(3, parts[3][0])[:-1]
    lasts = [np.arange(len(c)) == len(c) - 1 for c, _, _ in parts]
    shown = np.concatenate(seen)
    with h5py.File(path, "w") as file:
        file["observations"] = np.moveaxis(shown, -1, 1) if first_channel else shown
        file["actions"] = np.concatenate([classes for classes, _, _ in parts])
        file["rewards"] = np.concatenate([reward for _, _, reward in parts]).astype(np.float32)
        file["terminals"] = np.concatenate([last & (k % 2 == 0) for k, last in enumerate(lasts)])
        file["timeouts"] = np.concatenate([last & (k % 2 == 1) for k, last in enumerate(lasts)])
        file["infos/qpos"] = np.zeros((len(shown), 2))
        file["metadata/algorithm"] = "random"
    return path


@pytest.mark.parametrize("first_channel", [True, False])
def test_d4rl_is_cut_at_ends_and_timeouts(tmp_path: Path, first_channel: bool) -> None:
    path = write_d4rl(tmp_path / "in" / "mixed.h5", first_channel)
    index = run(path, tmp_path / "out", fps=30)
    found = stored(index)
    first = 0
    for number, n in enumerate(LENGTHS):
        episode = found[f"mixed/{first:08d}"]
        classes, _, reward = steps(number)
        np.testing.assert_array_equal(episode.frames, pictures(number, classes)[:-1])
        np.testing.assert_array_equal(episode.actions["action"][:-1], classes[:-1])
        np.testing.assert_allclose(episode.reward[1:], reward[:-1], rtol=1e-6)
        assert episode.is_terminal == (number % 2 == 0)
        episode.require_aligned()
        first += n


def test_a_declared_layout(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with h5py.File(tmp_path / "in" / "own.hdf5", "w") as file:
        for episode in range(3):
            classes, _, reward = steps(episode)
            group = file.create_group(f"runs/{episode}")
            group["cam/left"], group["cam/right"] = pictures(episode, classes), pictures(9, classes)
            group["what_was_done"], group["pay"] = classes, reward
            group["over"] = np.arange(len(classes)) == len(classes) - 1
    lines = ["fps: 7", "episodes: runs/*", "frames: cam/left", "action: what_was_done", "reward: pay"]
    (tmp_path / "in" / "layout.yaml").write_text("\n".join([*lines, "terminal: over"]))
    index = run(tmp_path / "in", tmp_path / "out")
    assert index.fps == 7
    for number in range(3):
        episode, (classes, _, reward) = stored(index)[f"own/runs/{number}"], steps(number)
        np.testing.assert_array_equal(episode.frames, pictures(number, classes))
        np.testing.assert_array_equal(episode.actions["what_was_done"][:-1], classes)
        np.testing.assert_allclose(episode.reward[1:], reward, rtol=1e-6)
        assert episode.is_terminal
        episode.require_aligned("what_was_done")


def test_a_choice_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "two.hdf5"
    with h5py.File(path, "w") as file:
        for name in ("a", "b"):
            file[f"episode_0/{name}"] = pictures(0, np.arange(5))
    with pytest.raises(UserError, match="several arrays of pictures; choose one with --layout.frames: a, b"):
        run(path, tmp_path / "out", fps=10)
    with pytest.raises(UserError, match="says nothing of its rate"):
        run(path, tmp_path / "out")
    with pytest.raises(UserError, match="no array 'c' for --layout.frames; it has a uint8"):
        run(path, tmp_path / "out", fps=10, layout=Layout(frames="c"))


def test_states_alone_are_no_pictures(tmp_path: Path) -> None:
    path = tmp_path / "states.hdf5"
    with h5py.File(path, "w") as file:
        file["observations"], file["actions"] = np.zeros((9, 17)), np.zeros((9, 6))
    with pytest.raises(UserError, match=r"has no array of pictures .* it has actions float64 \(9, 6\)"):
        run(path, tmp_path / "out", fps=10)


def test_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.hdf5").write_bytes(b"x")
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(
        UserError, match=r"reading HDF5 needs h5py; install it with: pip install 'reverie\[hdf5\]'"
    ):
        run(tmp_path / "a.hdf5", tmp_path / "out", fps=10)


Change = Callable[[Any], None]


def replaced(name: str, value: Any) -> Change:
    def change(demo: Any) -> None:
        del demo[name]
        if value is not None:
            demo[name] = value

    return change


def linked(name: str, link: Any) -> Change:
    def change(demo: Any) -> None:
        del demo[name]
        demo[name] = link

    return change


def claim(name: str, shape: tuple[int, ...], dtype: str) -> Change:
    def change(demo: Any) -> None:
        del demo[name]
        demo.create_dataset(name, shape, dtype, chunks=(1, *shape[1:]))

    return change


def elsewhere(demo: Any) -> None:
    del demo["rewards"]
    demo.create_dataset("rewards", (14,), "f8", external=[("/etc/hostname", 0, h5py.h5f.UNLIMITED)])


IMAGE = "obs/agentview_image"
DAMAGES: dict[str, Change] = {
    "no pictures": replaced(IMAGE, None),
    "no rows": replaced(IMAGE, np.zeros((0, 24, 64, 3), np.uint8)),
    "other number of pictures": replaced(IMAGE, np.zeros((5, 24, 64, 3), np.uint8)),
    "pictures of floats": replaced(IMAGE, np.zeros((14, 24, 64, 3), np.float32)),
    "pictures of text": replaced(IMAGE, ["x"] * 14),
    "one number": replaced(IMAGE, 3),
    "a huge picture": claim(IMAGE, (14, 1 << 20, 1 << 20), "u1"),
    "endless pictures": claim(IMAGE, (1 << 40, 24, 64, 3), "u1"),
    "a link out": linked(IMAGE, h5py.ExternalLink("/etc/passwd", "x")),
    "a link to nothing": linked(IMAGE, h5py.SoftLink("/nowhere")),
    "a circle": linked(IMAGE, h5py.SoftLink("/data/demo_1/obs")),
    "actions of text": replaced("actions", ["x"] * 14),
    "actions missing": replaced("actions", None),
    "actions too few": replaced("actions", np.zeros((3, 3), np.float32)),
    "actions of another width": replaced("actions", np.zeros((14, 2), np.float32)),
    "actions not finite": replaced("actions", np.full((14, 3), np.nan)),
    "actions huge": replaced("actions", np.full((14, 3), 1e30)),
    "endless actions": claim("actions", (1 << 40, 3), "f4"),
    "reward of NaN": replaced("rewards", np.full(14, np.nan)),
    "reward infinite": replaced("rewards", np.full(14, np.inf)),
    "reward of text": replaced("rewards", ["x"] * 14),
    "reward of two columns": replaced("rewards", np.zeros((14, 2))),
    "reward of one number": replaced("rewards", 1.0),
    "reward too long": replaced("rewards", np.zeros(99)),
    "reward elsewhere": elsewhere,
    "dones of text": replaced("dones", ["x"] * 14),
    "dones of many columns": replaced("dones", np.zeros((14, 7))),
    "a group as reward": lambda demo: (demo.__delitem__("rewards"), demo.create_group("rewards")),  # type: ignore[func-returns-value]
    "complex": replaced("actions", np.zeros((14, 3), np.complex64)),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_episodes_cost_themselves(tmp_path: Path, kind: str) -> None:
    path = write_robomimic(tmp_path / "in" / "lift.hdf5")
    with h5py.File(path, "a") as file:
        DAMAGES[kind](file["data/demo_1"])
    with time_limit():
        index = run(tmp_path / "in", tmp_path / "out")
    found = stored(index)
    for number in (0, 2, 3):
        assert found[f"lift/data/demo_{number}"].numbers == list(range(LENGTHS[number] + 1))
    if "lift/data/demo_1" not in found:
        assert "lift" in skipped(index)["lift/data/demo_1"]


@pytest.mark.parametrize("seed", range(20))
def test_damaged_files_cost_themselves(tmp_path: Path, seed: int) -> None:
    write_robomimic(tmp_path / "in" / "good.hdf5", episodes=2)
    path = write_robomimic(tmp_path / "in" / "bad.hdf5", episodes=2)
    path.write_bytes(damaged_bytes(path.read_bytes(), random.Random(seed)))
    with time_limit():
        found = stored(run(tmp_path / "in", tmp_path / "out"))
    for number in range(2):
        assert found[f"good/data/demo_{number}"].numbers == list(range(LENGTHS[number] + 1))


def test_files_of_another_format_are_listed(tmp_path: Path) -> None:
    write_robomimic(tmp_path / "in" / "lift.hdf5")
    np.savez(tmp_path / "in" / "other.npz", image=pictures(0, np.arange(4)), action=np.arange(5))
    (tmp_path / "in" / "layout.yaml").write_text("fps: 20\n")
    index = run(tmp_path / "in", tmp_path / "out")
    assert list(skipped(index)) == ["*.npz"]


def test_videos_win_over_arrays_beside_them(tmp_path: Path) -> None:
    path = write_robomimic(tmp_path / "in" / "lift.hdf5")
    assert find_corpus(tmp_path / "in").kind.startswith("robomimic")
    (path.parent / "preview.mp4").write_bytes(b"x")
    found = find_corpus(tmp_path / "in")
    assert found.kind == "videos" and "lift.hdf5" in found.passed_over["*.hdf5"]
