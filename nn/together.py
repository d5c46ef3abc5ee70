"""Several ring caches, each at a frame of its own, as one batch: rows join, leave, stand still and go back.

A row is a `RingCache` of batch size 1. `Together` takes some of them through one frame: what attention reads is copied into one
batch, and the slot that the frame wrote is copied back when it becomes past. One row alone is read where it lies.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from reverie.nn.attention import rope_table
from reverie.nn.cache import Past, RingCache

Slot = list[tuple[Tensor, Tensor]]
"""Keys and values of one slot of a row, (1, S, G, H) for each time layer."""


@dataclass(frozen=True)
class _RowsPast(Past):
    """A `Past` whose rows are at different frames: `slots` (B,) says where each row's new frame is kept."""

    def write(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Stores k and v (B, S, G, 1, H) of the new frame, each row in its own slot; returns what they attend to."""
        keys, values = self._buffers(layer, k)
        rows = torch.arange(self.batch_size, device=k.device)
        keys[rows, :, :, self.slots] = k[..., 0, :].to(keys.dtype)
        values[rows, :, :, self.slots] = v[..., 0, :].to(values.dtype)
        return keys[..., : self.keys, :], values[..., : self.keys, :]


class Together(RingCache):
    """Rows that make their next frame together; a cache as passes over one frame know it.

    Args:
      rows: caches of batch size 1 that have had their first pass, of one transformer.
    """

    def __init__(self, rows: Sequence[RingCache]):
        first = rows[0]
        assert all(row.batch_size == 1 and row.allocated for row in rows)
        self.window, self.batch_size = first.window, len(rows)
        self.position = min(row.position for row in rows)
        self._furthest = max(row.position for row in rows)
        self.now = torch.stack([row.now for row in rows])
        self.start = torch.cat([row.start for row in rows])
        self._slots, self._frequencies = first._slots, first._frequencies
        self._rows = list(rows)
        self.recordings = {}
        self._layers = [self._joined(layer) for layer in range(len(first._layers))]

    def past(
        self,
        steps: int,
        segment: Tensor | None = None,
        *,
        rows: slice = slice(None),
        ahead: int = 0,
        fixed: bool = False,
    ) -> Past:
        """Prepares passes over one new frame of each row."""
        if steps != 1 or segment is not None or ahead or rows != slice(None):
            raise ValueError("rows at different frames pass one new frame at a time")
        slots = torch.remainder(self.now, self.window)
        filled = self.window if fixed else min(self._furthest + 1, self.window)
        cos, sin = rope_table(self.now.double()[:, None] * self._frequencies)
        return _RowsPast(
            layers=self._layers,
            window=self.window,
            batch_size=self.batch_size,
            rows=slice(None),
            slots=slots,
            keys=filled,
            rope=(rearrange(cos, "b h -> b 1 1 1 h"), rearrange(sin, "b h -> b 1 1 1 h")),
            mask=self._seen(filled),
        )

    def advance(self, steps: int = 1) -> None:
        """The frame of the last pass becomes past in every row."""
        if steps != 1:
            raise ValueError(f"rows at different frames go on one by one, not {steps} at a time")
        for number, row in enumerate(self._rows):
            slot = row.position % row.window
            for (keys, values), (k, v) in zip(row._layers, self._layers, strict=True):  # type: ignore[misc]
                keys[0, ..., slot, :] = k[number, ..., slot, :]
                values[0, ..., slot, :] = v[number, ..., slot, :]
            row.advance()
        self.position += 1
        self._furthest += 1
        self.now = self.now + 1

    def _joined(self, layer: int) -> tuple[Tensor, Tensor]:
        pairs = [row._layers[layer] for row in self._rows]
        return torch.cat([p[0] for p in pairs]), torch.cat([p[1] for p in pairs])  # type: ignore[index]

    def _seen(self, filled: int) -> Tensor:
        """(B, 1, 1, 1, 1, filled): slots that hold a frame, not before the row's start."""
        now = self.now[:, None]
        frames = now - torch.remainder(now - self._slots[:filled], self.window)
        return rearrange(frames >= self.start[:, None].clamp_min(0), "b k -> b 1 1 1 1 k")


def together(rows: Sequence[RingCache]) -> RingCache:
    """One row itself, several as one batch."""
    return rows[0] if len(rows) == 1 else Together(rows)


def slot_bytes(row: RingCache) -> int:
    """What `next_slot` of the row takes."""
    return sum(x.element_size() * x.numel() // (row.window + 1) for pair in row._layers if pair for x in pair)


def next_slot(row: RingCache) -> Slot:
    """A copy of the slot that the row's next frame will be written to: with it the row can go back."""
    slot = row.position % row.window
    return [(pair[0][..., slot, :].clone(), pair[1][..., slot, :].clone()) for pair in row._layers if pair]


def step_back(row: RingCache, slot: Slot) -> None:
    """Undoes the last frame that became past; `slot` is what `next_slot` gave before that frame was made."""
    row.position -= 1
    row.now -= 1
    place = row.position % row.window
    for pair, (keys, values) in zip(row._layers, slot, strict=True):
        assert pair is not None
        pair[0][..., place, :] = keys
        pair[1][..., place, :] = values
