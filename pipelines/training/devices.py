"""Which device a command works on."""

import torch

from reverie.data.errors import UserError


def pick_device(name: str) -> torch.device:
    """The named device; auto is the first CUDA device, or the CPU. Raises `UserError` for one that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError):
        raise UserError(f"device: {name!r} is not available here; use auto, cpu or cuda.") from None
    return device
