"""Actions that stand a frame early or late are found, right ones are never accused: in real games and in drawn pictures."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reverie.data.shards.alignment import LAGS, Alignment, Evidence, Verdict
from reverie.data.shards.checking import all_samples
from reverie.data.shards.index import ShardIndex
from reverie.data.shards.reader import ShardReader
from reverie.data.shards.steps import Steps
from reverie.data.sources.episodes import EpisodeWriter
from reverie.pipelines.cli import main
from reverie.pipelines.datasets.prepare import PrepareConfig, prepare
from reverie.pipelines.datasets.record import RecordConfig, record
from tests.data.corpus import SIZE, SPACE, TASKS

EXPECTED = {-1: Verdict.EARLY, 0: Verdict.FITS, 1: Verdict.LATE}
Clip = tuple[np.ndarray, Steps]


def moved(steps: Steps, late: int) -> Steps:
    """The log of a recorder that writes each action `late` frames late."""
    if late == 0:
        return steps
    actions = {name: np.roll(value, late, 0) for name, value in steps.actions.items()}
    known = np.roll(steps.action_mask, late)
    known[0 if late > 0 else -1] = False
    return replace(steps, actions=actions, action_mask=known, action_mask_before=np.zeros((), np.bool_))


def clips_of(folder: Path) -> tuple[ShardIndex, list[Clip]]:
    index = ShardIndex.load(folder)
    reader = ShardReader(index)
    return index, [(reader.frames(s, 0, s.n), reader.steps(s)) for s in all_samples(index)]


def evidence_of(index: ShardIndex, clips: Sequence[Clip], late: int) -> Evidence | None:
    alignment = Alignment(index.action_space, sum(len(frames) for frames, _ in clips))
    for frames, steps in clips:
        if alignment.wants(len(frames)):
            alignment.add(frames, moved(steps, late))
    return alignment.evidence()


def verdict_of(index: ShardIndex, clips: Sequence[Clip], late: int) -> Verdict:
    found = evidence_of(index, clips, late)
    return Verdict.UNCLEAR if found is None else found.verdict


def recorded_and_prepared(folder: Path, **fields: object) -> tuple[ShardIndex, list[Clip]]:
    record(RecordConfig(out=folder / "episodes", **fields))  # type: ignore[arg-type]
    prepare(PrepareConfig(source=folder / "episodes", out=folder / "shards", workers=1))
    return clips_of(folder / "shards")


@pytest.fixture(scope="module")
def minigrid(tmp_path_factory: pytest.TempPathFactory) -> tuple[ShardIndex, list[Clip]]:
    return recorded_and_prepared(
        tmp_path_factory.mktemp("minigrid"),
        env="minigrid-empty-random-5x5",
        episodes=40,
        max_steps=32,
        skill=(0.2, 0.8),
    )


@pytest.mark.parametrize("late", LAGS)
def test_minigrid_with_a_planted_shift(late: int, minigrid: tuple[ShardIndex, list[Clip]]) -> None:
    assert verdict_of(*minigrid, late) is EXPECTED[late]


@pytest.mark.parametrize("few", [0, 1, 5])
@pytest.mark.parametrize("late", LAGS)
def test_tiny_data_accuse_nobody(few: int, late: int, minigrid: tuple[ShardIndex, list[Clip]]) -> None:
    index, clips = minigrid
    assert verdict_of(index, clips[:few], late) is Verdict.UNCLEAR


def test_actions_of_other_episodes_accuse_nobody(minigrid: tuple[ShardIndex, list[Clip]]) -> None:
    index, clips = minigrid
    rng, strangers = np.random.default_rng(0), []
    for frames, steps in clips:
        drawn = {"action": rng.integers(0, 7, len(steps)).astype(steps.actions["action"].dtype)}
        strangers.append((frames, replace(steps, actions=drawn)))
    assert verdict_of(index, strangers, 0) is Verdict.UNCLEAR


GAMES: dict[str, dict[str, object]] = {
    "minigrid-doorkey-6x6": {"episodes": 100, "max_steps": 60},
    "crafter": {"episodes": 30, "max_steps": 80},
    "gym:Pendulum-v1": {"episodes": 40, "max_steps": 100},
    "gym:MountainCar-v0": {"episodes": 40, "max_steps": 100},
    "gym:Acrobot-v1": {"episodes": 40, "max_steps": 100},
}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("game", list(GAMES))
def test_every_game_and_seed(game: str, seed: int, tmp_path: Path) -> None:
    fields = {**GAMES[game], "seed": seed}
    if game.startswith("gym:"):
        fields |= {"players": {"random": 1.0}, "options": {"frame_size": [64, 64]}}
    elif game == "crafter":
        pytest.importorskip("crafter")
    index, clips = recorded_and_prepared(tmp_path, env=game, **fields)
    assert {late: verdict_of(index, clips, late) for late in LAGS} == EXPECTED


def write_brightness(folder: Path, late: int, episodes: int = 16, n: int = 50) -> Path:
    """A picture that grows brighter exactly where an action was taken; the log is `late` frames late."""
    writer = EpisodeWriter(folder, env="test", fps=10, frame_size=SIZE, action_space=SPACE, tasks=TASKS)
    for episode in range(episodes):
        move = np.random.default_rng(episode).integers(0, 2, n)
        values = np.concatenate([[0], np.cumsum(move)[:-1]])  # frame t shows the actions before t
        frames = np.broadcast_to(values[:, None, None, None], (n, *SIZE, 3)).astype(np.uint8)
        actions = {**SPACE.null_numpy(n), "move": np.roll(move, late)}
        actions["move"][-1] = 0
        marks, reward = np.zeros((n, len(TASKS)), np.uint8), np.zeros(n, np.float32)
        writer.write(f"episode-{episode:03d}", frames, actions, reward, marks, False, "test")
    return folder


SAID = {-1: "one frame EARLY", 0: "stand where the pictures answer them", 1: "one frame LATE"}


@pytest.mark.parametrize("late", LAGS)
def test_prepare_and_check_say_it(late: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_brightness(tmp_path / "raw", late)
    prepare(PrepareConfig(source=source, out=tmp_path / "out", validation_fraction=0, workers=1))
    hint = capsys.readouterr().out
    assert (SAID[late] in hint) == (late != 0) and ("alignment" in hint) == (late != 0)
    assert main(["data", "check", str(tmp_path / "out")]) == 0
    assert SAID[late] in capsys.readouterr().out


def test_video_without_actions_says_so(unlabelled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(unlabelled)]) == 0
    assert "alignment: not enough to tell" in capsys.readouterr().out
