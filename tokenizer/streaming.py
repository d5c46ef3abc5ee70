"""Long videos through the tokenizer with bounded memory: a first stretch at once, then one time step after the other.

`fast` compiles what encodes or decodes one frame (`reverie.nn.compilation`); results differ by rounding alone. On a GPU that is
recorded, too (`reverie.nn.recording`).
"""

from collections.abc import Callable
from functools import cache as once

import torch
from torch import Tensor

from reverie.nn.cache import FRAMES_PER_PASS, RingCache, passes
from reverie.nn.compilation import compiled
from reverie.nn.recording import recorded
from reverie.tokenizer.model import Tokenizer

OneFrame = Callable[[RingCache, Tokenizer, Tensor], Tensor]


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
    return _next(encode_graph() if fast else None, Tokenizer.encode, tokenizer, frame, cache)


def decode_next(tokenizer: Tokenizer, latents: Tensor, cache: RingCache, *, fast: bool = False) -> Tensor:
    """`Tokenizer.decode` of the next frame of each video, (B, 1, N_z, D_z) -> (B, 1, C, H, W)."""
    return _next(decode_graph() if fast else None, Tokenizer.decode, tokenizer, latents, cache)


def _next(
    graph: OneFrame | None, whole: Callable[..., Tensor], tokenizer: Tokenizer, x: Tensor, cache: RingCache
) -> Tensor:
    """One frame by `graph`, if there is one and the cache has its buffers, else by the tokenizer's method `whole`."""
    if graph is None or not cache.allocated:
        return whole(tokenizer, x, cache=cache)
    result = recorded(cache, graph, (tokenizer,), (x,))
    cache.advance()
    return result


@once
def encode_graph() -> OneFrame:
    """(cache, tokenizer, frame) -> latents, compiled."""
    return compiled(encode_one, "the tokenizer's encoder, a frame")


@once
def decode_graph() -> OneFrame:
    """(cache, tokenizer, latents) -> frame, compiled."""
    return compiled(decode_one, "the tokenizer's decoder, a frame")


def encode_one(cache: RingCache, tokenizer: Tokenizer, frame: Tensor) -> Tensor:
    """What `encode_graph` compiles."""
    return tokenizer.encode(frame, cache=cache.past(1, fixed=True))


def decode_one(cache: RingCache, tokenizer: Tokenizer, latents: Tensor) -> Tensor:
    """What `decode_graph` compiles."""
    return tokenizer.decode(latents, cache=cache.past(1, fixed=True))
