"""Recording a real game: what is on disk, that it repeats, and that a killed recording continues to the same result."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from reverie.data.errors import UserError
from reverie.data.sources.episodes import (
    EpisodeWriter,
    Recording,
    complete_episodes,
    log_path,
    read_steps,
    video_path,
)
from reverie.data.video.codec import read_frames
from reverie.environments.make import make_env
from reverie.pipelines.datasets.record import RecordConfig, draw_player, record
from tests.processes import is_running

KILLED = """
from pathlib import Path
from reverie.pipelines.datasets.record import RecordConfig, record
record(RecordConfig(out=Path({out!r}), episodes=400, max_steps=16, workers={workers}))
"""


def start_recording(out: Path, workers: int, episodes: int) -> subprocess.Popen:
    """A recording of 400 episodes in a process of its own, of which so many are there."""
    environment = {**os.environ, "PYTHONPATH": ":".join(filter(None, sys.path))}
    script = KILLED.format(out=str(out), workers=workers)
    process = subprocess.Popen([sys.executable, "-c", script], env=environment)
    while len(complete_episodes(out)) < episodes:
        assert process.poll() is None
        time.sleep(0.01)
    return process


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recorded")
    record(RecordConfig(out=folder, episodes=12, players={"expert": 0.5, "random": 0.5}))
    return folder


def test_every_episode_is_there_with_its_header(recorded):
    recording = Recording.load(recorded)
    assert recording.env == "minigrid-doorkey" and recording.frame_size == (40, 40)
    assert recording.tasks == ("pick_up_key", "open_door", "reach_goal")
    assert recording.players["mixture"] == {"expert": 0.5, "random": 0.5}
    assert complete_episodes(recorded) == [f"{number:06d}" for number in range(12)]


def test_frames_and_steps_survive_storage_exactly_and_replay_in_the_game(recorded):
    recording = Recording.load(recorded)
    game = make_env(recording.env)
    for number in range(4):
        name = f"{number:06d}"
        steps = read_steps(recorded, name, recording)
        frames = read_frames(video_path(recorded, name), range(steps.num_frames), recording.frame_size)
        game_seed = np.random.SeedSequence([0, number]).spawn(2)[1].spawn(2)[0]
        replayed = [game.reset(seed=int(game_seed.generate_state(1)[0] >> 1))[0]]
        events = [[]]
        for action in steps.actions["action"][:-1]:
            frame, _, terminated, _, info = game.step({"action": action})
            replayed.append(frame)
            events.append(info["events"])
        np.testing.assert_array_equal(frames, replayed)
        assert [[recording.tasks[k] for k in np.flatnonzero(row)] for row in steps.events] == events
        assert terminated == steps.is_terminal
        assert steps.actions["action"][-1] == recording.action_space.components["action"].null


def test_rewards_and_ends_are_those_of_the_goal(recorded):
    recording = Recording.load(recorded)
    for name in complete_episodes(recorded):
        steps = read_steps(recorded, name, recording)
        assert steps.reward[0] == 0 and (steps.reward[-1] > 0) == steps.is_terminal
        assert steps.is_terminal or steps.num_frames == 49
        assert steps.player.split()[0] in ("expert", "random")


def test_the_same_settings_give_the_same_bytes_by_any_number_of_workers(recorded, tmp_path):
    record(RecordConfig(out=tmp_path / "b", episodes=12, players={"random": 1.0, "expert": 1.0}, workers=2))
    assert contents(tmp_path / "b") == contents(recorded)


def test_a_killed_recording_continues_to_the_same_result(tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = start_recording(killed, workers=1, episodes=5)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = len(complete_episodes(killed))
    assert before < 400
    target = before + 4
    for folder in (killed, whole):
        record(RecordConfig(out=folder, episodes=target, max_steps=16))
    finished = {name: data for name, data in contents(killed).items() if ".partial-" not in name}
    orphan = f"episodes/{target:06d}"
    assert {k: v for k, v in finished.items() if not k.startswith(orphan)} == contents(whole)


def test_workers_of_a_killed_recording_leave_the_folder_to_its_successor(tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = start_recording(killed, workers=2, episodes=3)
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(workers) >= 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    record(RecordConfig(out=killed, episodes=20, max_steps=16))
    until = time.monotonic() + 20
    while any(is_running(int(worker)) for worker in workers):
        assert time.monotonic() < until, "workers outlive their command"
        time.sleep(0.05)
    record(RecordConfig(out=whole, episodes=20, max_steps=16))
    assert {k: v for k, v in contents(killed).items() if k in contents(whole)} == contents(whole)


def test_two_recordings_into_one_folder_are_refused(tmp_path):
    out = tmp_path / "episodes"
    process = start_recording(out, workers=2, episodes=1)
    try:
        with pytest.raises(UserError, match="another process is writing here"):
            record(RecordConfig(out=out, episodes=400, max_steps=16))
    finally:
        process.kill()
        process.wait()


def test_recording_goes_on_from_a_smaller_number(recorded, tmp_path, capsys):
    config = {"out": tmp_path, "players": {"expert": 0.5, "random": 0.5}}
    record(RecordConfig(episodes=5, **config))
    touched = log_path(tmp_path, "000000").stat().st_mtime_ns
    record(RecordConfig(episodes=12, **config))
    assert log_path(tmp_path, "000000").stat().st_mtime_ns == touched
    assert contents(tmp_path) == contents(recorded)
    printed = capsys.readouterr().out
    assert (
        "12 episodes of minigrid-doorkey" in printed and "reach_goal" in printed and "mean return" in printed
    )


@pytest.mark.parametrize(
    "changed, words",
    [
        ({"env": "minigrid-empty"}, "minigrid-doorkey"),
        ({"seed": 1}, "players.seed 0, not 1"),
        ({"max_steps": 20}, "max_steps"),
        ({"options": {"tile_size": 10}}, "frame_size"),
    ],
)
def test_a_folder_of_other_episodes_is_refused_and_kept(recorded, changed, words):
    before = contents(recorded)
    settings = {"out": recorded, "episodes": 12, "players": {"expert": 0.5, "random": 0.5}, **changed}
    with pytest.raises(UserError, match=words):
        record(RecordConfig(**settings))
    assert contents(recorded) == before


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"players": {"robot": 1.0}}, "expert, random, human"),
        ({"players": {"expert": 0.0}}, "positive sum"),
        ({"skill": (0.9, 0.1)}, "skill"),
        ({"episodes": 0}, "episodes"),
        ({"workers": 0}, "workers"),
    ],
)
def test_impossible_settings_are_named(settings, words):
    with pytest.raises(UserError, match=words):
        RecordConfig(out=Path("nowhere"), **settings)


def test_a_game_without_expert_is_recorded_by_the_random_player_only(tmp_path):
    cart = {
        "out": tmp_path / "cart",
        "env": "gym:CartPole-v1",
        "options": {"frame_size": [40, 60]},
        "episodes": 2,
    }
    with pytest.raises(UserError, match="no expert"):
        record(RecordConfig(**cart))
    assert not (tmp_path / "cart").exists()
    record(RecordConfig(**cart, players={"random": 1.0}))
    assert Recording.load(tmp_path / "cart").frame_size == (40, 60)


def test_players_are_mixed_as_asked():
    config = RecordConfig(out=Path("x"), players={"expert": 3.0, "random": 1.0}, skill=(0.5, 0.7))
    drawn = [draw_player(config, np.random.SeedSequence(number)) for number in range(2000)]
    assert abs(np.mean([kind == "expert" for kind, _ in drawn]) - 0.75) < 0.04
    skills = [skill for _, skill in drawn]
    assert 0.5 <= min(skills) < 0.51 and 0.69 < max(skills) <= 0.7


def test_damaged_logs_are_named(recorded, tmp_path):
    recording = Recording.load(recorded)
    with pytest.raises(UserError, match="recording.json"):
        Recording.load(tmp_path)
    (tmp_path / "episodes").mkdir()
    log_path(tmp_path, "a").write_bytes(log_path(recorded, "000000").read_bytes()[:100])
    with pytest.raises(UserError, match="a.npz"):
        read_steps(tmp_path, "a", recording)
    with pytest.raises(UserError, match="has shape"):
        read_steps(recorded, "000000", recording, num_frames=3)


def test_misshapen_episodes_are_not_written(tmp_path):
    game = make_env("minigrid-doorkey")
    writer = EpisodeWriter(
        tmp_path,
        env=game.name,
        fps=game.fps,
        frame_size=game.frame_size,
        action_space=game.action_space_spec,
        tasks=game.tasks,
    )
    frames = np.zeros((3, 40, 40, 3), np.uint8)
    rows = {"reward": np.zeros(3), "events": np.zeros((3, 3)), "is_terminal": False, "player": "test"}
    with pytest.raises(UserError, match="'action' has shape"):
        writer.write("a", frames, {"action": np.zeros(2, np.int64)}, **rows)
    with pytest.raises(UserError, match="frames"):
        writer.write("a", frames[:, :8], {"action": np.zeros(3, np.int64)}, **rows)
    assert complete_episodes(tmp_path) == []
    writer.write("a", frames, {"action": np.zeros(3, np.int64)}, **rows)
    assert writer.has("a")
