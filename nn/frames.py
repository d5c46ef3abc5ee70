"""Frames between their two forms: uint8 channels-last in data, float channels-first in models. The only such conversion."""

import torch
from einops import rearrange
from torch import Tensor


def to_float(frames: Tensor) -> Tensor:
    """uint8 (B, T, H, W, C) -> float32 (B, T, C, H, W) in [0, 1]."""
    return rearrange(frames, "b t h w c -> b t c h w").float() / 255


def to_uint8(frames: Tensor) -> Tensor:
    """Float (B, T, C, H, W), clipped to [0, 1] -> uint8 (B, T, H, W, C), rounded to nearest."""
    return rearrange((frames.float().clamp(0, 1) * 255).round().to(torch.uint8), "b t c h w -> b t h w c")
