"""The player in a game, and the disagreement of prior heads."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from reverie.data.errors import UserError
from reverie.rssm.actions import decode_actions
from reverie.rssm.imagination import disagreement
from reverie.rssm.player import Player
from reverie.rssm.presets import preset
from reverie.rssm.state import State
from reverie.rssm.world_model import WorldModel
from tests.batches import SPACE
from tests.rssm.models import GENERATIONS, small_config, small_model

FRAMES = np.random.default_rng(0).integers(0, 256, (6, 2, 16, 16, 3), dtype=np.uint8)


def play(player: Player, steps: int) -> list[dict[str, np.ndarray]]:
    player.reset(np.ones(2, bool))
    return [player.act(frames) for frames in FRAMES[:steps]]


@pytest.mark.parametrize("generation", GENERATIONS)
def test_the_same_seed_plays_the_same(generation):
    model = small_model(generation)
    first = play(Player(model, 2, seed=3), 6)
    torch.rand(100)
    again, other = play(Player(model, 2, seed=3), 6), play(Player(model, 2, seed=4), 6)
    assert all((a[name] == b[name]).all() for a, b in zip(first, again, strict=True) for name in a)
    assert any((a[name] != b[name]).any() for a, b in zip(first, other, strict=True) for name in a)
    for actions in first:
        SPACE.check(actions, 2, "player")


@pytest.mark.parametrize("generation", GENERATIONS)
def test_reset_rows_start_anew(generation):
    model = small_model(generation)
    player = Player(model, 2)
    play(player, 3)
    player.reset(np.array([True, False]))
    player.act(FRAMES[3])
    fresh = Player(model, 2)
    fresh.act(FRAMES[3])
    torch.testing.assert_close(player.state.deter[0], fresh.state.deter[0])
    assert not torch.allclose(player.state.deter[1], fresh.state.deter[1])


@pytest.mark.parametrize("generation", GENERATIONS)
def test_the_player_sees_what_the_world_model_sees_in_training(generation):
    """h along a played episode equals h of the recorded one: actions stand where the data have them."""
    model = small_model(generation)
    world = model.world_model
    with torch.no_grad():  # z without chance: the posterior's logits decide it
        world.core.posterior_out.bias.copy_(torch.linspace(-1, 1, world.core.latent.num_parameters) * 1000)
    if generation == "v3":
        world.core.latent.unimix = 0.0
    if generation == "v1":
        with torch.no_grad():
            world.core.posterior_out.bias.zero_()[4:].fill_(-1000)
        world.core.latent.sample = world.core.latent.mode  # the deviation has a floor
    player = Player(model, 2, seed=1)
    played, deter = [], []
    player.reset(np.ones(2, bool))
    for frames in FRAMES:
        played.append(player.act(frames))
        deter.append(player.state.deter)
    null = SPACE.null(2)
    actions = {
        name: torch.stack([null[name], *[torch.from_numpy(a[name]) for a in played[:-1]]], dim=1)
        for name in null
    }
    first = torch.zeros(2, 6, dtype=torch.bool)
    first[:, 0] = True
    states, _ = world.observe(
        world.initial(2), actions, ~first, torch.from_numpy(FRAMES).transpose(0, 1), first
    )
    torch.testing.assert_close(states.deter, torch.stack(deter, dim=1))


@pytest.mark.parametrize("generation", GENERATIONS)
def test_greedy_players_take_the_mode_and_others_sample(generation):
    model = small_model(generation)
    for greedy in (True, False):
        player, same = Player(model, 2, greedy=greedy), []
        for frames in FRAMES:
            actions = player.act(frames)
            SPACE.check(actions, 2, "player")
            with torch.no_grad():
                mode = model.behaviour.act(model.world_model.feature(player.state), greedy=True)
            likeliest = decode_actions(SPACE, mode)
            names = (
                ("keys", "mouse") if generation == "v1" else ("keys", "mouse", "arm")
            )  # V1 searches by chance
            same += [np.allclose(actions[name], likeliest[name]) for name in names]
        assert all(same) == greedy


def test_noise_moves_what_the_policy_chose():
    """Of first actions alone: later states differ. An untrained V1 puts the arm to its ends, where half the noise is cut."""
    model, moved = small_model("v1"), []
    for seed in range(8):
        quiet, noisy = (Player(model, 2, greedy=True, noise=noise, seed=seed) for noise in (0.0, 1.0))
        first, other = quiet.act(FRAMES[0]), noisy.act(FRAMES[0])
        SPACE.check(other, 2, "player")
        moved.append(~np.isclose(first["arm"], other["arm"]))
    assert 0.25 < np.mean(moved) < 0.75


def ensemble(members: int) -> WorldModel:
    torch.manual_seed(0)
    return WorldModel(replace(small_config("v2").world_model, prior_members=members), (16, 16, 3), SPACE)


def test_disagreement_by_hand():
    core = ensemble(3).core
    states = State(
        torch.randn(5, 32), torch.nn.functional.one_hot(torch.randint(3, (5, 4)), 3).float().flatten(1)
    )
    with torch.no_grad():
        p = torch.stack([head(states.deter) for head in core.priors]).unflatten(-1, (4, 3)).softmax(-1)
    p = p.double().numpy().reshape(3, 5, 12)
    mean = p.mean(0)
    meandis = np.sqrt(((p - mean) ** 2).sum(-1)).mean(0)
    np.testing.assert_allclose(disagreement(core, states, "meandis").detach(), meandis, rtol=1e-4)
    log_prob = np.log(p * states.stoch.numpy() + (1 - states.stoch.numpy())).sum(-1)
    np.testing.assert_allclose(
        disagreement(core, states, "log_prob_ens").detach(), log_prob.std(0), rtol=1e-3
    )
    mixture = np.sqrt(mean - mean**2).mean(-1)
    np.testing.assert_allclose(disagreement(core, states, "mixstd").detach(), mixture, rtol=1e-4)


def test_equal_members_agree():
    core = ensemble(2).core
    core.priors[1].load_state_dict(core.priors[0].state_dict())
    states = State(torch.randn(5, 32), torch.zeros(5, 12))
    assert disagreement(core, states, "meandis").abs().max() < 1e-6


def test_the_offline_recipe():
    config = preset("v2-offline")
    assert config.world_model.prior_members == 7
    assert (config.behaviour.horizon, config.behaviour.penalty) == (5, "meandis")
    with pytest.raises(UserError, match="prior_members of at least 2"):
        replace(config, world_model=replace(config.world_model, prior_members=1))
    with pytest.raises(UserError, match="set it to 0 for v2"):
        replace(config, behaviour=replace(config.behaviour, replay_value_scale=0.3))
    with pytest.raises(UserError, match="use one of v1"):
        preset("v9")
