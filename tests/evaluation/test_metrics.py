"""PSNR, SSIM and LPIPS against formulas written out in float64 numpy."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn
from torchmetrics.functional.image import peak_signal_noise_ratio

from reverie.evaluation.metrics import PSNR_CAP, decibels, frame_scores


def _noisy_pair(shape: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(256, size=shape)
    noise = rng.integers(-40, 41, size=shape)
    noisy = np.clip(truth + noise, 0, 255)
    return torch.from_numpy(noisy.astype(np.uint8)), torch.from_numpy(truth.astype(np.uint8))


def _ssim_reference(x: np.ndarray, y: np.ndarray) -> float:
    """Wang et al. 2004, equation 13, per channel, the image mirrored at its borders."""
    c1, c2 = 0.01**2, 0.03**2
    values = []
    for c in range(x.shape[-1]):
        a, b = x[..., c] / 255.0, y[..., c] / 255.0
        blur = lambda image: gaussian_filter(image, sigma=1.5, radius=5, mode="mirror")  # noqa: E731
        mu_a, mu_b = blur(a), blur(b)
        var_a, var_b, cov = blur(a * a) - mu_a**2, blur(b * b) - mu_b**2, blur(a * b) - mu_a * mu_b
        ssim = (2 * mu_a * mu_b + c1) * (2 * cov + c2) / ((mu_a**2 + mu_b**2 + c1) * (var_a + var_b + c2))
        values.append(ssim.mean())
    return float(np.mean(values))


def test_psnr_and_mse_equal_the_float64_formula() -> None:
    predicted, truth = _noisy_pair((3, 4, 20, 24, 3))
    scores = frame_scores(predicted, truth)
    error = ((predicted.numpy().astype(np.float64) - truth.numpy()) / 255) ** 2
    mse = error.mean(axis=(2, 3, 4))
    np.testing.assert_allclose(scores.mse, mse, rtol=1e-12)
    np.testing.assert_allclose(scores.psnr, -10 * np.log10(mse), rtol=1e-12)
    np.testing.assert_allclose(decibels(scores.mse.mean(0)), -10 * np.log10(mse.mean(0)), rtol=1e-12)
    theirs = peak_signal_noise_ratio(predicted / 255, truth / 255, data_range=1.0)
    assert decibels(scores.mse.mean()).item() == pytest.approx(theirs.item(), abs=1e-4)


def test_one_grey_level_everywhere_is_48_decibels() -> None:
    truth = torch.full((1, 16, 16, 3), 100, dtype=torch.uint8)
    assert frame_scores(truth + 1, truth).psnr.item() == pytest.approx(20 * np.log10(255))


def test_ssim_equals_an_independent_implementation() -> None:
    predicted, truth = _noisy_pair((5, 24, 32, 3), seed=1)
    ssim = frame_scores(predicted, truth).ssim
    expected = [_ssim_reference(p, t) for p, t in zip(predicted.numpy(), truth.numpy(), strict=True)]
    np.testing.assert_allclose(ssim, expected, rtol=1e-5)


def test_a_perfect_prediction_gets_the_cap_and_no_more() -> None:
    _, truth = _noisy_pair((2, 16, 16, 3))
    scores = frame_scores(truth, truth)
    assert scores.psnr.tolist() == [PSNR_CAP] * 2
    assert scores.mse.tolist() == [0.0] * 2
    np.testing.assert_allclose(scores.ssim, 1.0, atol=1e-6)
    assert decibels(scores.mse.mean(0)).item() == PSNR_CAP
    assert scores.lpips is None


def test_frames_too_small_for_the_window_have_no_ssim() -> None:
    predicted, truth = _noisy_pair((2, 8, 8, 3))
    scores = frame_scores(predicted, truth)
    assert scores.ssim.isnan().all() and scores.psnr.isfinite().all()


def test_chunks_do_not_change_scores() -> None:
    predicted, truth = _noisy_pair((150, 12, 12, 3))
    whole = frame_scores(predicted, truth)
    pieces = zip(predicted.split(7), truth.split(7), strict=True)
    parts = torch.cat([frame_scores(p, t).ssim for p, t in pieces])
    torch.testing.assert_close(whole.ssim, parts)


def test_the_perceptual_network_sees_minus_one_to_one_channels_first() -> None:
    class MeanDistance(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            assert x.shape[1] == 3 and x.min() < -0.9 and x.max() > 0.9
            return (x - y).abs().mean(dim=(1, 2, 3), keepdim=True)

    predicted, truth = _noisy_pair((2, 3, 12, 12, 3))
    lpips = frame_scores(predicted, truth, MeanDistance()).lpips
    assert lpips is not None
    expected = np.abs(predicted.numpy().astype(float) - truth.numpy()).mean(axis=(2, 3, 4)) / 127.5
    np.testing.assert_allclose(lpips, expected, rtol=1e-5)


@pytest.mark.parametrize("other", [torch.zeros(2, 12, 12, 3), torch.zeros(3, 12, 12, 3, dtype=torch.uint8)])
def test_other_shapes_and_types_are_refused(other: Tensor) -> None:
    with pytest.raises(ValueError, match="frames must"):
        frame_scores(other, torch.zeros(2, 12, 12, 3, dtype=torch.uint8))
