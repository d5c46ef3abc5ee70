"""The rungs below the paper's objective: v-prediction, loss in v-space, no ramp, no shortcuts; against float64 by hand."""

from dataclasses import replace

import pytest
import torch

from reverie.dynamics.generation import generate
from reverie.dynamics.model import Dynamics, DynamicsConfig
from reverie.dynamics.objective import (
    Corruption,
    DynamicsObjective,
    DynamicsObjectiveConfig,
    draw_corruption,
    forcing_step,
    shortcut_forcing_loss,
)
from tests.batches import SPACE, latent_batch, random_actions
from tests.dynamics.test_objective import PointwiseNetwork

CONFIG = DynamicsConfig(latent_shape=(4, 8), width=32, depth=4, context_length=4, max_sampling_steps=8)


def twins(**changes):
    """The same weights, read as clean latents and otherwise."""
    torch.manual_seed(0)
    x = Dynamics(CONFIG, SPACE)
    other = Dynamics(replace(CONFIG, **changes), SPACE)
    other.load_state_dict(x.state_dict())
    return x, other


def test_velocities_are_clean_latents_transformed():
    """z_hat = z_tilde + (1 - tau) v, whatever tau each frame has."""
    x, v = twins(prediction="v")
    batch = latent_batch(3)
    z_tilde, level = torch.randn(3, 12, 4, 8), torch.randint(0, 8, (3, 12))
    given = z_tilde, level, torch.full_like(level, 3), batch.actions, batch.action_mask
    said, found = x(*given)[0].double(), v(*given)[0].double()
    for b in range(3):
        for t in range(12):
            tau = level[b, t].item() / 8
            torch.testing.assert_close(
                found[b, t], z_tilde[b, t].double() + (1 - tau) * said[b, t], atol=1e-6, rtol=0
            )
    assert not torch.allclose(said, found)


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("context", [0, 3])
def test_videos_follow_the_velocities(steps, context):
    """Euler's steps z <- z + v / K, by the raw network and without a cache."""
    x, v = twins(prediction="v")
    torch.manual_seed(1)
    latents, actions = torch.randn(2, context + 1, 4, 8), random_actions(2, context + 1)
    mask = torch.ones(2, context + 1, dtype=torch.bool)
    before, after = ({n: a[:, s] for n, a in actions.items()} for s in (slice(context), slice(context, None)))
    generator = torch.Generator().manual_seed(2)
    found = generate(
        *(v, latents[:, :context], before, mask[:, :context], after, mask[:, context:]),
        sampling_steps=steps,
        generator=generator,
    )
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(2, context, 4, 8, generator=generator) if context else torch.zeros(2, 0, 4, 8)
    z = torch.randn(2, 1, 4, 8, generator=generator)
    tau = CONFIG.context_signal_index / 8
    past = (1 - tau) * noise + tau * latents[:, :context]
    for i in range(steps):
        level = torch.tensor([CONFIG.context_signal_index] * context + [i * 8 // steps]).expand(2, -1)
        size = torch.tensor([3] * context + [steps.bit_length() - 1]).expand(2, -1)
        z = z + x(torch.cat([past, z], 1), level, size, actions, mask)[0][:, -1:] / steps
    torch.testing.assert_close(found, z, atol=1e-4, rtol=1e-4)


def drawn_in_float64():
    torch.manual_seed(0)
    z = torch.rand(8, 12, 4, 8, dtype=torch.float64) * 2 - 1
    config = DynamicsConfig(latent_shape=(4, 8))
    drawn = draw_corruption(z, config, torch.ones(8, dtype=torch.bool))
    return z, Corruption(drawn.signal_index, drawn.step_index, drawn.noise.double()), config


@pytest.mark.parametrize("ramp", [True, False])
def test_losses_in_v_space_match_velocities_by_hand(ramp):
    """||v_hat - v||^2 with v = z - z0, and with the mean of the two half steps, frame by frame; weights 1 without the ramp."""
    z, drawn, config = drawn_in_float64()
    loss, _ = forcing_step(PointwiseNetwork(), z, drawn, config, space="v", ramp=ramp)

    def f(x, tau, d):
        return torch.sin(x) * (1 + tau) + d

    expected = []
    for b in range(8):
        for t in range(12):
            tau, d = drawn.signal_index[b, t].item() / 64, 0.5 ** drawn.step_index[b, t].item()
            z_tilde = (1 - tau) * drawn.noise[b, t] + tau * z[b, t]
            velocity = z[b, t] - drawn.noise[b, t]
            if d > 1 / 64:
                b1 = (f(z_tilde, tau, d / 2) - z_tilde) / (1 - tau)
                half = z_tilde + b1 * d / 2
                velocity = (b1 + (f(half, tau + d / 2, d / 2) - half) / (1 - tau - d / 2)) / 2
            said = (f(z_tilde, tau, d) - z_tilde) / (1 - tau)
            weight = 0.9 * tau + 0.1 if ramp else 1.0
            expected.append(weight * (said - velocity).square().mean())
    torch.testing.assert_close(loss, torch.stack(expected).mean(), atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize(("space", "ramp"), [("x", True), ("x", False), ("v", True), ("v", False)])
def test_gradients_are_weighted_as_written(space, ramp):
    """d loss / d z_hat = 2 w (z_hat - z) / (N_z D_z), w = (0.9 tau + 0.1 | 1) (1 | 1 / (1 - tau)^2)."""
    torch.manual_seed(0)
    z, z_hat = (torch.randn(2, 5, 4, 8, dtype=torch.float64) for _ in range(2))
    z_hat.requires_grad_()
    tau = torch.tensor([0.0, 0.25, 0.5, 0.75, 63 / 64], dtype=torch.float64).expand(2, 5)
    finest = torch.ones(2, 5, dtype=torch.bool)
    loss = shortcut_forcing_loss(
        z_hat, z, torch.randn_like(z), torch.zeros_like(z), tau, finest, space=space, ramp=ramp
    )
    loss.sum().backward()
    for t in range(5):
        level = tau[0, t].item()
        weight = (0.9 * level + 0.1 if ramp else 1.0) / ((1 - level) ** 2 if space == "v" else 1.0)
        torch.testing.assert_close(z_hat.grad[:, t], weight * 2 * (z_hat - z).detach()[:, t] / 32)


def test_without_shortcuts_there_is_one_step_size():
    """In training, without a bootstrap pass, and for any number of sampling steps."""
    config = replace(CONFIG, shortcut=False)
    z = torch.zeros(50, 20, 4, 8)
    drawn = draw_corruption(z, config, torch.ones(50, dtype=torch.bool))
    assert (drawn.step_index == 3).all() and set(drawn.signal_index.flatten().tolist()) == set(range(8))
    torch.manual_seed(0)
    objective = DynamicsObjective(Dynamics(config, SPACE), DynamicsObjectiveConfig())
    objective.model.step_embedding.data[:3] = torch.nan  # of the other sizes
    loss, metrics = objective(latent_batch())
    assert loss.isfinite() and metrics["loss/bootstrap"] == 0
    nothing, empty = random_actions(2, 0), torch.ones(2, 0, dtype=torch.bool)
    ahead = random_actions(2, 2), torch.ones(2, 2, dtype=torch.bool)
    for steps in (1, 2, 8):
        made = generate(
            objective.model, torch.zeros(2, 0, 4, 8), nothing, empty, *ahead, sampling_steps=steps
        )
        assert made.isfinite().all()
