"""What a frame sees of others in time attention, described once and turned into whatever a kernel reads."""

from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor

Kind = Literal["full", "query", "causal", "window", "segments", "mask"]
"""How much a call hides: nothing; nothing from a single query; the future; also frames out of the window; also other segments;
what a dense mask says."""


@dataclass(frozen=True, eq=False)
class CausalWindow:
    """Frame i sees frame j where j <= i, i - j < window, and both are of one segment."""

    steps: int
    """Frames T, queries and keys alike."""
    window: int
    """Frames that a frame sees, itself included."""
    segment: Tensor | None
    """(B, T) integers, B being the first leading dimension of queries and keys; None for one segment."""
    device: torch.device

    @property
    def kind(self) -> Kind:
        """Which kind of call this is."""
        if self.segment is not None:
            return "segments"
        return "window" if self.window < self.steps else "causal"

    def mask(self) -> Tensor:
        """Bool, True = visible: (T, T), or (B, 1, 1, 1, T, T) with segments, for (B, S, G, N/G, T, T)."""
        i = torch.arange(self.steps, device=self.device)
        distance = i[:, None] - i[None, :]
        mask = (distance >= 0) & (distance < self.window)
        if self.segment is None:
            return mask
        same = self.segment[:, :, None] == self.segment[:, None, :]
        return rearrange(mask & same, "b q k -> b 1 1 1 q k")

    def bias(self, dtype: torch.dtype) -> Tensor:
        """`mask` as what is added to logits: 0 where visible, else -inf."""
        mask = self.mask()
        return torch.zeros(mask.shape, dtype=dtype, device=self.device).masked_fill_(~mask, -torch.inf)


def causal_window(
    steps: int, window: int, segment: Tensor | None, device: torch.device
) -> CausalWindow | None:
    """What each of `steps` frames sees; None where that is everything, which holds for one frame."""
    return None if steps == 1 else CausalWindow(steps, window, segment, device)


def per_row(mask: Tensor, leading: int) -> Tensor | None:
    """A mask that broadcasts to (*X, G, N/G, Q, K), with `leading` dimensions X, as (B or 1, Q, K).

    None if it differs in more than the first of X.
    """
    shape = (1,) * (leading + 4 - mask.dim()) + tuple(mask.shape)
    if any(size != 1 for size in shape[1:-2]):
        return None
    return mask.reshape(shape[0] if leading else 1, *shape[-2:])
