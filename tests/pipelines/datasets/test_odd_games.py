"""`record` with games in every form that is about: what is stored is what the game itself saw and got, or nothing is."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reverie.data.errors import UserError
from reverie.data.sources.episodes import Recording, complete_episodes, read_steps, video_path
from reverie.data.video.codec import read_frames
from reverie.environments.gym.actions import NativeActions
from reverie.pipelines.datasets.record import RecordConfig, record
from tests.environments.odd_games import ACTIONS, GAME, REWARDS, TRUE, plain
from tests.pipelines.odd_forms import FAILS, PLAYABLE, UNPLAYABLE, name

QUICK = ["float32 to 1", "channels first", "nested", "whole numbers", "four values"]


def config(out: Path, make: dict[str, Any], **settings: Any) -> RecordConfig:
    settings = {"episodes": 2, "players": {"random": 1.0}, **settings}
    return RecordConfig(out=out, env=GAME, options={"make": make}, **settings)


def diary(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in folder.iterdir()]


def assert_stored_as_seen(folder: Path, make: dict[str, Any], entries: list[dict[str, Any]]) -> None:
    """Each stored episode is one that the game wrote down itself: its actions, and the picture at its end."""
    recording = Recording.load(folder)
    actions = NativeActions.of(ACTIONS[make.get("action", "discrete")], "game")
    assert recording.action_space == actions.action_space
    true = TRUE.get(make.get("picture", "uint8"), lambda x: x)
    seen = [(entry["actions"], np.array(entry["field"], np.uint8)) for entry in entries]
    for episode in complete_episodes(folder):
        steps = read_steps(folder, episode, recording)
        frames = read_frames(video_path(folder, episode), range(steps.num_frames), recording.frame_size)
        rows = [{k: v[i] for k, v in steps.actions.items()} for i in range(steps.num_frames - 1)]
        taken = json.loads(json.dumps([plain(actions.native(row)) for row in rows]))
        field = next(f for a, f in seen if a == taken and (frames[-1] == true(f)).all())
        back = field
        for t in reversed(range(steps.num_frames)):
            np.testing.assert_array_equal(frames[t], true(back))
            back = np.roll(back, -(1 + t), axis=1)
        expected = float(np.asarray(REWARDS[make.get("reward", "float")]).item())
        assert steps.reward.tolist() == [0, *[expected] * (steps.num_frames - 1)] and steps.is_terminal


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(make, id=name(make), marks=() if name(make) in QUICK else pytest.mark.slow)
        for make in PLAYABLE
    ],
)
def test_what_is_stored_is_what_the_game_saw(make: dict[str, Any], tmp_path: Path) -> None:
    record(config(tmp_path / "out", {**make, "diary": str(tmp_path / "diary")}))
    assert len(complete_episodes(tmp_path / "out")) == 2
    assert_stored_as_seen(tmp_path / "out", make, diary(tmp_path / "diary"))


@pytest.mark.slow
@pytest.mark.parametrize("make", [pytest.param(make, id=name(make)) for make in UNPLAYABLE])
def test_what_cannot_be_played_ends_in_a_sentence(make: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        record(config(tmp_path / "out", make))
    assert "\n" not in str(error.value) and GAME in str(error.value)
    assert not (tmp_path / "out").exists() or complete_episodes(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("how", "workers"),
    [
        ("os._exit", 1),
        *[pytest.param(how, 1, marks=pytest.mark.slow) for how in FAILS],
        pytest.param("raise", 2, marks=pytest.mark.slow),
        pytest.param("kill", 2, marks=pytest.mark.slow),
    ],
)
def test_an_episode_that_fails_costs_itself_alone(
    how: str, workers: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make = {"fails": how, "diary": str(tmp_path / "diary")}
    out, settings = tmp_path / "out", {"episodes": 14, "workers": workers, "seed": 1}
    record(config(out, make, **settings))
    there, failed = set(complete_episodes(out)), {path.stem for path in (out / "failed").iterdir()}
    assert len(failed) >= 2 and len(there) >= 2 and there.isdisjoint(failed)
    assert there | failed == {f"{number:06d}" for number in range(14)}
    assert_stored_as_seen(out, make, diary(tmp_path / "diary"))
    printed = capsys.readouterr().out
    assert f"{len(failed)} of 14 were given up" in printed and f"{len(there)} episodes of" in printed
    reasons = json.loads((out / "failed" / f"{min(failed)}.json").read_text())["reasons"]
    assert len(reasons) == 2 and GAME in reasons[0]
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/*")}
    record(config(out, make, **settings))  # ends at once, and nothing is played again
    after = {path: path.stat().st_mtime_ns for path in out.glob("*/*")}
    assert after == before


def test_a_game_that_fails_in_every_episode_ends_in_a_sentence(tmp_path: Path) -> None:
    make = {"fails": "raise", "often": 1}
    for episodes, words in ((40, "10 episodes in a row have failed"), (3, "every episode has failed")):
        out = tmp_path / str(episodes)
        with pytest.raises(UserError, match=f"{words} .delete .*failed to try again"):
            record(config(out, make, episodes=episodes))
        assert len(list((out / "failed").iterdir())) == min(episodes, 10)


def test_a_size_that_changes_in_a_later_episode_is_refused(tmp_path: Path) -> None:
    """A frame of another size, late: the episodes before it stay."""
    with pytest.raises(UserError, match="frames have changed from 24 x 32 to 20 x 32"):
        record(config(tmp_path / "out", {"fails": "size"}, episodes=14, seed=3))
    assert len(complete_episodes(tmp_path / "out")) >= 1
    assert not list((tmp_path / "out").rglob(".partial*"))


def test_a_game_that_does_not_follow_its_seed_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(config(tmp_path / "out", {"form": "unseeded"}))
    assert "note: " in (said := capsys.readouterr().out) and "does not follow its seed" in said


def test_two_recordings_of_a_game_are_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        record(config(tmp_path / folder, {"action": "mixed", "fails": "raise"}, episodes=5, seed=1))
    files = [
        {str(p.relative_to(tmp_path / f)): p.read_bytes() for p in (tmp_path / f).rglob("*") if p.is_file()}
        for f in ("a", "b")
    ]
    assert files[0] == files[1] and any("failed" in name for name in files[0])
