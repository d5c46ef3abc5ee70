"""Ring key-value cache of the time layers: constant memory and cost per frame for rollouts of any length.

The keys are stored rotated to their absolute frame number; attention depends on differences only, so nothing moves when the
window does. A frame being denoised writes its own slot again and again (the slot of the frame that just left the window) and
becomes past only by `advance`.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

FRAMES_PER_PASS = 512
"""Frames of a context that a model sees at once. Fewer take less memory and more time, and change nothing but rounding."""


def passes(steps: int, first: int) -> Iterator[slice]:
    """Frames 0..steps-1 as an empty cache takes them: at most `first` in one pass, then one by one."""
    first = min(max(first, 1), steps)
    if steps:
        yield slice(0, first)
    yield from (slice(t, t + 1) for t in range(first, steps))


class RingCache:
    """Keys and values of the last `window` frames for each time layer. Inference only (writes in place)."""

    def __init__(self, num_layers: int, batch_size: int, window: int, device: torch.device | str):
        self.window = window
        self.position = 0
        """Number of frames that are past, the same for all rows."""
        self.start = torch.zeros(batch_size, dtype=torch.int64, device=device)
        """(B,) the first frame that each row may see: rows restart by moving it, see `reset`."""
        self._latest_start = (
            0  # max(start) as a Python number: no device synchronisation when nothing is hidden
        )
        self._layers: list[tuple[Tensor, Tensor] | None] = [None] * num_layers

    def expect(self, steps: int, segment: Tensor | None) -> None:
        """Announces a forward pass over `steps` new frames.

        Into an empty cache any number, of which the last segment of each row stays visible; later one, or two: a finished frame
        and the one being made after it.
        """
        if steps > 2 and self.position > 0:
            raise ValueError(
                f"a cache that holds {self.position} frames takes at most two new frames at a time, got {steps}"
            )
        if steps > 1 and self.position == 0 and segment is not None:
            self.start = (segment != segment[:, -1:]).sum(1)
            self._latest_start = int(self.start.max())

    def write(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Stores the new frames' k and v (B, S, G, T, H) and returns the keys and values they attend to.

        A pass without the trailing agent tokens (fewer S than the first write) touches the leading positions only.
        """
        buffers = self._buffers(layer, k)
        steps = k.shape[-2]
        follows = steps == 2 and self.position > 0
        # The second of two frames has no slot yet: the one it will take still belongs to what the first frame sees.
        kept = torch.arange(max(0, steps - self.window), 1 if follows else steps, device=k.device)
        slots = (self.position + kept) % self.window
        for buffer, new in zip(buffers, (k, v), strict=True):
            buffer[..., slots, :] = new[..., kept, :].to(buffer.dtype)
        if steps > 1 and not follows:
            return k, v  # a prefill attends within itself, under the transformer's mask
        filled = min(self.position + 1, self.window)
        seen_k, seen_v = (buffer[..., :filled, :] for buffer in buffers)
        if follows:
            seen_k = torch.cat([seen_k, k[..., 1:, :].to(seen_k.dtype)], -2)
            seen_v = torch.cat([seen_v, v[..., 1:, :].to(seen_v.dtype)], -2)
        return seen_k, seen_v

    def advance(self, steps: int = 1) -> None:
        """Makes the first `steps` frames of the last forward pass part of the past: all of a prefill, else one."""
        if steps > 1 and self.position > 0:
            raise ValueError(f"after the first pass frames become past one by one, not {steps} at a time")
        self.position += steps

    def reset(self, rows: Tensor) -> None:
        """Hides the past of the rows where `rows` (B,) bool is True: for them the next frame is the first."""
        if bool(rows.any()):
            self.start = torch.where(rows.to(self.start.device), self.position, self.start)
            self._latest_start = self.position

    def visible(self, steps: int = 1) -> Tensor | None:
        """Which keys each of `steps` (1 or 2) new frames may see, as (B, steps, keys) bool, or None if all."""
        filled = min(self.position + 1, self.window)
        if steps == 1 and self._latest_start <= self.position + 1 - filled:
            return None
        slots = torch.arange(filled, device=self.start.device)
        keys = self.position - (self.position - slots) % self.window
        if steps == 2:
            keys = torch.cat([keys, keys.new_tensor([self.position + 1])])
        frame = self.position + torch.arange(steps, device=keys.device)[:, None]
        seen = (keys <= frame) & (keys > frame - self.window)
        return seen & (keys >= self.start[:, None, None])

    def _buffers(self, layer: int, k: Tensor) -> tuple[Tensor, Tensor]:
        existing = self._layers[layer]
        if existing is None:
            shape = (*k.shape[:-2], self.window, k.shape[-1])
            existing = (torch.empty(shape, dtype=k.dtype, device=k.device), k.new_empty(shape))
            self._layers[layer] = existing
        positions = k.shape[1]
        assert positions <= existing[0].shape[1], "the first frame in a cache must carry the agent tokens"
        return existing[0][:, :positions], existing[1][:, :positions]
