"""Shortcut forcing against a float64 transcription of Eq. 7 and 8, written frame by frame."""

import math

import pytest
import torch

from reverie.dynamics.model import Dynamics, DynamicsConfig
from reverie.dynamics.objective import (
    Corruption,
    DynamicsObjective,
    DynamicsObjectiveConfig,
    Network,
    bootstrap_velocity,
    draw_bootstrap_rows,
    draw_corruption,
    forcing_step,
    isolate_start_frames,
    ramp_weight,
)
from tests.batches import SPACE, latent_batch

CONFIG = DynamicsConfig(latent_shape=(4, 8), width=32, depth=4, context_length=4)


class PointwiseNetwork:
    """f(z, tau, d) = sin(z) (1 + tau) + d: acts on each frame alone, so that the equations can be followed by hand."""

    def __call__(self, z, signal_index, step_index):
        tau, d = signal_index / 64, 0.5 ** step_index.double()
        return torch.sin(z) * (1 + tau[..., None, None]) + d[..., None, None]

    def rows(self, index):
        return self


def reference_loss(f, z, z0, tau, d, d_min):
    """Eq. 7 and 8 for one frame, in float64, with the division by (1 - tau) as printed."""
    z_tilde = (1 - tau) * z0 + tau * z
    weight = 0.9 * tau + 0.1
    z_hat = f(z_tilde, tau, d)
    if d == d_min:
        return weight * (z_hat - z).square().mean()
    b1 = (f(z_tilde, tau, d / 2) - z_tilde) / (1 - tau)
    z_prime = z_tilde + b1 * d / 2
    b2 = (f(z_prime, tau + d / 2, d / 2) - z_prime) / (1 - (tau + d / 2))
    velocity = (z_hat - z_tilde) / (1 - tau)
    return weight * (1 - tau) ** 2 * (velocity - (b1 + b2) / 2).square().mean()


def test_loss_matches_the_equations_in_float64():
    torch.manual_seed(0)
    z = torch.rand(8, 12, 4, 8, dtype=torch.float64) * 2 - 1
    drawn = draw_corruption(z, CONFIG, torch.ones(8, dtype=torch.bool))
    drawn = Corruption(drawn.signal_index, drawn.step_index, drawn.noise.double())
    network = PointwiseNetwork()
    loss, _ = forcing_step(network, z, drawn, CONFIG)

    def f(x, tau, d):
        return torch.sin(x) * (1 + tau) + d

    expected = [
        reference_loss(
            f,
            z[b, t],
            drawn.noise[b, t],
            drawn.signal_index[b, t].item() / 64,
            0.5 ** drawn.step_index[b, t].item(),
            1 / 64,
        )
        for b in range(8)
        for t in range(12)
    ]
    assert {int(x) for x in drawn.step_index.flatten()} == set(range(7))  # every step size was seen
    torch.testing.assert_close(loss, torch.stack(expected).mean(), atol=1e-12, rtol=1e-10)


class Oracle:
    """Always answers with the data."""

    def __init__(self, z):
        self.z = z

    def __call__(self, z_tilde, signal_index, step_index):
        return self.z

    def rows(self, index):
        return Oracle(self.z[index])


def test_the_exact_answer_has_zero_loss():
    """From any tau, two half steps towards z end on the line to z, so the bootstrap target is z as well."""
    torch.manual_seed(0)
    z = torch.rand(8, 12, 4, 8, dtype=torch.float64) * 2 - 1
    drawn = draw_corruption(z, CONFIG, torch.ones(8, dtype=torch.bool))
    drawn = Corruption(drawn.signal_index, drawn.step_index, drawn.noise.double())
    loss, metrics = forcing_step(Oracle(z), z, drawn, CONFIG)
    assert loss.item() < 1e-25
    assert metrics["loss/flow"].item() < 1e-25 and metrics["loss/bootstrap"].item() < 1e-25


def test_a_wrong_answer_does_not():
    z = torch.zeros(2, 3, 4, 8)
    drawn = draw_corruption(z, CONFIG, torch.zeros(2, dtype=torch.bool))
    assert forcing_step(Oracle(z + 1), z, drawn, CONFIG)[0].item() == pytest.approx(
        ramp_weight(drawn.signal_index / 64).mean().item()
    )


def test_drawn_levels_follow_the_paper():
    """d uniform over 1/{1, 2, ..., 64}; tau uniform over {0, d, ..., 1 - d}."""
    z = torch.zeros(200, 100, 1, 1)
    drawn = draw_corruption(z, CONFIG, torch.ones(200, dtype=torch.bool), torch.Generator().manual_seed(0))
    for i in range(7):
        chosen = drawn.signal_index[drawn.step_index == i]
        assert len(chosen) / 20_000 == pytest.approx(1 / 7, abs=0.01)
        spacing = 64 // 2**i
        assert set(chosen.tolist()) == set(range(0, 64, spacing))
        assert chosen.double().mean().item() == pytest.approx((64 - spacing) / 2, abs=1.5)
    fixed = draw_corruption(z, CONFIG, torch.zeros(200, dtype=torch.bool))
    assert (fixed.step_index == 6).all()


def test_ramp_weight_ends():
    torch.testing.assert_close(ramp_weight(torch.tensor([0.0, 0.5, 1.0])), torch.tensor([0.1, 0.55, 1.0]))


@pytest.mark.parametrize(
    ("b", "fraction", "most"), [(8, 0.25, 2), (2, 0.25, 1), (5, 0.3, 2), (3, 1.0, 3), (4, 0.0, 0)]
)
def test_bootstrap_rows_have_their_share_in_passes_of_one_size(b, fraction, most):
    torch.manual_seed(0)
    share = torch.zeros(b)
    for _ in range(2000):
        rows, chosen = draw_bootstrap_rows(b, fraction, torch.device("cpu"))
        among = torch.arange(b) if rows is None else rows
        assert len(among.unique()) == most
        assert set(chosen.nonzero()[:, 0].tolist()) <= set(among.tolist())
        share += chosen
    assert share / 2000 == pytest.approx(torch.full((b,), fraction), abs=0.05)


def test_bootstrap_of_chosen_rows_is_that_of_all():
    """Whether the others pass or not; they train at d_min."""
    torch.manual_seed(0)
    model, batch = Dynamics(CONFIG, SPACE), latent_batch(6)
    network = Network(model, batch.actions, batch.action_mask, batch.segment)
    rows, chosen = draw_bootstrap_rows(6, 0.5, torch.device("cpu"))
    drawn = draw_corruption(batch.latents, CONFIG, chosen)
    some, every = (forcing_step(network, batch.latents, drawn, CONFIG, r)[0] for r in (rows, None))
    torch.testing.assert_close(some, every)
    without = forcing_step(network, batch.latents, drawn, CONFIG, rows[:0])[0]
    assert not torch.allclose(without, every)


def test_bootstrap_leaves_finest_frames_finite():
    z = torch.randn(2, 5, 4, 8)
    step = torch.full((2, 5), 6)
    velocity = bootstrap_velocity(PointwiseNetwork(), z, torch.full((2, 5), 63), step, 64)
    assert velocity.isfinite().all()


def test_start_frames_are_isolated_and_lose_their_action():
    torch.manual_seed(0)
    batch = latent_batch(b=400)
    segment, mask = isolate_start_frames(batch, 0.3)
    alone = (segment == torch.arange(12)).all(1)
    assert alone.float().mean().item() == pytest.approx(0.3, abs=0.06)
    assert not mask[alone].any()
    assert torch.equal(mask[~alone], batch.action_mask[~alone])
    assert torch.equal(segment[~alone], batch.segment[~alone])


def test_bootstrap_targets_carry_no_gradient_and_training_runs():
    torch.manual_seed(0)
    objective = DynamicsObjective(Dynamics(CONFIG, SPACE), DynamicsObjectiveConfig())
    loss, metrics = objective(latent_batch())
    assert loss.item() == pytest.approx(1.0, abs=1e-5)  # divided by its own RMS
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in objective.parameters())
    assert math.isfinite(metrics["loss/bootstrap"].item())


def test_gradient_flows_through_the_prediction_only():
    """d loss / d z_hat = 2 w (z_hat - target) / n: the target is a constant."""
    z = torch.rand(2, 4, 4, 8, dtype=torch.float64)
    scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    calls = []

    class Scaled:
        def __call__(self, z_tilde, signal_index, step_index):
            calls.append(torch.is_grad_enabled())
            return z_tilde * scale

        def rows(self, index):
            return self

    drawn = draw_corruption(z, CONFIG, torch.ones(2, dtype=torch.bool))
    forcing_step(Scaled(), z, Corruption(drawn.signal_index, drawn.step_index, drawn.noise.double()), CONFIG)
    assert calls == [False, False, True]
