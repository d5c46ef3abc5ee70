"""Dreamer V1 to V3 under bfloat16 autocast: states and images are not rounded, products of the core are."""

import pytest
import torch

from reverie.nn.precision import bfloat16
from reverie.rssm.model import Dreamer
from reverie.rssm.presets import preset
from reverie.rssm.state import State
from tests.batches import SPACE
from tests.rssm.models import GENERATIONS, known_batch, small_model

CPU = torch.device("cpu")


@torch.no_grad()
@pytest.mark.parametrize("generation", GENERATIONS)
def test_images_are_the_same_to_the_bit(generation):
    model = small_model(generation).world_model
    states, _ = model.infer(known_batch())
    expected = model.decode(states)
    with bfloat16(CPU):
        assert torch.equal(model.decode(states), expected)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_states_are_not_rounded_from_step_to_step(generation):
    model = small_model(generation).world_model
    with bfloat16(CPU):
        observed = model.loss(known_batch())
        state = observed.states.map(lambda x: x[:, -1])
        imagined: State = model.core.step(model.core.linears(), state, torch.zeros(3, 3 + 5 + 2))
    for states in (observed.states, imagined):
        assert states.deter.dtype == states.stoch.dtype == torch.float32
        assert not torch.equal(states.deter, states.deter.bfloat16().float())


@torch.no_grad()
@pytest.mark.parametrize("generation", GENERATIONS)
def test_rewards_are_predicted_from_exact_last_layers(generation):
    head = small_model(generation).world_model.reward_head.layers
    torch.nn.init.normal_(head[-1].weight)  # V3 starts at 0
    inputs = []
    head[-1].register_forward_pre_hook(lambda _, x: inputs.append(x[0].float()))
    with bfloat16(CPU):
        out = head(torch.randn(4, head[0].in_features))
    assert torch.equal(out, torch.nn.functional.linear(inputs[0], head[-1].weight, head[-1].bias))


def moving_square(seed: int):
    """Rows of 8 frames: a background that never changes and a square that drifts."""
    batch = known_batch(4, 8, 32, seed=seed)
    scenery = torch.randint(0, 256, (32, 32, 3), generator=torch.Generator().manual_seed(0))
    batch.frames[:] = scenery.to(torch.uint8)
    for row in batch.frames:
        x = int(torch.randint(0, 16, ()))
        for t, frame in enumerate(row):
            frame[8:16, x + t : x + t + 8] = 255
    return batch


def trained_loss(half: bool, steps: int = 120) -> float:
    """Mean world-model loss of the last third of a short training of V3."""
    torch.manual_seed(0)
    model, losses = Dreamer(preset("v3-1m"), (32, 32, 3), SPACE).world_model, []
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for step in range(steps):
        torch.manual_seed(step)
        with bfloat16(CPU, half):
            loss = model.loss(moving_square(step)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses[-steps // 3 :]) / (steps // 3)


@pytest.mark.slow
def test_v3_learns_in_bfloat16_what_it_learns_in_float32():
    assert trained_loss(True) == pytest.approx(trained_loss(False), rel=0.03)
