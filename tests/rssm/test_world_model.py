"""The world models on batches: resets, burn-in, unlabelled video, where gradients go."""

from dataclasses import replace

import pytest
import torch

from reverie.data.actions import ActionSpace
from reverie.data.errors import UserError
from reverie.rssm.presets import preset
from reverie.rssm.world_model import WorldModel, starts, warmed_up
from tests.batches import SPACE, frame_batch
from tests.rssm.models import GENERATIONS, known_batch, small_model, with_gradient


@pytest.mark.parametrize("generation", GENERATIONS)
def test_an_episode_start_forgets_the_past(generation):
    """A sequence with is_first at k equals a fresh run from k, whatever came before."""
    world, batch, k = small_model(generation).world_model, known_batch(), 3
    past, _ = world.observe(
        world.initial(3),
        {name: x[:, :k] for name, x in batch.actions.items()},
        batch.action_mask[:, :k],
        batch.frames[:, :k],
        batch.is_first[:, :k],
    )
    later = batch.steps(k, 8)
    first = torch.zeros(3, 5, dtype=torch.bool)
    first[:, 0] = True
    known = torch.ones_like(first)  # even an action that is wrongly marked as known at a first frame

    def run(state, is_first):
        torch.manual_seed(1)
        return world.observe(state, later.actions, known, later.frames, is_first)

    carried, fresh = run(past.map(lambda x: x[:, -1]), first), run(world.initial(3), first)
    torch.testing.assert_close(carried[0].deter, fresh[0].deter, rtol=0, atol=0)
    torch.testing.assert_close(carried[0].stoch, fresh[0].stoch, rtol=0, atol=0)
    continued = run(past.map(lambda x: x[:, -1]), torch.zeros_like(first))
    assert not torch.allclose(continued[1], fresh[1])


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_start_within_a_row_forgets_too(generation):
    world, batch = small_model(generation).world_model, known_batch()
    for change in ("is_first", "segment"):
        cut = known_batch()
        if change == "is_first":
            cut.is_first[:, 5] = True
            cut.action_mask[:, 5] = False
        else:
            cut.segment[:, 5:] = 1
            cut.action_mask[:, 5] = False
        first = starts(cut)
        _, parameters = world.observe(world.initial(3), cut.actions, cut.action_mask, cut.frames, first)
        alone = cut.steps(5, 6)
        _, fresh = world.observe(
            world.initial(3), alone.actions, alone.action_mask, alone.frames, first[:, 5:6]
        )
        torch.testing.assert_close(parameters[:, 5], fresh[:, 0])
    assert starts(batch).sum() == 3


def test_burn_in_covers_pieces_that_start_mid_episode():
    batch = frame_batch(3, 8, 16, 16)
    batch.segment.zero_()
    batch.segment[0, 4:] = 1
    batch.is_first[1, 0] = True
    batch.is_first[2, 1] = True
    assert warmed_up(batch, 2).int().tolist() == [
        [0, 0, 1, 1, 0, 0, 1, 1],
        [1, 1, 1, 1, 1, 1, 1, 1],
        [0, 1, 1, 1, 1, 1, 1, 1],
    ]
    assert warmed_up(batch, 0).all()


@pytest.mark.parametrize("generation", GENERATIONS)
def test_burnt_in_steps_have_no_loss(generation):
    model = small_model(generation, burn_in=3)
    batch = known_batch()
    batch.is_first.zero_()

    torch.nn.init.normal_(model.world_model.reward_head.layers[-1].weight)

    def reward_loss(wrong: int) -> torch.Tensor:
        torch.manual_seed(0)
        changed = replace(batch, reward=batch.reward.clone())
        changed.reward[:, wrong] += 5
        return model.world_model.loss(changed).metrics["loss/reward"]

    assert reward_loss(0) == reward_loss(2) != reward_loss(3)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_the_loss_reaches_every_parameter_and_falls(generation):
    model, batch = small_model(generation).world_model, known_batch()
    if generation == "v1":
        model.config = replace(model.config, free_nats=0.0)
    first = model.loss(batch).loss
    first.backward()
    unreached = {name for name, _ in model.named_parameters()} - with_gradient(model)
    # Zero-initialised outputs stop gradients to their own head in the first step only.
    assert unreached <= {name for name, _ in model.named_parameters() if name.startswith("reward_head")}
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        loss = model.loss(batch).loss
        loss.backward()
        optimizer.step()
    assert loss < first - 5


@pytest.mark.parametrize("generation", GENERATIONS)
def test_unlabelled_video_trains_neither_action_inputs_nor_reward_and_continue(generation):
    model, batch = small_model(generation).world_model, known_batch()
    batch.action_mask.zero_()
    batch.reward_mask.zero_()
    batch.reward.fill_(float("nan"))
    observed = model.loss(batch)
    observed.loss.backward()
    assert torch.isfinite(observed.loss)
    for head in (model.reward_head, model.continue_head):
        assert all(p.grad is None or (p.grad == 0).all() for p in head.parameters())
    if generation == "v3":
        reads_actions = model.core.action_in.weight.grad
    else:
        reads_actions = model.core.inputs.weight.grad[:, model.core.latent.size :]
    assert (reads_actions == 0).all()
    assert with_gradient(model.encoder)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_values_of_unknown_actions_do_not_matter(generation):
    model, batch = small_model(generation).world_model, known_batch()
    batch.action_mask[:, 3:] = False

    def loss() -> torch.Tensor:
        torch.manual_seed(0)
        return model.loss(batch).loss

    before = loss()
    batch.actions["mouse"][:, 3:] = (batch.actions["mouse"][:, 3:] + 1) % 5
    batch.actions["arm"][:, 3:] += 0.5
    assert loss() == before
    batch.actions["keys"][:, 2] ^= True
    assert loss() != before


@pytest.mark.parametrize("generation", GENERATIONS)
def test_the_continue_head_learns_gamma(generation):
    model, batch = small_model(generation).world_model, known_batch()
    batch.is_terminal[:, -1] = True
    model.config = replace(model.config, continue_scale=1.0)
    logits = torch.full((3, 8), 0.3, requires_grad=True)
    target = (~batch.is_terminal).float() * model.config.discount
    loss = model.continue_head.loss(logits, target)
    p = torch.tensor(0.3).sigmoid()
    expected = -(target * p.log() + (1 - target) * (1 - p).log())
    torch.testing.assert_close(loss, expected)
    # With logits free, the minimum lies at gamma before the end and at 0 there.
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    torch.testing.assert_close(gradient, p - target)
    model.continue_head.layers = torch.nn.Linear(model.core.feature_size, 1)
    torch.nn.init.zeros_(model.continue_head.layers.weight)
    torch.nn.init.constant_(model.continue_head.layers.bias, 0.3)
    torch.testing.assert_close(model.loss(batch).metrics["loss/continue"], expected.mean())


def test_v3_discount_is_that_of_333_steps():
    assert preset("v3-12m").world_model.discount == pytest.approx(0.996997, abs=1e-6)


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("size", [(40, 40), (64, 64), (24, 56)])
def test_frames_of_any_size(generation, size):
    world = small_model(generation, size=size).world_model
    batch = known_batch()
    batch.frames = torch.randint(0, 256, (3, 8, *size, 3), dtype=torch.uint8)
    states, valid = world.infer(batch)
    assert valid.all()
    assert world.decode(states).shape == (3, 8, 3, *size)
    assert torch.isfinite(world.loss(batch).loss)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_open_loop_prediction_depends_on_actions(generation):
    world, batch = small_model(generation).world_model, known_batch()
    states, _ = world.infer(batch)
    start = states.map(lambda x: x[:, 3])
    actions = {name: x[:, 4:] for name, x in batch.actions.items()}

    def imagine() -> torch.Tensor:
        torch.manual_seed(0)
        return world.imagine(start, actions).deter

    before = imagine()
    assert before.shape == (3, 4, 32)
    actions["mouse"] = actions["mouse"].clone()
    actions["mouse"][:, 2] = (actions["mouse"][:, 2] + 1) % 5
    after = imagine()
    torch.testing.assert_close(after[:, :2], before[:, :2])
    assert not torch.allclose(after[:, 2], before[:, 2])


def test_prior_members_are_drawn_for_each_step():
    config = small_model("v2").config.world_model
    world = WorldModel(replace(config, prior_members=3), (16, 16, 3), SPACE)
    deter = torch.randn(2, 40, 32)
    every = world.core.all_priors(deter)
    drawn = world.core.prior(deter)
    used = {
        next(m for m in range(3) if torch.allclose(drawn[:, t], every[m, :, t], atol=1e-6)) for t in range(40)
    }
    assert used == {0, 1, 2}


def test_data_without_actions_are_refused():
    with pytest.raises(UserError, match="recordings with actions"):
        WorldModel(preset("v3-1m").world_model, (64, 64, 3), ActionSpace())
