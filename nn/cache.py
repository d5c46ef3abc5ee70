"""Ring key-value cache of the time layers: constant memory and cost per frame for rollouts of any length.

The keys are stored rotated to their absolute frame number; attention depends on differences only, so nothing moves when the
window does. A frame being denoised writes its own slot again and again (the slot of the frame that just left the window) and
becomes past only by `advance`.

Buffers have one shape from the first frame on: frame f is kept in slot f mod C of `window` C slots. One more slot holds the
second of two frames that pass together, since its own still belongs to what the first one sees. What depends on the position is
computed once for all layers, as a `Past`; passes of the same `Past` repeat on the same slots.
"""

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from reverie.nn.attention import rope_frequencies, rope_table

FRAMES_PER_PASS = 512
"""Frames of a context that a model sees at once. Fewer take less memory and more time, and change nothing but rounding."""


def passes(steps: int, first: int) -> Iterator[slice]:
    """Frames 0..steps-1 as an empty cache takes them: at most `first` in one pass, then one by one."""
    first = min(max(first, 1), steps)
    if steps:
        yield slice(0, first)
    yield from (slice(t, t + 1) for t in range(first, steps))


@dataclass(frozen=True)
class Past:
    """What the layers need to know of a cache for passes over the same T new frames; make it by `RingCache.past`.

    layers: the cache's buffers, keys and values (B, S, G, C + 1, H) of each time layer, None before the first pass.
    rows: the rows of the buffers that pass, `batch_size` in all.
    slots: (T,) int64 where the new frames are kept; fewer in a prefill, which keeps its last C frames.
    keys: how many slots are attended to, from the first on; None for a prefill, which attends within itself.
    rope: (cos, sin) of the new frames, each (T, H / 2); None for a prefill, whose frames are 0..T-1.
    mask: which keys each frame may see, (B, 1, 1, 1, T, keys) bool; None if all.
    """

    layers: list[tuple[Tensor, Tensor] | None]
    window: int
    batch_size: int
    rows: slice
    slots: Tensor
    keys: int | None
    rope: tuple[Tensor, Tensor] | None
    mask: Tensor | None

    def write(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Stores the new frames' k and v (B, S, G, T, H) and returns the keys and values they attend to.

        A pass without the trailing agent tokens (fewer S than the first write) touches the leading positions only.
        """
        keys, values = self._buffers(layer, k)
        kept = len(self.slots)
        keys.index_copy_(-2, self.slots, k[..., -kept:, :].to(keys.dtype))
        values.index_copy_(-2, self.slots, v[..., -kept:, :].to(values.dtype))
        if self.keys is None:
            return k, v
        return keys[..., : self.keys, :], values[..., : self.keys, :]

    def _buffers(self, layer: int, k: Tensor) -> tuple[Tensor, Tensor]:
        existing = self.layers[layer]
        if existing is None:
            shape = (self.batch_size, *k.shape[1:-2], self.window + 1, k.shape[-1])
            # Zeros: what a mask hides must be finite. Not made for inference, or nothing else could write them later.
            with torch.inference_mode(False):
                existing = (
                    torch.zeros(shape, dtype=k.dtype, device=k.device),
                    torch.zeros(shape, dtype=k.dtype, device=k.device),
                )
            self.layers[layer] = existing
        positions = k.shape[1]
        assert positions <= existing[0].shape[1], "the first frame in a cache must carry the agent tokens"
        return existing[0][self.rows, :positions], existing[1][self.rows, :positions]


class RingCache:
    """Keys and values of the last `window` frames for each time layer. Inference only (writes in place).

    Args:
      num_layers: time layers.
      batch_size: rows B, all at the same frame.
      window: frames C that a frame sees, itself included.
      head_dim: H, for the rotary tables of the frames' numbers.
      device: where the model is.
    """

    def __init__(
        self, num_layers: int, batch_size: int, window: int, head_dim: int, device: torch.device | str
    ):
        self.window, self.batch_size = window, batch_size
        self.position = 0
        """Number of frames that are past, the same for all rows."""
        self.start = torch.zeros(batch_size, dtype=torch.int64, device=device)
        """(B,) the first frame that each row may see: rows restart by moving it, see `reset`."""
        self.now = torch.zeros((), dtype=torch.int64, device=device)
        """`position` on the device, for passes that one graph repeats."""
        self._latest_start = (
            0  # max(start) without asking the device: nothing is hidden once it left the window
        )
        self.recordings: dict[Hashable, Callable[..., Any]] = {}
        """What has been recorded on these buffers, see `reverie.nn.recording`."""
        self._slots = torch.arange(window + 1, device=device)
        self._frequencies = rope_frequencies(head_dim, device)
        self._layers: list[tuple[Tensor, Tensor] | None] = [None] * num_layers

    @property
    def allocated(self) -> bool:
        """Whether the buffers are there, which the first pass makes."""
        return all(buffers is not None for buffers in self._layers)

    def past(
        self,
        steps: int,
        segment: Tensor | None = None,
        *,
        rows: slice = slice(None),
        ahead: int = 0,
        fixed: bool = False,
    ) -> Past:
        """Prepares passes over `steps` new frames.

        Args:
          steps: into an empty cache any number; later one, or two: a finished frame and the one being made after it.
          segment: (B, steps) of a prefill; the last segment of each row stays visible.
          rows: the rows that pass, in a prefill; it is whole when all have.
          ahead: how many frames will have become past by then.
          fixed: shapes depend on `steps` alone, and nothing on what the host knows of the position: the same graph serves
            every frame. Otherwise slots that are still empty are left out, and the mask where it hides nothing.
        """
        if fixed:
            return self._follow(steps, self.now + ahead, self.window, rows, all_seen=False)
        position = self.position + ahead
        if position > 0 or steps == 1:
            filled = min(position + 1, self.window)
            all_seen = steps == 1 and self._latest_start <= position + 1 - filled
            return self._follow(steps, self.now + ahead, filled, rows, all_seen)
        if segment is not None:
            self.start[rows] = (segment != segment[:, -1:]).sum(1)
            self._latest_start = steps  # no row begins later
        kept = self._slots.new_tensor([t % self.window for t in range(steps)][-self.window :])
        return self._make(kept, rows=rows)

    def advance(self, steps: int = 1) -> None:
        """Makes the first `steps` frames of the last forward pass part of the past: all of a prefill, else one."""
        if steps > 1 and self.position > 0:
            raise ValueError(f"after the first pass frames become past one by one, not {steps} at a time")
        self.position += steps
        self.now += steps

    def reset(self, rows: Tensor) -> None:
        """Hides the past of the rows where `rows` (B,) bool is True: for them the next frame is the first."""
        if rows.device.type == "cpu" and not rows.any():
            return
        self.start.copy_(torch.where(rows.to(self.start.device), self.now, self.start))
        self._latest_start = self.position

    def _follow(self, steps: int, now: Tensor, filled: int, rows: slice, all_seen: bool) -> Past:
        if steps > 2:
            raise ValueError(
                f"a cache that holds {self.position} frames takes at most two new frames at a time, got {steps}"
            )
        slots = torch.remainder(now, self.window)[None]
        # The second of two frames: the next empty slot, or the last, which belongs to no past frame.
        second = (now + 1).clamp_max(self.window)
        if steps == 2:
            slots = torch.cat([slots, second[None]])
        rope = rope_table((now + self._slots[:steps]).double()[:, None] * self._frequencies)
        keys = filled + steps - 1
        mask = None if all_seen else self._mask(steps, keys, now, second)[rows]
        return self._make(slots, rows=rows, keys=keys, rope=rope, mask=mask)

    def _mask(self, steps: int, keys: int, now: Tensor, second: Tensor) -> Tensor:
        slots = self._slots[:keys]
        frames = now - torch.remainder(now - slots, self.window)  # below 0 where nothing is kept yet
        if steps == 2:  # the last slot is no frame's, unless the second one takes it
            frames = torch.where(slots == second, now + 1, frames.where(slots < self.window, -1))
        query = (now + self._slots[:steps])[:, None]
        seen = (frames <= query) & (frames > query - self.window) & (frames >= self.start[:, None, None])
        return rearrange(seen, "b q k -> b 1 1 1 q k")

    def _make(
        self,
        slots: Tensor,
        *,
        rows: slice = slice(None),
        keys: int | None = None,
        rope: tuple[Tensor, Tensor] | None = None,
        mask: Tensor | None = None,
    ) -> Past:
        return Past(
            layers=self._layers,
            window=self.window,
            batch_size=self.batch_size,
            rows=rows,
            slots=slots,
            keys=keys,
            rope=rope,
            mask=mask,
        )
