"""Long videos through the tokenizer with bounded memory: a first stretch at once, then one time step after the other."""

import torch
from torch import Tensor

from reverie.nn.cache import FRAMES_PER_PASS, RingCache, passes
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
