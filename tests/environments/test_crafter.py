"""Crafter: determinism across processes, achievements as events, and a player that finds the diamond."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("crafter")

from reverie.environments.make import make_env  # noqa: E402
from reverie.environments.play import play_episode  # noqa: E402
from tests.environments.episodes import whole  # noqa: E402

SCRIPT = """
import hashlib, numpy as np
from reverie.environments.make import make_env
from reverie.environments.play import play_episode
ballast = [object() for _ in range({ballast})]
episode = play_episode(make_env("crafter", max_steps=150), "expert", seed=np.random.SeedSequence(5), skill=0.9)
digest = hashlib.sha256()
def watched():
    steps = yield from episode
    digest.update(steps.reward.tobytes())
for frame in watched():
    digest.update(frame.tobytes())
print(digest.hexdigest())
"""


def test_shapes_tasks_and_actions():
    game = make_env("crafter", max_steps=3)
    frame, _ = game.reset(seed=0)
    assert frame.shape == (64, 64, 3) and frame.dtype == np.uint8
    assert len(game.tasks) == 22 and "collect_diamond" in game.tasks
    assert game.action_space_spec.components["action"].names[0] == "noop"
    for _ in range(3):
        _, _, terminated, truncated, _ = game.step({"action": 0})
    assert truncated and not terminated


def test_an_episode_depends_on_nothing_but_its_seed():
    digests = set()
    for ballast in (0, 12345):
        run = subprocess.run(
            [sys.executable, "-c", SCRIPT.format(ballast=ballast)],
            env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": str(ballast), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(run.stdout)
    assert len(digests) == 1


def test_events_are_first_achievements_and_pay_one():
    game = make_env("crafter", max_steps=150)
    frames, steps = whole(play_episode(game, "expert", seed=np.random.SeedSequence(1)))
    assert steps.events.sum(axis=0).max() == 1
    wood = game.tasks.index("collect_wood")
    arrival = int(steps.events[:, wood].argmax())
    assert steps.reward[arrival] >= 0.9
    assert steps.actions["action"][arrival - 1] == 5  # "do" was taken at the frame before
    assert steps.events.any(axis=0).sum() >= 8
    assert hashlib.sha256(frames[0].tobytes()) != hashlib.sha256(frames[-1].tobytes())


def test_death_is_an_end():
    game = make_env("crafter")
    game.reset(seed=0)
    game.inner._player.health = 0
    _, _, terminated, truncated, _ = game.step({"action": 0})
    assert terminated and not truncated


def test_the_expert_reaches_the_diamond():
    game = make_env("crafter", max_steps=450)
    _, steps = whole(play_episode(game, "expert", seed=np.random.SeedSequence([0, 0])))
    assert steps.events[:, game.tasks.index("collect_diamond")].any()
