"""Two-hot regression and running RMS against published and hand-computed values."""

import math

import pytest
import torch

from reverie.nn.normalize import RunningRMS
from reverie.nn.twohot import bins, symexp, symlog, twohot, twohot_loss, twohot_mean


@pytest.mark.parametrize(
    "x,expected",
    [(0.01, 0.009950), (0.5, 0.405465), (10.0, 2.397895), (-1000.0, -6.908755), (1e6, 13.815512)],
)
def test_symlog_values(x, expected):
    assert symlog(torch.tensor(x, dtype=torch.float64)).item() == pytest.approx(expected, abs=1e-6)
    assert symexp(torch.tensor(expected, dtype=torch.float64)).item() == pytest.approx(x, rel=1e-4)


def test_bins_near_zero():
    expected = torch.tensor([-0.603904, -0.370205, -0.170558, 0.0, 0.170558, 0.370205, 0.603904])
    torch.testing.assert_close(bins(torch.device("cpu"))[124:131], expected, atol=1e-6, rtol=1e-6)
    assert torch.equal(bins(torch.device("cpu")), -bins(torch.device("cpu")).flip(0))


@pytest.mark.parametrize(
    "x,weights",
    [
        (0.0, {127: 1.0}),
        (0.05, {127: 0.706844, 128: 0.293156}),
        (1.0, {131: 0.617329, 132: 0.382671}),
        (-1.0, {122: 0.382671, 123: 0.617329}),
        (10.0, {142: 0.786963, 143: 0.213037}),
        (1e9, {254: 1.0}),
        (-1e9, {0: 1.0}),
    ],
)
def test_twohot_weights(x, weights):
    expected = torch.zeros(255)
    for index, weight in weights.items():
        expected[index] = weight
    torch.testing.assert_close(twohot(torch.tensor(x)), expected, atol=2e-6, rtol=1e-5)


def test_decode_inverts_encode_and_uniform_logits_mean_zero():
    x = torch.tensor([-300.0, -1.5, 0.0, 0.3, 7.0, 12345.0])
    torch.testing.assert_close(twohot_mean(twohot(x).clamp_min(1e-30).log()), x, atol=1e-4, rtol=1e-4)
    assert twohot_mean(torch.zeros(255)).item() == 0.0
    assert twohot_loss(torch.zeros(6, 255), x).tolist() == pytest.approx([math.log(255)] * 6, abs=1e-5)


def test_running_rms_is_bias_corrected_and_frozen_in_evaluation():
    rms = RunningRMS(decay=0.9)
    assert rms(torch.tensor(4.0)).item() == pytest.approx(1.0)
    rms(torch.tensor(2.0))
    expected = math.sqrt((0.9 * 0.1 * 16 + 0.1 * 4) / (1 - 0.9**2))
    assert rms.value().item() == pytest.approx(expected)
    rms.eval()
    rms(torch.tensor(100.0))
    assert rms.value().item() == pytest.approx(expected)


def test_running_rms_floor_bounds_the_gradient():
    rms, x = RunningRMS(floor=1e-2), torch.tensor(1e-9, requires_grad=True)
    rms(x).backward()
    assert x.grad is not None and x.grad.item() == pytest.approx(100.0)
