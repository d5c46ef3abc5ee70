"""Scores of what changes: closed forms, a grid game played by hand, codec noise, and frames that are no grid."""

import gymnasium as gym
import minigrid  # noqa: F401
import numpy as np
import pytest
import torch
from torch import Tensor

from reverie.data.errors import UserError
from reverie.evaluation.changes import ChangeScores, Tiles, change_scores
from reverie.evaluation.curves import change_curves

SIDE = 8


@pytest.fixture(scope="module")
def walk() -> Tensor:
    """(60, 40, 40, 3) uint8 of a real MiniGrid room, walked through at random."""
    env = gym.make("MiniGrid-Empty-Random-5x5-v0", render_mode="rgb_array", tile_size=SIDE, highlight=False)
    rng, frames = np.random.default_rng(0), []
    env.reset(seed=0)
    for _ in range(60):
        frames.append(env.render())
        *_, terminated, truncated, _ = env.step(int(rng.integers(3)))
        if terminated or truncated:
            env.reset()
    return torch.from_numpy(np.stack(frames))


def noisy(frames: Tensor, levels: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(-levels, levels + 1, frames.shape, generator=generator)
    return (frames.int() + noise).clamp(0, 255).to(torch.uint8)


def test_error_and_motion_count_changing_pixels_alone() -> None:
    before = torch.zeros(1, 4, 4, 3, dtype=torch.uint8)
    truth, predicted = before.clone(), before.clone()
    truth[0, 1, 1] = torch.tensor([255, 0, 51])  # 1 + 0 + 0.04
    truth[0, 3, 3, 0] = 8  # within what a codec flickers
    predicted[0, 1, 1, 0] = 204  # error 0.04 + 0.04
    predicted[0, 0, 0] = 255  # wrong, but where nothing changes
    scores = change_scores(predicted, truth, before)
    assert scores.error.item() == pytest.approx(0.08) and scores.motion.item() == pytest.approx(1.04)
    assert scores.right is None and scores.changing is None


def test_the_truth_is_right_and_standing_still_explains_nothing(walk: Tensor) -> None:
    truth, before, tiles = walk[None, 1:], walk[None, :-1], Tiles.found_in(walk, SIDE)
    perfect = change_curves(change_scores(truth, truth, before, tiles))
    still = change_scores(before, truth, before, tiles)
    assert perfect["right"][0].value == 1
    assert torch.equal(still.error, still.motion)
    assert still.right is not None and still.changing is not None
    assert torch.equal(still.right, 1 - still.changing)
    assert still.changing.sum() == (truth != before).flatten(2).any(-1).sum()


@pytest.mark.parametrize("levels", [0, 4])
def test_tiles_are_told_apart_through_a_codecs_noise(walk: Tensor, levels: int) -> None:
    clean = Tiles.found_in(walk, SIDE)
    assert 7 <= len(clean) <= 12  # wall, floor, goal, and the player in four directions, also on the goal
    seen = noisy(walk, levels)
    tiles = Tiles.found_in(seen, SIDE)
    assert len(tiles) == len(clean)
    classes, same = tiles.classes(seen), clean.classes(walk)
    pairs = torch.stack([classes.flatten(), same.flatten()], 1).unique(dim=0)
    assert len(pairs) == len(clean)  # a renaming


def test_a_player_who_looks_the_wrong_way_is_wrong(walk: Tensor) -> None:
    tiles = Tiles.found_in(walk, SIDE)
    turned = next(i for i in range(1, 60) if (walk[i] != walk[i - 1]).any())
    truth, other = walk[turned][None], walk[turned - 1][None]
    assert change_scores(other, truth, other, tiles).right == 0
    blurred = (0.6 * truth + 0.4 * other).to(torch.uint8)
    assert change_scores(blurred, truth, other, tiles).right == 1


def test_curves_pool_over_windows_before_dividing() -> None:
    scores = ChangeScores(
        error=torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=torch.float64),
        motion=torch.tensor([[1.0, 1.0], [3.0, 1.0]], dtype=torch.float64),
        right=torch.tensor([[0.0, 1.0], [1.0, 1.0]], dtype=torch.float64),
        changing=torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64),
    )
    found = change_curves(scores)
    assert [e.value for e in found["change"]] == [0.75, 1.0]
    assert [e.value for e in found["right"]] == [0.5, 1.0]
    assert [e.value for e in found["right_changing"]] == [0.0, 1.0]


def test_a_picture_that_never_changes_has_no_change_to_explain() -> None:
    zeros = torch.zeros(3, 2, dtype=torch.float64)
    assert change_curves(ChangeScores(zeros, zeros, None, None)) == {}


@pytest.mark.parametrize("side", [0, 7, 64])
def test_a_side_that_does_not_divide_the_frames_is_refused(walk: Tensor, side: int) -> None:
    with pytest.raises(UserError, match=f"--tile {side}: does not divide"):
        Tiles.found_in(walk, side)


def test_frames_of_no_grid_are_refused() -> None:
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(256, (5, 64, 64, 3), dtype=torch.uint8, generator=generator)
    with pytest.raises(UserError, match="no game on a grid"):
        Tiles.found_in(frames, 4)
