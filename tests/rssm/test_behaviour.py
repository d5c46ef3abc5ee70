"""Actor and critic: losses against explicit sums, gradient routes, slow critics, the replay value loss."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from reverie.nn.twohot import twohot_loss
from reverie.rssm.imagination import imagine
from reverie.rssm.model import Dreamer, DreamerObjective
from reverie.rssm.overestimation import overestimation
from reverie.rssm.recorded import recorded_returns
from reverie.rssm.targets import TARGETS, Imagined
from tests.rssm.models import GENERATIONS, known_batch, small_model, with_gradient

LAMBDA = 0.95


def opinionated(generation: str, **settings: object) -> Dreamer:
    """A model whose heads predict something, though it has learned nothing."""
    model = small_model(generation, **settings)
    for module in (model.world_model.reward_head, model.world_model.continue_head, model.behaviour):
        for p in module.parameters():
            torch.nn.init.normal_(p, std=0.2)
    return model


def predictions(model: Dreamer, batch, seed: int) -> dict[str, np.ndarray]:
    """What the imagination of `Behaviour.loss` under this seed predicts, as float64 arrays (N, H+1) or (N, H)."""
    world, behaviour = model.world_model, model.behaviour
    torch.manual_seed(0)
    states, _ = world.infer(batch)
    torch.manual_seed(seed)
    with torch.no_grad():
        roll = imagine(world.core, behaviour.act, states.flatten(), behaviour.config.horizon)
        policy = behaviour.policy(roll.features[:-1])
        found = {
            "r": world.reward(roll.features),
            "c": world.continues(roll.features),
            "v": behaviour.value(roll.features),
            "log_pi": policy.log_prob(roll.actions),
            "entropy": policy.entropy(),
        }
        if behaviour.slow is not None:
            found["slow"] = behaviour.slow.value(roll.features)
    return {name: x.T.double().numpy() for name, x in found.items()}


def losses(model: Dreamer, batch, seed: int) -> tuple[float, float]:
    torch.manual_seed(0)
    states, valid = model.world_model.infer(batch)
    torch.manual_seed(seed)
    metrics = model.behaviour.loss(model.world_model, states, valid, batch).metrics
    return metrics["loss/actor"].item(), metrics["loss/critic"].item()


def test_v1_losses_by_hand():
    model, batch = opinionated("v1").eval(), known_batch()
    batch.is_terminal[1, -1] = True
    p, horizon = predictions(model, batch, 5), 4
    actor = critic = count = 0.0
    alive = ~batch.is_terminal.flatten().numpy()
    for n in np.flatnonzero(alive):
        r, c, v = (p[name][n] for name in "rcv")
        returns, following = {}, v[horizon]
        for t in range(horizon - 1, 0, -1):
            following = r[t] + c[t] * ((1 - LAMBDA) * v[t + 1] + LAMBDA * following)
            returns[t] = following
        weight = 1.0
        for t in range(1, horizon):
            actor -= weight * returns[t]
            critic += weight * (0.5 * (v[t] - returns[t]) ** 2 + 0.5 * math.log(2 * math.pi))
            weight *= c[t]
            count += 1
    assert losses(model, batch, 5) == pytest.approx((actor / count, critic / count), rel=1e-4)


def test_v2_losses_by_hand():
    model, batch = opinionated("v2").eval(), known_batch()
    batch.is_terminal[1, -1] = True
    p, horizon = predictions(model, batch, 5), 4
    gamma, eta = model.config.world_model.discount, model.config.behaviour.entropy_scale
    terminal = batch.is_terminal.flatten().numpy()
    actor, critic = [], []
    for n in range(24):
        r, v, slow = (p[name][n] for name in ("r", "v", "slow"))
        c = p["c"][n].copy()
        c[0] = gamma * (1 - terminal[n])
        returns, following = {}, slow[horizon]
        for t in range(horizon - 1, -1, -1):
            following = r[t] + c[t] * ((1 - LAMBDA) * slow[t + 1] + LAMBDA * following)
            returns[t] = following
        weight = 1.0
        for t in range(horizon):
            critic.append(weight * (0.5 * (v[t] - returns[t]) ** 2 + 0.5 * math.log(2 * math.pi)))
            if t < horizon - 1:
                gain = p["log_pi"][n, t] * (returns[t + 1] - slow[t])
                actor.append(-weight * (gain + eta * p["entropy"][n, t]))
            weight *= c[t]
    assert losses(model, batch, 5) == pytest.approx((np.mean(actor), np.mean(critic)), rel=1e-4)


def test_v3_losses_by_hand():
    model, batch = opinionated("v3").eval(), known_batch()
    model.behaviour.range.high.fill_(3.0)
    p, horizon, eta = predictions(model, batch, 5), 4, 3e-4
    actor, critic = [], []

    def cross_entropy(n: int, t: int, target: float) -> float:
        return twohot_loss(logits[n, t], torch.tensor(target)).item()

    torch.manual_seed(0)
    states, _ = model.world_model.infer(batch)
    torch.manual_seed(5)
    with torch.no_grad():
        roll = imagine(model.world_model.core, model.behaviour.act, states.flatten(), horizon)
        logits = model.behaviour.critic(roll.features.transpose(0, 1))
    for n in range(24):
        r, c, v, slow = (p[name][n] for name in ("r", "c", "v", "slow"))
        returns, following = {}, v[horizon]
        for t in range(horizon - 1, -1, -1):
            following = r[t + 1] + c[t + 1] * ((1 - LAMBDA) * v[t + 1] + LAMBDA * following)
            returns[t] = following
        weight = 1.0
        for t in range(horizon):
            weight *= c[t]
            gain = p["log_pi"][n, t] * (returns[t] - v[t]) / 3.0
            actor.append(-weight * (gain + eta * p["entropy"][n, t]))
            critic.append(weight * (cross_entropy(n, t, returns[t]) + cross_entropy(n, t, slow[t])))
    assert losses(model, batch, 5) == pytest.approx((np.mean(actor), np.mean(critic)), rel=1e-4)


def test_replay_returns_by_hand_in_float64():
    """Terminals, truncations, unknown rewards, other pieces of video: against a recursion written out."""
    torch.manual_seed(0)
    batch = known_batch(4, 10)
    batch.reward = torch.randn(4, 10)
    batch.is_terminal[0, 4] = batch.is_last[0, 4] = True
    batch.is_first[0, 5] = True
    batch.is_last[1, 6] = True
    batch.is_first[1, 7] = True
    batch.segment[2, 3:] = 1
    batch.reward_mask[3, 5] = False
    value, gamma = torch.randn(4, 10), 0.9
    got, known = recorded_returns(batch, batch.reward, value, gamma, LAMBDA)
    r, v = batch.reward.double().numpy(), value.double().numpy()

    def follows(b: int, t: int) -> bool:  # the step from t to t + 1 is part of the data
        return bool(
            t + 1 < 10
            and not batch.is_first[b, t + 1]
            and batch.segment[b, t] == batch.segment[b, t + 1]
            and batch.reward_mask[b, t + 1]
        )

    def rest(b: int, t: int) -> float:
        onward = 0.0
        if not batch.is_terminal[b, t + 1]:
            tail = rest(b, t + 1) if follows(b, t + 1) else v[b, t + 1]
            onward = gamma * ((1 - LAMBDA) * v[b, t + 1] + LAMBDA * tail)
        return r[b, t + 1] + onward

    for b in range(4):
        for t in range(9):
            assert bool(known[b, t]) == follows(b, t)
            if follows(b, t):
                assert got[b, t].item() == pytest.approx(rest(b, t), rel=1e-5, abs=1e-6)
    assert known.sum() == 36 - 4


def test_the_replay_value_loss_is_the_mean_over_known_steps():
    model, batch = opinionated("v3").eval(), known_batch()
    batch.reward_mask[0, 4] = False
    torch.manual_seed(0)
    states, valid = model.world_model.infer(batch)
    valid[1, :3] = False
    torch.manual_seed(5)
    metrics = model.behaviour.loss(model.world_model, states, valid, batch).metrics
    p = predictions(model, batch, 5)
    boot = np.zeros(24)
    for n in range(24):
        following = p["v"][n, 4]
        for t in range(3, -1, -1):
            mixed = (1 - LAMBDA) * p["v"][n, t + 1] + LAMBDA * following
            following = p["r"][n, t + 1] + p["c"][n, t + 1] * mixed
        boot[n] = following
    gamma = model.config.world_model.discount
    reward = torch.where(batch.reward_mask, batch.reward, 0.0)
    returns, known = recorded_returns(batch, reward, torch.tensor(boot).reshape(3, 8).float(), gamma, LAMBDA)
    feature = model.world_model.feature(states)[:, :-1]
    out = model.behaviour.critic(feature)
    each = twohot_loss(out, returns) + twohot_loss(out, model.behaviour.slow.value(feature))
    expected = each[known & valid[:, :-1]].mean()
    torch.testing.assert_close(metrics["loss/replay_value"], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("gradient", ["reinforce", "dynamics", "both"])
@pytest.mark.parametrize("generation", GENERATIONS)
def test_imagination_trains_actor_and_critic_alone(generation, gradient):
    model = opinionated(generation, actor_gradient=gradient, replay_value_scale=0.0, cloning_scale=1.0)
    batch = known_batch()
    states, valid = model.world_model.infer(batch)
    model.behaviour.loss(model.world_model, states, valid, batch).loss.backward()
    reached = with_gradient(model)
    assert {name.split(".")[0] for name in reached} == {"behaviour"}
    assert {name.split(".")[1] for name in reached} == {"actor", "critic"}
    assert all(p.requires_grad for p in model.world_model.parameters())


@pytest.mark.parametrize("generation", GENERATIONS)
def test_weights_of_steps_bring_no_gradient(generation):
    """Returns do, through rewards, values and the continue head."""
    predicted = [torch.rand(5, 3, requires_grad=True) for _ in range(3)]
    targets = TARGETS[generation](Imagined(*predicted), LAMBDA)
    assert not targets.critic_weight.requires_grad and not targets.actor_weight.requires_grad
    gradients = torch.autograd.grad(targets.returns.sum(), predicted)
    assert all(bool(g.abs().max() > 0) for g in gradients)


def test_imagined_returns_are_given_to_the_replay_value_loss():
    """Even where they have a gradient to the actor."""
    gradients = []
    for scale in (0.0, 5.0):
        model = opinionated("v3", actor_gradient="dynamics", replay_value_scale=scale)
        torch.manual_seed(0)
        states, valid = model.world_model.infer(known_batch())
        torch.manual_seed(1)
        model.behaviour.loss(model.world_model, states, valid, known_batch()).loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.behaviour.actor.parameters()]))
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("generation", GENERATIONS)
def test_only_dynamics_gradients_come_through_the_world_model(generation):
    """With a policy gradient of zero advantage nothing is left, unless it flows through the imagined states."""
    for gradient in ("reinforce", "dynamics"):
        model = opinionated(generation, actor_gradient=gradient, entropy_scale=0.0)
        batch = known_batch()
        states, valid = model.world_model.infer(batch)
        rollout = model.behaviour._imagine(model.world_model, states.detach().flatten())
        assert rollout.features.requires_grad == (gradient == "dynamics")
        assert not any(p.grad is not None for p in model.parameters())
        if gradient == "dynamics":
            rollout.features[-1].sum().backward()
            assert {name.split(".")[1] for name in with_gradient(model)} == {"actor"}


def test_v1_actor_follows_the_gradient_of_the_reward():
    """Reward = one dimension of h: a few updates of the actor through the dynamics raise the return."""
    model = small_model("v1", replay_value_scale=0.0)
    model.world_model.reward_head.layers = torch.nn.Linear(model.world_model.core.feature_size, 1)
    batch = known_batch(4, 8)
    states, valid = model.world_model.infer(batch)
    optimizer = torch.optim.Adam(model.behaviour.parameters(), 1e-2)
    returns = []
    for step in range(60):
        torch.manual_seed(step)
        optimizer.zero_grad()
        learned = model.behaviour.loss(model.world_model, states, valid, batch)
        learned.loss.backward()
        optimizer.step()
        returns.append(learned.metrics["loss/actor"].item())
    assert np.mean(returns[-10:]) < np.mean(returns[:10]) - 0.01


@pytest.mark.parametrize("generation", ["v2", "v3"])
def test_reinforce_makes_rewarded_actions_likely(generation):
    """Reward for key 0, paid by a reward head that reads it off the world model's own input."""
    model = small_model(generation, replay_value_scale=0.0, entropy_scale=0.0)
    world, batch = model.world_model, known_batch(8, 8)
    states, valid = world.infer(batch)
    feature = world.feature(states)

    class Paid(torch.nn.Module):
        """1 where h moved along the direction that key 0 moves it."""

        def __init__(self) -> None:
            super().__init__()
            step = world.core.step
            start = states.flatten().map(lambda x: x[:1].detach())
            up, down = torch.zeros(2, 1, 10)
            up[0, 0] = 1
            linears = world.core.linears()
            self.direction = (step(linears, start, up).deter - step(linears, start, down).deter).detach()

        def forward(self, feature: torch.Tensor) -> torch.Tensor:
            deter = feature[..., :32] if generation == "v3" else feature[..., -32:]
            return 50 * (deter * self.direction).sum(-1, keepdim=True)

        def mean(self, out: torch.Tensor) -> torch.Tensor:
            return out.squeeze(-1)

    world.reward_head = Paid()
    key = model.behaviour.policy(feature.detach()).factors[0]
    before = key.logits[..., 0].mean().item()
    optimizer = torch.optim.Adam(model.behaviour.parameters(), 1e-2)
    for step in range(60):
        torch.manual_seed(step)
        optimizer.zero_grad()
        model.behaviour.loss(world, states.detach(), valid, batch).loss.backward()
        optimizer.step()
    after = model.behaviour.policy(feature.detach()).factors[0].logits[..., 0].mean().item()
    assert after > before + 0.3


def test_the_replay_value_loss_reaches_encoder_and_core_of_the_joint_objective():
    model, batch = opinionated("v3"), known_batch()
    states, valid = model.world_model.infer(batch)
    model.behaviour.loss(model.world_model, states, valid, batch).loss.backward()
    reached = {".".join(name.split(".")[:2]) for name in with_gradient(model)}
    assert reached == {"behaviour.actor", "behaviour.critic", "world_model.encoder", "world_model.core"}


@pytest.mark.parametrize("generation", GENERATIONS)
def test_phases_train_their_own_part(generation):
    for phase, part in (("world_model", {"world_model"}), ("behaviour", {"behaviour"})):
        model = opinionated(generation)
        loss, metrics = DreamerObjective(model, phase)(known_batch())
        loss.backward()
        assert {name.split(".")[0] for name in with_gradient(model)} == part
        assert metrics["loss"] == loss and not any(x.requires_grad for x in metrics.values())
    model = opinionated(generation)
    DreamerObjective(model)(known_batch())[0].backward()
    assert {name.split(".")[0] for name in with_gradient(model)} == {"world_model", "behaviour"}
    assert not any("slow" in name for name in with_gradient(model))


def test_joint_gradients_of_v1_are_those_of_the_separate_losses():
    """One backward pass: the actor's path through the frozen world model leaves no trace in it."""
    batch, alone, joint = known_batch(), opinionated("v1"), opinionated("v1")
    torch.manual_seed(3)
    alone.world_model.loss(batch).loss.backward()
    torch.manual_seed(3)
    DreamerObjective(joint)(batch)[0].backward()
    for a, b in zip(alone.world_model.parameters(), joint.world_model.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_slow_critics_follow():
    for generation in ("v2", "v3"):
        model, batch = opinionated(generation), known_batch()
        behaviour, objective = model.behaviour, DreamerObjective(model)
        behaviour.slow.critic.load_state_dict(behaviour.critic.state_dict())
        fast, slow = next(behaviour.critic.parameters()), next(behaviour.slow.critic.parameters())
        expected = slow.detach().clone()
        for update in range(104):
            behaviour.slow.follow(behaviour.critic)
            if generation == "v3":
                expected += 0.02 * (fast.detach() - expected)
            elif update in (1, 101):  # copied after updates 1, 101, ...
                expected = fast.detach().clone()
            torch.testing.assert_close(slow.detach(), expected)
            with torch.no_grad():
                fast += 0.01
        count = int(behaviour.slow.updates)
        objective.eval()(batch)
        assert int(behaviour.slow.updates) == count == 104
        objective.train()(batch)
        assert int(behaviour.slow.updates) == count + 1


def test_the_return_range_learns_while_training_only():
    model, batch = opinionated("v3"), known_batch()
    objective = DreamerObjective(model)
    objective.eval()(batch)
    assert model.behaviour.range.high == 0
    objective.train()(batch)
    assert model.behaviour.range.high != 0


def test_the_return_range_sees_the_starts_that_count():
    model, batch = opinionated("v3"), known_batch()
    p = predictions(model, batch, 5)
    torch.manual_seed(0)
    states, valid = model.world_model.infer(batch)
    valid[:, :6] = False
    torch.manual_seed(5)
    model.behaviour.loss(model.world_model, states, valid, batch)
    following, returns = p["v"][:, 4], []
    for t in range(4, 0, -1):
        following = p["r"][:, t] + p["c"][:, t] * ((1 - LAMBDA) * p["v"][:, t] + LAMBDA * following)
        returns.append(following[valid.flatten().numpy()])
    low, high = np.percentile(returns, [5, 95])
    assert model.behaviour.range.low.item() == pytest.approx(0.01 * low, rel=1e-3, abs=1e-6)
    assert model.behaviour.range.high.item() == pytest.approx(0.01 * high, rel=1e-3, abs=1e-6)


def test_cloning_uses_known_actions_and_lowers_their_surprise():
    model, batch = small_model("v3", cloning_scale=1.0), known_batch()
    batch.action_mask[:, 4:] = False
    states, valid = model.world_model.infer(batch)
    states = states.detach()
    first = model.behaviour.cloning_loss(model.world_model, states, valid, batch)
    batch.actions["mouse"][:, 5:] = 0
    assert first == model.behaviour.cloning_loss(model.world_model, states, valid, batch)
    batch.action_mask.zero_()
    assert model.behaviour.cloning_loss(model.world_model, states, valid, batch) == 0
    batch.action_mask[:, 1:4] = True
    optimizer = torch.optim.Adam(model.behaviour.actor.parameters(), 1e-2)
    for _ in range(50):
        optimizer.zero_grad()
        loss = model.behaviour.cloning_loss(model.world_model, states, valid, batch)
        loss.backward()
        optimizer.step()
    assert loss < first - 1


@pytest.mark.parametrize("generation", GENERATIONS)
def test_overestimation_compares_with_recorded_rewards(generation):
    """A critic that is right about a reward of 1 for ever is not optimistic, unless the episode ends."""
    model, batch = small_model(generation), known_batch()
    batch.reward.fill_(1.0)
    gamma = model.config.world_model.discount
    unit = math.tanh(1.0) if model.config.world_model.reward_transform == "tanh" else 1.0
    forever = unit / (1 - gamma)  # with the state's own reward (V1, V2) or without (V3): the same sum

    class Knows(torch.nn.Module):
        def forward(self, feature: torch.Tensor) -> torch.Tensor:
            return torch.full_like(feature[..., :1], forever)

        def mean(self, out: torch.Tensor) -> torch.Tensor:
            return out.squeeze(-1)

    model.behaviour.critic = Knows()
    assert overestimation(model, batch)["overestimation"].abs() < 1e-2
    batch.is_terminal[:, -1] = True
    assert overestimation(model, batch)["overestimation"] > 1


def test_the_penalty_lowers_imagined_returns():
    torch.manual_seed(0)
    base = small_model("v2")
    config = replace(
        base.config,
        world_model=replace(base.config.world_model, prior_members=3),
        behaviour=replace(base.config.behaviour, penalty="meandis", penalty_scale=10.0),
    )
    torch.manual_seed(0)
    model, batch = Dreamer(config, (16, 16, 3), base.world_model.action_space), known_batch()
    torch.manual_seed(0)
    free = Dreamer(
        replace(config, behaviour=replace(config.behaviour, penalty="none")),
        (16, 16, 3),
        base.world_model.action_space,
    )
    returns = []
    for each in (model, free):
        torch.manual_seed(1)
        returns.append(DreamerObjective(each, "behaviour")(batch)[1]["return"].item())
    assert returns[0] < returns[1] - 1
