"""Where half precision must end, and where it pays."""

from functools import cache
from typing import Any

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """bfloat16 and float16 become float32; float32 and float64 stay."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


@cache
def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware: CPUs without that are 25 times slower than in float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        found: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.11 cannot tell
        return any(there for name, there in found.items() if name.endswith("bf16"))
    return False


def in_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether `precision` (auto, 32-true or bf16-mixed) means bfloat16 on `device`."""
    return precision == "bf16-mixed" or (precision == "auto" and has_fast_bfloat16(device))
