"""Each generation learns a small game from recordings of a random player: a ball falls, a paddle must be under it.

Frames of 4 x 4 cells; three moves left, right or none; the reward comes with the last frame. The random player catches about 30 %.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from reverie.data.actions import ActionSpace, Categorical
from reverie.data.batch import Batch
from reverie.rssm.model import Dreamer, DreamerObjective
from reverie.rssm.optimizers import make_optimizer, set_learning_rates
from reverie.rssm.player import Player
from tests.rssm.models import GENERATIONS, small_config

CELLS, SCALE = 4, 4
SPACE = ActionSpace({"move": Categorical(3, null=1)})


def draw(row: int, ball: np.ndarray, paddle: np.ndarray) -> np.ndarray:
    """(N,) columns -> frames (N, 16, 16, 3)."""
    frames = np.zeros((len(ball), CELLS, CELLS, 3), np.uint8)
    index = np.arange(len(ball))
    frames[index, CELLS - 1, paddle, 2] = 255
    frames[index, row, ball, 0] = 255
    return frames.repeat(SCALE, 1).repeat(SCALE, 2)


def play(n: int, rng: np.random.Generator, player: Player | None) -> tuple[dict[str, np.ndarray], float]:
    """n games of 4 frames by `player`, or at random: frames, moves that led to them and rewards (n, 4, ...), and the share caught."""
    ball, paddle = rng.integers(0, CELLS, (2, n))
    frames, moves = [draw(0, ball, paddle)], [np.ones(n, np.int64)]
    if player is not None:
        player.reset(np.ones(n, bool))
    for row in range(1, CELLS):
        move = rng.integers(0, 3, n) if player is None else player.act(frames[-1])["move"]
        paddle = np.clip(paddle + move - 1, 0, CELLS - 1)
        frames.append(draw(row, ball, paddle))
        moves.append(move)
    reward = np.zeros((n, CELLS), np.float32)
    reward[:, -1] = ball == paddle
    data = {"frames": np.stack(frames, 1), "moves": np.stack(moves, 1), "reward": reward}
    return data, float(reward[:, -1].mean())


def packed(data: dict[str, np.ndarray], rng: np.random.Generator, rows: int, games: int) -> Batch:
    """Rows of several games each."""
    chosen = rng.integers(0, len(data["reward"]), (rows, games))
    steps = {
        name: torch.from_numpy(x[chosen].reshape(rows, games * CELLS, *x.shape[2:]))
        for name, x in data.items()
    }
    at = torch.arange(games * CELLS).expand(rows, -1)
    first, last = at % CELLS == 0, at % CELLS == CELLS - 1
    return Batch(
        frames=steps["frames"],
        actions={"move": steps["moves"]},
        action_mask=~first,
        reward=steps["reward"],
        reward_mask=torch.ones_like(first),
        is_first=first,
        is_last=last,
        is_terminal=last,
        task=torch.full_like(at, -1),
        segment=at // CELLS,
        relevant=torch.zeros(rows, dtype=torch.bool),
        key=[""] * rows,
    )


@pytest.mark.slow
@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_policy_learned_in_imagination_catches_the_ball(generation):
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    data, random_score = play(400, rng, None)
    config = small_config(generation, horizon=5)
    sizes = dict(deter=64, hidden=48, stoch=8, depth=6, units=48)
    if generation != "v1":
        sizes["classes"] = 8
    config = replace(
        config,
        world_model=replace(config.world_model, **sizes),
        behaviour=replace(config.behaviour, units=48),
        optimizer=replace(config.optimizer, model_lr=2e-3, actor_lr=1e-3, critic_lr=1e-3, warmup_steps=20),
    )
    model = Dreamer(config, (CELLS * SCALE, CELLS * SCALE, 3), SPACE)
    objective, optimizer = DreamerObjective(model), make_optimizer(model, config.optimizer)
    for step in range(700):
        set_learning_rates(optimizer, config.optimizer, step)
        optimizer.zero_grad()
        loss, metrics = objective(packed(data, rng, 8, 3))
        loss.backward()
        optimizer.step()
        if step % 100 == 99:
            score = play(200, np.random.default_rng(1), Player(model, 200, greedy=True))[1]
            model.train()
            print(generation, step, score, {name: round(x.item(), 3) for name, x in metrics.items()})
    assert random_score < 0.4
    assert score > 0.8
