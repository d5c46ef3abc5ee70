"""Imagination: what trains, what stays frozen, and that it improves a policy in a world model."""

import numpy as np
import pytest
import torch

from reverie.agent.imagination import ImaginationConfig, ImaginationObjective, Rollout, imagine
from reverie.agent.model import Agent, AgentConfig
from reverie.agent.player import Player
from reverie.dynamics.frame import Step
from reverie.dynamics.generation import commit
from reverie.dynamics.model import Dynamics, DynamicsConfig
from reverie.tokenizer.model import Tokenizer, TokenizerConfig
from tests.batches import SPACE, latent_batch
from tests.graphs import num_graphs, trace_frames

CONFIG = DynamicsConfig(latent_shape=(4, 8), width=32, depth=4, context_length=4)


def make():
    torch.manual_seed(0)
    return Agent(Dynamics(CONFIG, SPACE), AgentConfig(head_width=16, prediction_length=3), ["a", "b"])


def test_only_policy_and_value_heads_change():
    agent = make()
    objective = ImaginationObjective(agent, ImaginationConfig(horizon=4))
    before = {name: p.clone() for name, p in agent.named_parameters()}
    optimizer = torch.optim.SGD(objective.trainable_parameters(), 1.0)
    objective(latent_batch())[0].backward()
    optimizer.step()
    changed = {name.split(".")[0] for name, p in agent.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {"policy", "value_head"}
    assert {n.split(".")[0] for n, p in agent.named_parameters() if p.requires_grad} == {
        "policy",
        "value_head",
    }


def test_rollout_shapes_and_alignment():
    agent, batch = make(), latent_batch()
    rollout = imagine(agent, batch, ImaginationConfig(horizon=5))
    assert rollout.states.shape == (4, 6, 32) and rollout.latents.shape == (4, 5, 4, 8)
    assert rollout.rewards.shape == rollout.continues.shape == (4, 5)
    assert rollout.actions["mouse"].shape == (4, 5)


def test_only_the_last_segment_is_seen():
    agent, batch = make(), latent_batch(t=6)
    config = ImaginationConfig(horizon=2)
    torch.manual_seed(0)
    first = imagine(agent, batch, config)
    batch.latents[:, :5] += 1  # segment 0
    torch.manual_seed(0)
    torch.testing.assert_close(imagine(agent, batch, config).states, first.states)
    batch.latents[:, 5] += 1
    torch.manual_seed(0)
    assert not torch.allclose(imagine(agent, batch, config).states, first.states)


def test_rewarded_actions_become_likely():
    """Rollouts in which mouse = 2 pays: the policy learns it, starting from the prior, and the KL term holds it back."""
    agent = make()
    objective = ImaginationObjective(agent, ImaginationConfig(horizon=4))
    optimizer = torch.optim.Adam(objective.trainable_parameters(), 3e-3)
    torch.manual_seed(0)
    states = torch.randn(64, 5, 32)
    for _ in range(120):
        actions = agent.act(states[:, :-1]).sample()
        rewards = (actions["mouse"] == 2).float()
        rollout = Rollout(states, actions, rewards, torch.ones_like(rewards), torch.zeros(0))
        loss, metrics = objective.loss(rollout, torch.ones(64, dtype=torch.bool))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    probability = agent.act(states).parameters["mouse"].softmax(-1)[..., 2].mean()
    assert probability > 0.6 and metrics["kl_to_prior"] > 0.1


def test_terminal_starts_and_imagined_ends_do_not_count():
    agent = make()
    objective = ImaginationObjective(agent, ImaginationConfig(horizon=3))
    states = torch.randn(2, 4, 32)
    actions = agent.act(states[:, :-1]).sample()
    rewards, ends = torch.ones(2, 3), torch.tensor([[1.0, 1.0, 1.0], [0.0, 1.0, 1.0]])

    def gradient_rows(alive):
        s = states.clone().requires_grad_()
        loss, _ = objective.loss(Rollout(s, actions, rewards, ends, torch.zeros(0)), alive)
        return torch.autograd.grad(loss, s)[0].abs().sum(-1) > 0

    rows = gradient_rows(torch.tensor([True, True]))
    assert rows[0, :3].all() and rows[1, 0] and not rows[1, 1:].any()
    assert not gradient_rows(torch.tensor([False, True]))[0].any()


def players(num_envs, **kwargs):
    torch.manual_seed(0)
    tokenizer = Tokenizer(
        TokenizerConfig(
            frame_size=(16, 16), width=32, bottleneck_tokens=4, bottleneck_channels=8, context_length=4
        )
    )
    return Player(tokenizer, make(), num_envs, task=0, greedy=True, **kwargs)


def test_player_restarts_a_game_without_touching_the_other():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (12, 2, 16, 16, 3), dtype=np.uint8)
    together = players(2)
    for t in range(12):
        together.reset(np.array([t in (0, 7), t == 0]))
        out = together.act(frames[t])
    assert set(out) == set(SPACE.components) and out["keys"].shape == (2, 3)
    # the restarted game's memory begins at 7, the other one's at 0: exactly what the caches say
    assert together.cache.start.tolist() == [7, 0] == together.encoder_cache.start.tolist()
    assert out["arm"].min() >= -2 and out["arm"].max() <= 2


@pytest.mark.parametrize("prior", [False, True])
def test_player_is_deterministic_given_its_seed(prior):
    frames = np.random.default_rng(0).integers(0, 256, (5, 3, 16, 16, 3), dtype=np.uint8)

    def run():
        player = players(3, prior=prior, seed=4)
        player.reset(np.ones(3, bool))
        return [player.act(f)["mouse"].tolist() for f in frames]

    assert run() == run()


def test_a_change_of_task_in_mid_episode_is_the_same_with_and_without_caches():
    """What the player carried over ten frames, past its window of four, equals one pass over the whole sequence."""
    frames = np.random.default_rng(1).integers(0, 256, (10, 2, 16, 16, 3), dtype=np.uint8)
    tasks = np.array([[0, 1]] * 4 + [[1, 1]] * 2 + [[1, -1]] * 4)  # (T, N): rows change at different frames
    starts = np.array([[t == 0, t in (0, 5)] for t in range(10)])
    player = players(2, seed=3)
    states, taken = [], []
    for t in range(10):
        player.reset(starts[t])
        player.prompt(tasks[t])
        taken.append({name: x.clone() for name, x in player.last_actions.items()})
        player.act(frames[t])
        states.append(player.states)

    generator = torch.Generator().manual_seed(3)
    noise = torch.cat([torch.randn(2, 1, 4, 8, generator=generator) for _ in range(10)], 1)
    segment = torch.from_numpy(starts.cumsum(0)).T
    with torch.no_grad():
        latents = player.tokenizer.encode(torch.from_numpy(frames).transpose(0, 1), segment)
        step = Step({n: torch.cat([a[n] for a in taken], 1) for n in taken[0]}, ~torch.from_numpy(starts).T)
        dynamics, tokens = player.agent.dynamics, player.agent.agent_tokens(torch.from_numpy(tasks).T)
        fresh = dynamics.new_cache(2)
        whole = commit(dynamics, fresh, latents, step, noise, agent_tokens=tokens, segment=segment)
        torch.testing.assert_close(torch.cat(states, 1), whole[:, :, 0], atol=1e-5, rtol=1e-4)
        other = player.agent.agent_tokens(torch.zeros_like(segment))
        same = commit(
            dynamics, dynamics.new_cache(2), latents, step, noise, agent_tokens=other, segment=segment
        )
    assert not torch.allclose(same[:, -1, 0], whole[:, -1, 0], atol=1e-3), "the task made no difference"
    np.testing.assert_array_equal(player.values(), np.zeros(2))  # an untrained head expects nothing


def test_a_given_rollout_is_used_as_it_is():
    """Several updates on one rollout: the loss changes with the heads, the rollout does not."""
    agent, batch = make(), latent_batch()
    objective = ImaginationObjective(agent, ImaginationConfig(horizon=3, updates_per_rollout=2))
    rollout = imagine(agent, batch, objective.config)
    alive = torch.ones(4, dtype=torch.bool)
    torch.testing.assert_close(objective(batch, rollout)[0], objective.loss(rollout, alive)[0])
    optimizer = torch.optim.Adam(objective.trainable_parameters(), 1e-2)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss, _ = objective(batch, rollout)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_rollouts_are_for_losses_though_made_in_inference_mode():
    """Every part may be differentiated through, whatever ran first in this process."""
    rollout = imagine(make(), latent_batch(), ImaginationConfig(horizon=2))
    parts = [rollout.states, rollout.latents, rollout.rewards, rollout.continues, *rollout.actions.values()]
    assert not any(part.is_inference() for part in parts)


def test_contexts_in_pieces_make_the_same_rollouts():
    agent, rollouts = make(), []
    for frames_per_pass in (1, 500):
        torch.manual_seed(0)
        rollouts.append(
            imagine(
                agent,
                latent_batch(),
                ImaginationConfig(horizon=2, sampling_steps=1),
                frames_per_pass=frames_per_pass,
            )
        )
    torch.testing.assert_close(rollouts[0].states, rollouts[1].states, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_compiled_rollouts_and_players_are_the_same(monkeypatch):
    """Two rollouts compile twice (what makes a frame, what makes it past), a player twice more, round the ring."""
    trace_frames(monkeypatch)
    agent, config, began = make(), ImaginationConfig(horizon=6, sampling_steps=1), num_graphs()
    for seed in (0, 1):
        found = []
        for fast in (False, True):
            torch.manual_seed(seed)
            found.append(imagine(agent, latent_batch(), config, fast=fast))
        torch.testing.assert_close(found[1].states, found[0].states, atol=1e-3, rtol=1e-3)
    assert num_graphs() - began == 2
    slow, fast = players(2, seed=3), players(2, seed=3, fast=True)
    frames = np.random.default_rng(1).integers(0, 256, (10, 2, 16, 16, 3), dtype=np.uint8)
    for t in range(10):
        for player in (slow, fast):
            player.reset(np.array([t == 0, t in (0, 6)]))
            player.act(frames[t])
        torch.testing.assert_close(fast.states, slow.states, atol=1e-4, rtol=1e-4)
    assert num_graphs() - began == 4
