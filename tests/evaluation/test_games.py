"""Players in the real MiniGrid: fair worlds, honest counting, the same every time."""

from pathlib import Path

import gymnasium
import minigrid  # noqa: F401  (registers its games)
import numpy as np
import pytest

from reverie.data.sources.episodes import Recording, complete_episodes, read_steps
from reverie.environments.make import make_env
from reverie.environments.play import play_episode
from reverie.environments.vector import EpisodeResult, VectorGame
from reverie.evaluation.games import (
    FIRST_HELD_OUT_SEED,
    AgentPolicy,
    ScriptedPolicy,
    gain,
    held_out_seeds,
    play,
    score,
)
from reverie.evaluation.recorded import recorded_results
from reverie.evaluation.statistics import success_rate
from tests.environments.episodes import whole

GAME = "minigrid-doorkey"
TASKS = ["pick_up_key", "open_door", "reach_goal"]


def played(kind: str, episodes: int, num_envs: int = 8, seed: int = 0) -> list[EpisodeResult]:
    game = VectorGame(GAME, num_envs, held_out_seeds(episodes, seed))
    return play(game, ScriptedPolicy(kind, game, seed))


def test_random_success_agrees_with_a_loop_written_on_plain_gymnasium() -> None:
    env = gymnasium.make("MiniGrid-DoorKey-5x5-v0", max_steps=48).unwrapped
    rng = np.random.default_rng(7)
    keys = []
    for number in range(120):
        env.reset(seed=number)
        ended = key = False
        while not ended:
            _, _, terminated, truncated, _ = env.step(int(rng.integers(7)))
            key |= env.carrying is not None  # type: ignore[attr-defined]
            ended = terminated or truncated
        keys.append(key)
    ours = score("random", played("random", 120), TASKS).success["pick_up_key"]
    theirs = success_rate(keys)
    assert 0.05 < ours.value < 0.95
    assert ours.low <= theirs.high and theirs.low <= ours.high


def test_the_expert_always_succeeds_and_is_fast() -> None:
    found = score("expert", played("expert", 24), TASKS)
    assert all(rate.value == 1.0 for rate in found.success.values())
    assert found.length.value < 20 and found.episode_return.value > 0.7


def test_results_do_not_depend_on_how_many_games_stand_side_by_side() -> None:
    alone, many = played("random", 12, num_envs=1), played("random", 12, num_envs=5)
    assert alone == many
    assert [result.seed for result in alone] == list(held_out_seeds(12, 0))


class Witness:
    """Keeps all that a watcher is told."""

    def __init__(self) -> None:
        self.frames: dict[int, list[np.ndarray]] = {}
        self.actions: dict[int, list[dict[str, np.ndarray]]] = {}

    def acted(self, result: EpisodeResult, frame: np.ndarray, action: dict[str, np.ndarray]) -> None:
        self.frames.setdefault(result.number, []).append(frame.copy())
        self.actions.setdefault(result.number, []).append(action)

    def ended(self, result: EpisodeResult, frame: np.ndarray) -> None:
        self.frames[result.number].append(frame.copy())

    def crashed(self, result: EpisodeResult) -> None:
        self.frames.pop(result.number, None)
        self.actions.pop(result.number, None)


def test_what_a_watcher_sees_replays_to_the_same_episode() -> None:
    game, seen = VectorGame(GAME, 4, held_out_seeds(10, 0)), Witness()
    for result in play(game, ScriptedPolicy("random", game, 5), watcher=seen):
        env, total = make_env(GAME), 0.0
        frames = [env.reset(seed=result.seed)[0]]
        for action in seen.actions[result.number]:
            frame, reward, *_ = env.step(action)
            frames.append(frame)
            total += reward
        assert total == result.episode_return and len(frames) == result.steps + 1
        np.testing.assert_array_equal(np.stack(frames), np.stack(seen.frames[result.number]))


def test_finished_episodes_are_counted_as_they_end() -> None:
    game, counts = VectorGame(GAME, 3, held_out_seeds(7, 0)), []
    play(game, ScriptedPolicy("random", game), counts.append)
    assert sum(counts) == 7 and max(counts) <= 3


def test_held_out_worlds_are_never_recorded_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = []
    game = make_env(GAME)
    start = game._start
    monkeypatch.setattr(game, "_start", lambda seed: seeds.append(seed) or start(seed))
    for number in range(20):
        whole(play_episode(game, "expert", seed=np.random.SeedSequence([0, number])))
    assert len(set(seeds)) == 20 and max(seeds) < FIRST_HELD_OUT_SEED <= min(held_out_seeds(5, 0))
    assert not set(held_out_seeds(500, 0)) & set(held_out_seeds(500, 1))


def test_a_learned_player_forgets_a_row_when_its_episode_ends() -> None:
    class Walker:
        def __init__(self) -> None:
            self.resets: list[np.ndarray] = []

        def reset(self, rows: np.ndarray) -> None:
            self.resets.append(rows.copy())

        def act(self, frames: np.ndarray) -> dict[str, np.ndarray]:
            return {"action": np.full(len(frames), 2)}

    walker = Walker()
    game = VectorGame(GAME, 2, held_out_seeds(5, 0), max_steps=6)
    episodes = play(game, AgentPolicy(walker))
    assert sum(rows.sum() for rows in walker.resets) == len(episodes) == 5


def test_gains_are_paired_by_world() -> None:
    worse = score("random", played("random", 30), TASKS)
    better = score("expert", played("expert", 30), TASKS, learned=True)
    found = gain(better, worse, "reach_goal")
    expected = better.success["reach_goal"].value - worse.success["reach_goal"].value
    assert found.success.value == pytest.approx(expected) and found.success.low > 0
    with pytest.raises(AssertionError, match="different worlds"):
        gain(better, score("random", played("random", 30, seed=1), TASKS), "reach_goal")


def test_the_data_row_is_the_mean_of_the_recorded_logs(corpus) -> None:  # type: ignore[no-untyped-def]
    raw = corpus.data.parent / "raw"
    recording = Recording.load(raw)
    train = {Path(sample.episode).stem for sample in corpus.index.samples("train")}
    logs = [read_steps(raw, name, recording) for name in complete_episodes(raw) if name in train]
    found = score("data", recorded_results(corpus.index), TASKS)
    assert len(found.results) == len(logs) == len(train)
    assert found.episode_return.value == pytest.approx(np.mean([log.reward.sum() for log in logs]), rel=1e-6)
    assert found.length.value == pytest.approx(np.mean([log.num_frames - 1 for log in logs]))
    for number, task in enumerate(TASKS):
        assert found.success[task].value == pytest.approx(
            np.mean([log.events[:, number].any() for log in logs])
        )
