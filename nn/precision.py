"""The precision policy: what stays in float32 while autocast multiplies the other matrices in bfloat16.

bfloat16 keeps 8 significant bits. With everything rounded, the error was 8 to 33 % of the tokenizer's gradient (docs/results.md,
"Precision"), nearly all of it from the forward pass of the decoder; with what follows in float32 it was 1 to 2 %. Probably it is
so large because rounding repeats for all that repeats in a batch (background, learned queries, weights) and does not average out.

- the residual stream of a transformer, to which bfloat16 branches are added, and the norms that read it;
- projections into and out of it (`Float32Linear`): embedded pixels and latents, everything a loss compares with a target;
- networks that regress pixels, as a whole (`in_float32`): the tokenizer's decoder, LPIPS, the decoders of Dreamer V1 to V3;
- softmax, losses, their running scales, gradients' sums, optimisers.

On a GPU these products go through tensor cores in TF32, with 11 significant bits, while the others are in bfloat16.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor, nn


def at_least_float32(x: Tensor) -> Tensor:
    """bfloat16 and float16 become float32; float32 and float64 stay."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def in_float32(device: torch.device) -> torch.autocast:
    """A context in which autocast rests: operations take the types of their inputs, which the caller gives in float32."""
    return torch.autocast(device.type, enabled=False)


@contextmanager
def bfloat16(device: torch.device, enabled: bool = True) -> Iterator[None]:
    """Mixed precision as above, for a forward pass: bfloat16 by autocast and TF32; nothing unless `enabled`."""
    with tf32(device, enabled), torch.autocast(device.type, torch.bfloat16, enabled=enabled):
        yield


@contextmanager
def tf32(device: torch.device, enabled: bool = True) -> Iterator[None]:
    """Float32 products of a GPU take TF32; also around a backward pass, which autocast must not enclose."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = before or (enabled and device.type == "cuda")
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


class Float32Linear(nn.Linear):
    """A linear layer that autocast leaves alone.

    (..., in_features) of any floating type -> (..., out_features), float32 or wider.
    """

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        with in_float32(x.device):
            return super().forward(at_least_float32(x))


def round_weights(model: nn.Module) -> nn.Module:
    """Puts the weights that autocast would round at every pass in bfloat16 for good, in place; returns `model`.

    For models that run under `bfloat16` alone and train no more: the same bits, half the memory, and no casts. Not for one with
    a part that is whole in float32, as the tokenizer.
    """
    for module in model.modules():
        if type(module) is nn.Linear:
            module.requires_grad_(False).to(torch.bfloat16)
    return model


@cache
def prefers_bfloat16(device: torch.device) -> bool:
    """Whether `auto` means bfloat16 on `device`: on GPUs that multiply it in hardware.

    Not on CPUs: those without AVX-512 bf16 or AMX emulate it at a 25th of float32's speed, those with it win a tenth on `nano`,
    and a run should learn the same on both.
    """
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def in_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether `precision` (auto, 32-true or bf16-mixed) means bfloat16 on `device`."""
    return precision == "bf16-mixed" or (precision == "auto" and prefers_bfloat16(device))
