"""Worked numbers of the three generations' equations."""

import math

import pytest
import torch

from reverie.nn.twohot import bins, symexp, symlog, twohot, twohot_loss, twohot_mean
from reverie.rssm.config import WorldModelConfig
from reverie.rssm.heads import TwoHotHead
from reverie.rssm.images import StridedDecoder
from reverie.rssm.latents import CategoricalLatent, GaussianLatent
from reverie.rssm.layers import BlockLinear, linear
from reverie.rssm.losses import balanced_kl, image_loss
from reverie.rssm.policies import BoundedNormal, TanhNormal, TruncatedNormal
from reverie.rssm.returns import ReturnRange, lambda_returns

TRUE = torch.ones(1, 1, dtype=torch.bool)


def test_symlog_and_symexp():
    x = torch.tensor([0.01, 0.5, 1, 10, 100, -1000, 1e6])
    expected = [0.009950, 0.405465, 0.693147, 2.397895, 4.615121, -6.908755, 13.815512]
    torch.testing.assert_close(symlog(x), torch.tensor(expected), atol=1e-6, rtol=1e-6)
    x = torch.tensor([0.5, 1, 2, -3, 5, 10])
    expected = [0.648721, 1.718282, 6.389056, -19.085537, 147.413159, 22025.465795]
    torch.testing.assert_close(symexp(x), torch.tensor(expected), atol=1e-6, rtol=1e-6)


def test_twohot_bins_and_weights():
    near = [-0.603904, -0.370205, -0.170558, 0, 0.170558, 0.370205, 0.603904]
    torch.testing.assert_close(bins(torch.device("cpu"))[124:131], torch.tensor(near), atol=1e-6, rtol=0)
    assert bins(torch.device("cpu"))[-1].item() == pytest.approx(485_165_194.4, rel=1e-6)
    worked = {
        0.0: {127: 1.0},
        0.05: {127: 0.706844, 128: 0.293156},
        1.0: {131: 0.617329, 132: 0.382671},
        -1.0: {122: 0.382671, 123: 0.617329},
        10.0: {142: 0.786963, 143: 0.213037},
        1e9: {254: 1.0},
    }
    for x, weights in worked.items():
        row = twohot(torch.tensor([x]))[0]
        for index, weight in weights.items():
            assert row[index].item() == pytest.approx(weight, abs=2e-5)
        assert row.sum().item() == pytest.approx(1)


def test_twohot_decodes_what_it_encodes():
    x = torch.tensor([-5000.0, -3.2, 0.0, 0.07, 12.5, 1e5])
    torch.testing.assert_close(twohot_mean(twohot(x).log()), x, rtol=1e-4, atol=1e-4)


def test_a_new_twohot_head_predicts_zero_at_ln_255():
    head = TwoHotHead(8, 16, 1)
    out = head(torch.randn(5, 8))
    assert (head.mean(out) == 0).all()
    torch.testing.assert_close(
        twohot_loss(out, torch.tensor([0.0, 1, -7, 300, 1e9])), torch.full((5,), 5.541264)
    )


def v3_returns(terminal: int | None, last: int | None) -> list[float]:
    reward = torch.tensor([0.0, 1, 2, 3])
    value = torch.tensor([10.0, 20, 30, 40])
    live, decay = torch.full((3,), 0.9), torch.full((3,), 0.95)
    if terminal is not None:
        live[terminal - 1] = 0
    if last is not None:
        decay[last - 1] = 0
    return lambda_returns(reward[1:], live, value[1:], decay).tolist()


def test_lambda_returns():
    assert v3_returns(None, None) == pytest.approx([33.274225, 36.695, 39.0])
    assert v3_returns(terminal=2, last=2) == pytest.approx([3.61, 2.0, 39.0])
    assert v3_returns(terminal=None, last=2) == pytest.approx([26.695, 29.0, 39.0])
    older = lambda_returns(
        torch.tensor([1.0, 2, 3]), torch.full((3,), 0.9), torch.tensor([20.0, 30, 40]), 0.95
    )
    assert older.tolist() == pytest.approx([33.274225, 36.695, 39.0])


def test_gaussian_kl():
    latent = GaussianLatent(3)
    q = torch.tensor([[1.0, 1, 1, 0, 0, 0]])
    p = torch.zeros(1, 6)
    assert latent.kl(q, p).item() == pytest.approx(3 * 0.794808, rel=1e-5)
    samples = latent.sample(p.expand(20_000, -1))
    assert samples.std().item() == pytest.approx(math.log(2) + 0.1, rel=0.02)  # 0.793147


def test_unimix():
    latent = CategoricalLatent(1, 4, unimix=0.01)
    logits = torch.tensor([[10.0, 0, 0, 0]])
    expected = torch.tensor([[[0.992365, 0.002545, 0.002545, 0.002545]]])
    torch.testing.assert_close(latent.probabilities(logits), expected, atol=1e-6, rtol=0)
    assert latent.kl(logits, torch.zeros(1, 4)).item() == pytest.approx(1.333081, rel=1e-5)
    wide = CategoricalLatent(1, 32, unimix=0.01)
    one, other = torch.zeros(2, 1, 32)
    one[0, 0] = other[0, 1] = 1e4
    assert wide.kl(one, other).item() == pytest.approx(7.980560, rel=1e-5)


def test_unimix_is_sampled():
    torch.manual_seed(0)
    latent = CategoricalLatent(1, 4, unimix=0.2)
    drawn = latent.sample(torch.tensor([[100.0, 0, 0, 0]]).expand(20_000, -1)).mean(0)
    torch.testing.assert_close(drawn, torch.tensor([0.85, 0.05, 0.05, 0.05]), atol=0.01, rtol=0)


def test_straight_through_has_the_gradient_of_the_probabilities():
    latent = CategoricalLatent(2, 3, unimix=0.01)
    logits = torch.randn(5, 6, requires_grad=True)
    weight = torch.randn(5, 6)
    sample = latent.sample(logits)
    assert set(sample.detach().unique().tolist()) == {0.0, 1.0}
    (got,) = torch.autograd.grad((sample * weight).sum(), logits)
    (expected,) = torch.autograd.grad((latent.probabilities(logits).flatten(-2) * weight).sum(), logits)
    torch.testing.assert_close(got, expected)


def kl_terms(config: WorldModelConfig, posterior: torch.Tensor, prior: torch.Tensor):
    posterior, prior = posterior.clone().requires_grad_(), prior.clone().requires_grad_()
    latent = CategoricalLatent(2, 4, 0.01) if config.generation == "v3" else CategoricalLatent(2, 4, 0.0)
    mask = torch.ones(posterior.shape[:2], dtype=torch.bool)
    kl, loss = balanced_kl(config, latent, posterior, prior, mask)
    plain = latent.kl(posterior, prior).mean()
    return (
        kl,
        loss,
        torch.autograd.grad(loss, (posterior, prior)),
        torch.autograd.grad(plain, (posterior, prior)),
    )


def test_v2_balance_keeps_the_value_and_splits_the_gradient():
    config = WorldModelConfig(generation="v2", prior_scale=0.8, posterior_scale=0.2, free_nats=0.0)
    torch.manual_seed(0)
    kl, loss, got, plain = kl_terms(config, torch.randn(2, 3, 8), torch.randn(2, 3, 8))
    torch.testing.assert_close(loss, kl)
    torch.testing.assert_close(got[0], 0.2 * plain[0])
    torch.testing.assert_close(got[1], 0.8 * plain[1])


def test_v3_balance_is_ten_to_one():
    torch.manual_seed(0)
    _, _, got, plain = kl_terms(WorldModelConfig(free_nats=0.0), torch.randn(2, 3, 8), torch.randn(2, 3, 8))
    torch.testing.assert_close(got[0], 0.1 * plain[0])
    torch.testing.assert_close(got[1], plain[1])


def test_free_nats_of_equal_distributions():
    zeros = torch.zeros(2, 3, 8)
    kl, loss, gradients, _ = kl_terms(WorldModelConfig(), zeros, zeros)
    assert kl == 0 and loss.item() == pytest.approx(1.1)
    assert all((g == 0).all() for g in gradients)


def test_free_nats_hold_for_steps_in_v3_and_for_means_in_v2():
    posterior, prior = torch.zeros(1, 2, 8), torch.zeros(1, 2, 8)
    posterior[0, 0, 0] = 30.0  # one step far above, one below
    per_step = kl_terms(WorldModelConfig(), posterior, prior)
    first = CategoricalLatent(2, 4, 0.01).kl(posterior, prior)[0, 0]
    torch.testing.assert_close(per_step[1], 1.1 * (first + 1) / 2)
    v2 = WorldModelConfig(generation="v2", prior_scale=0.8, posterior_scale=0.2, free_nats=1.0)
    kl, loss, gradients, _ = kl_terms(v2, posterior, prior)
    assert kl.item() == pytest.approx(math.log(4) / 2) and loss.item() == pytest.approx(1.0)
    assert all((g == 0).all() for g in gradients)


def test_v1_free_nats_stop_the_gradient_below_three():
    latent, config = GaussianLatent(2), WorldModelConfig(generation="v1", prior_scale=1.0, free_nats=3.0)
    for mean, trained in ((0.5, False), (3.0, True)):
        posterior = torch.tensor([[[mean, mean, 0, 0]]], requires_grad=True)
        kl, loss = balanced_kl(config, latent, posterior, torch.zeros(1, 1, 4), TRUE)
        torch.testing.assert_close(loss, kl.clamp_min(3.0))
        (gradient,) = torch.autograd.grad(loss, posterior)
        assert bool(gradient.abs().max() > 0) == trained


def test_image_constants():
    exact = torch.zeros(1, 3, 64, 64)
    assert image_loss("v1", exact, exact).item() == pytest.approx(11291.917, abs=0.01)
    gray = torch.zeros(1, 1, 64, 64)
    assert image_loss("v2", gray, gray).item() == pytest.approx(3763.972, abs=0.01)
    # All byte values equally often, predicted as 0.5.
    uniform = (torch.arange(12288) % 256).float().reshape(1, 3, 64, 64) / 255
    half = torch.full_like(uniform, 0.5)
    assert image_loss("v3", half, uniform).item() == pytest.approx(1032.03, abs=0.01)


def test_return_range_starts_at_zero_without_correction():
    spread = ReturnRange()
    returns = torch.linspace(0, 1, 1001) * 200 / 0.9 - 0.05 * 200 / 0.9  # percentiles 0 and 200
    assert spread.scale() == 1
    spread.update(returns)
    assert spread.high.item() == pytest.approx(2, rel=1e-4) and abs(spread.low.item()) < 1e-4
    assert spread.scale().item() == pytest.approx(2, rel=1e-4)
    spread.update(torch.zeros(0))
    assert spread.high.item() == pytest.approx(2, rel=1e-4)


def test_initial_deviations_of_ranges():
    zeros = torch.zeros(1, 2)
    assert TanhNormal(zeros).std.item() == pytest.approx(5, abs=1e-3)
    assert TruncatedNormal(zeros).std.item() == pytest.approx(1.1)
    assert BoundedNormal(zeros).std.item() == pytest.approx(0.8927, abs=1e-4)


def test_v3_initialisation():
    torch.manual_seed(0)
    dense = linear(400, 300).weight
    assert dense.std().item() == pytest.approx(math.sqrt(1 / 400), rel=0.02)
    assert dense.abs().max() <= 2 * 1.1368 * math.sqrt(1 / 400)
    # The fan-in of all blocks together, not of one.
    assert BlockLinear(800, 400, 8).weight.std().item() == pytest.approx(math.sqrt(1 / 800), rel=0.03)
    assert (linear(10, 10, scale=0.0).weight == 0).all()


def test_v1_decoder_sizes():
    sizes = []
    x = torch.zeros(1, 64, 1, 1)
    for layer in StridedDecoder(5, 3, 2, torch.nn.ReLU).layers:
        x = layer(x)
        sizes.append(x.shape[-1])
    assert sizes == [5, 5, 13, 13, 30, 30, 64]
