"""Long videos through the tokenizer with bounded memory: a first stretch at once, then one time step after the other.

`fast` compiles what encodes or decodes one frame (`reverie.nn.compilation`); results differ by rounding alone.
"""

from collections.abc import Callable
from functools import cache as once

import torch
from torch import Tensor

from reverie.nn.cache import FRAMES_PER_PASS, RingCache, passes
from reverie.nn.compilation import compiled
from reverie.tokenizer.model import Tokenizer


@torch.no_grad()
def encode_long(tokenizer: Tokenizer, frames: Tensor, frames_per_pass: int = FRAMES_PER_PASS) -> Tensor:
    """Frames (B, T, H, W, C) uint8 on any device -> latents (B, T, N_z, D_z) on the tokenizer's.

    At most `frames_per_pass` frames B T go through the encoder at once.
    """
    cache, device = tokenizer.encoder_cache(len(frames)), tokenizer.mask_token.device
    parts = passes(frames.shape[1], frames_per_pass // len(frames))
    return torch.cat([tokenizer.encode(frames[:, part].to(device), cache=cache) for part in parts], dim=1)


@torch.no_grad()
def warm_decoder(tokenizer: Tokenizer, latents: Tensor, frames_per_pass: int = FRAMES_PER_PASS) -> RingCache:
    """A decoder cache that has seen latents (B, T, N_z, D_z), T >= 0, to decode what comes after them."""
    cache = tokenizer.decoder_cache(len(latents))
    # What lies further back cannot show in the next frame.
    seen = latents[:, -tokenizer.decoder.config.reach :]
    for part in passes(seen.shape[1], frames_per_pass // len(seen)):
        tokenizer.decode(seen[:, part], cache=cache)
    return cache


def encode_next(tokenizer: Tokenizer, frame: Tensor, cache: RingCache, *, fast: bool = False) -> Tensor:
    """`Tokenizer.encode` of the next frame of each video, (B, 1, H, W, C) uint8 -> (B, 1, N_z, D_z)."""
    if not (fast and cache.allocated):
        return tokenizer.encode(frame, cache=cache)
    latents = _fast_encode()(tokenizer, frame, cache)
    cache.advance()
    return latents


def decode_next(tokenizer: Tokenizer, latents: Tensor, cache: RingCache, *, fast: bool = False) -> Tensor:
    """`Tokenizer.decode` of the next frame of each video, (B, 1, N_z, D_z) -> (B, 1, C, H, W)."""
    if not (fast and cache.allocated):
        return tokenizer.decode(latents, cache=cache)
    frame = _fast_decode()(tokenizer, latents, cache)
    cache.advance()
    return frame


def _encode(tokenizer: Tokenizer, frame: Tensor, cache: RingCache) -> Tensor:
    return tokenizer.encode(frame, cache=cache.past(1, fixed=True))


def _decode(tokenizer: Tokenizer, latents: Tensor, cache: RingCache) -> Tensor:
    return tokenizer.decode(latents, cache=cache.past(1, fixed=True))


@once
def _fast_encode() -> Callable[[Tokenizer, Tensor, RingCache], Tensor]:
    return compiled(_encode, "the tokenizer's encoder, a frame")


@once
def _fast_decode() -> Callable[[Tokenizer, Tensor, RingCache], Tensor]:
    return compiled(_decode, "the tokenizer's decoder, a frame")
