"""How close predicted frames are to true frames: PSNR, SSIM and LPIPS, one value per frame.

All three compare uint8 frames, as a viewer would see them, so every baseline is rounded the same way.
Two averages of PSNR exist and differ on game video, where many frames equal their predecessor exactly: the
mean of each frame's decibels (capped at `PSNR_CAP`), and the decibels of the mean error
(`decibels(mse.mean(0))`), which is what torchmetrics calls PSNR and where no single perfect frame can
outweigh many bad ones.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure

PSNR_CAP = 60.0
"""Decibels given to a perfect frame. Rounding a real-valued image to uint8 alone costs 58.9 dB, so more is
not a difference."""

SSIM_WINDOW = 11
"""Side of SSIM's Gaussian window (sigma 1.5, Wang et al. 2004). torchmetrics mirrors frames at their borders
and averages over every pixel; frames smaller than the window have no SSIM."""

_CHUNK = 64


@dataclass(frozen=True)
class FrameScores:
    """One value per frame, each of the leading shape of the frames compared, float64, on the CPU.

    mse    mean squared error of pixel values in [0, 1]; 0 is perfect
    psnr   decibels, higher is better, at most `PSNR_CAP`
    ssim   at most 1, which is perfect; about 0 for unrelated frames, can fall below; nan under 11 pixels
    lpips  at least 0, which is perfect; about 0.7 for unrelated frames; None where no network was given
    """

    mse: Tensor
    psnr: Tensor
    ssim: Tensor
    lpips: Tensor | None


def frame_scores(predicted: Tensor, truth: Tensor, lpips: nn.Module | None = None) -> FrameScores:
    """Compare (..., H, W, C) uint8 frames one by one.

    `lpips` is a network as `tokenizer.perceptual.load_lpips` gives it. Raises `ValueError` on unequal shapes
    and on types other than uint8.
    """
    _check(predicted, truth)
    leading = truth.shape[:-3]
    pairs = list(zip(_flat(predicted).split(_CHUNK), _flat(truth).split(_CHUNK), strict=True))
    mse = torch.cat([_mse(x, y) for x, y in pairs]).reshape(leading)
    ssim = torch.cat([_ssim(x, y) for x, y in pairs]).reshape(leading)
    distance = None if lpips is None else torch.cat([_lpips(lpips, x, y) for x, y in pairs]).reshape(leading)
    return FrameScores(mse, decibels(mse), ssim, distance)


def decibels(mse: Tensor) -> Tensor:
    """PSNR of mean squared errors of values in [0, 1]: -10 log10(mse), at most `PSNR_CAP`."""
    return (-10 * torch.log10(mse)).clamp(max=PSNR_CAP)


def _mse(x: Tensor, y: Tensor) -> Tensor:
    """(N, C, H, W) uint8 twice -> (N,)."""
    return ((x.double() - y.double()) / 255).square().mean(dim=(1, 2, 3)).cpu()


def _ssim(x: Tensor, y: Tensor) -> Tensor:
    """(N, C, H, W) uint8 twice -> (N,)."""
    if min(x.shape[-2:]) < SSIM_WINDOW:
        return torch.full((len(x),), float("nan"), dtype=torch.float64)
    value = structural_similarity_index_measure(x / 255, y / 255, data_range=1.0, reduction="none")
    assert isinstance(value, Tensor)
    return value.reshape(len(x)).double().cpu()


@torch.no_grad()
def _lpips(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """(N, C, H, W) uint8 twice -> (N,). The network takes values in [-1, 1]."""
    return network(x / 127.5 - 1, y / 127.5 - 1).reshape(len(x)).double().cpu()


def _flat(frames: Tensor) -> Tensor:
    """(..., H, W, C) to (N, C, H, W)."""
    return frames.reshape(-1, *frames.shape[-3:]).movedim(-1, 1)


def _check(predicted: Tensor, truth: Tensor) -> None:
    if predicted.shape != truth.shape or truth.dim() < 3:
        shapes = f"{tuple(predicted.shape)} and {tuple(truth.shape)}"
        raise ValueError(f"frames must have equal shapes (..., H, W, C), got {shapes}")
    if predicted.dtype != torch.uint8 or truth.dtype != torch.uint8:
        raise ValueError(f"frames must be uint8, got {predicted.dtype} and {truth.dtype}")
