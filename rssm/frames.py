"""How frames of any size meet the image networks, and back.

V1 and V2 know 64 x 64 only: frames are resized to that, whatever their shape, and the loss is taken there, so that published loss
scales hold. V3 takes multiples of 16: frames are padded by their edges, which keeps every pixel, and the loss sees the
frame alone.
"""

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


class Resized:
    """Bilinear, antialiased, to 64 x 64 and back; nothing happens to frames of that size."""

    def __init__(self, frame_size: tuple[int, int]):
        self.frame_size, self.size = frame_size, (64, 64)

    def enter(self, frames: Tensor) -> Tensor:
        """uint8 (N, H, W, C) -> float (N, C, 64, 64) in [0, 1]."""
        return _resize(_channels_first(frames), self.size)

    def visible(self, images: Tensor) -> Tensor:
        """What the loss compares: everything."""
        return images

    def leave(self, images: Tensor) -> Tensor:
        """(N, C, 64, 64) -> (N, C, H, W)."""
        return _resize(images, self.frame_size)


class Padded:
    """Edge pixels repeated below and on the right, up to the next multiples of 16."""

    def __init__(self, frame_size: tuple[int, int]):
        self.frame_size = frame_size
        self.size = (-(-frame_size[0] // 16) * 16, -(-frame_size[1] // 16) * 16)

    def enter(self, frames: Tensor) -> Tensor:
        """uint8 (N, H, W, C) -> float (N, C, H', W') in [0, 1]."""
        images = _channels_first(frames)
        if self.size == self.frame_size:
            return images
        below, right = self.size[0] - self.frame_size[0], self.size[1] - self.frame_size[1]
        return F.pad(images, (0, right, 0, below), mode="replicate")

    def visible(self, images: Tensor) -> Tensor:
        """(N, C, H', W') -> (N, C, H, W): without the padding."""
        return images[..., : self.frame_size[0], : self.frame_size[1]]

    def leave(self, images: Tensor) -> Tensor:
        """The same."""
        return self.visible(images)


def _channels_first(frames: Tensor) -> Tensor:
    """uint8 (N, H, W, C) -> float (N, C, H, W) in [0, 1], channels last in memory."""
    return rearrange(frames.float() / 255, "n h w c -> n c h w")


def _resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    if images.shape[-2:] == size:
        return images
    return F.interpolate(images, size, mode="bilinear", antialias=True)
