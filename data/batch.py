"""`Batch`: the one data interface of every model, from Dreamer 1 to Dreamer 4.

Time convention, stated here and nowhere else: index t holds what is known when frame x_t has arrived. `actions[t]` is the
action that LED TO x_t (null and masked at an episode's first frame), `reward[t]` was received on arriving at x_t. A policy
read out at t has seen everything up to t and chooses `actions[t + 1]`. On disk actions stand where they were taken; the
loader shifts them, in one function.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

RETURN = "return"
"""The reserved task: the game's own reward, as recorded. No task of the data may be called so."""


@dataclass(kw_only=True)
class Batch:
    """B windows of T frames. Exactly one of `frames` and `latents` is given.

    frames       (B, T, H, W, C) uint8
    latents      (B, T, N_z, D_z) float32, the frozen tokenizer's representations z in [-1, 1]
    actions      component -> (B, T, ...), see `data.actions`; the action that led to frame t
    action_mask  (B, T) bool, the action is known; False everywhere for unlabelled video
    reward       (B, T) float32, of the row's task where `task` >= 0; as recorded for `RETURN` and where there is none
    reward_mask  (B, T) bool, the reward is known
    is_first     (B, T) bool, an episode starts here
    is_last      (B, T) bool, the recording of an episode ends here, for good or not
    is_terminal  (B, T) bool, the episode ended for good: nothing beyond to bootstrap from
    task         (B, T) int64, index into the corpus' task list, -1 for none
    segment      (B, T) int64, rows pack several pieces of video; nothing attends across a change of this number
    relevant     (B,) bool, the row was drawn from stretches in which its task is accomplished, for `RETURN` from the better
                 episodes; on the host, wherever the batch is
    key          B strings, where each row starts: source and frame
    """

    frames: Tensor | None
    latents: Tensor | None = None
    actions: dict[str, Tensor]
    action_mask: Tensor
    reward: Tensor
    reward_mask: Tensor
    is_first: Tensor
    is_last: Tensor
    is_terminal: Tensor
    task: Tensor
    segment: Tensor
    relevant: Tensor
    key: list[str]

    @property
    def shape(self) -> tuple[int, int]:
        """(B, T)."""
        return self.segment.shape[0], self.segment.shape[1]

    def map(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        """A new batch with `function` applied to every tensor."""
        return Batch(**{f.name: _map(getattr(self, f.name), function) for f in fields(self)})

    def to(self, device: torch.device | str) -> "Batch":
        """The batch on `device`; copies do not block when memory is pinned."""
        moved = self.map(lambda x: x.to(device, non_blocking=True))
        moved.relevant = self.relevant
        return moved

    def pin_memory(self) -> "Batch":
        """The batch in page-locked memory (called by torch's DataLoader)."""
        return self.map(lambda x: x.pin_memory())

    def rows(self, index: Tensor | slice) -> "Batch":
        """The rows chosen by a slice, or by a boolean or integer index on the host."""
        chosen = torch.arange(len(self.key))[index]
        where: dict[torch.device, Tensor] = {}

        def pick(x: Tensor) -> Tensor:
            if isinstance(index, slice):
                return x[index]
            if x.device not in where:  # without waiting: `x[index]` would do so in every call
                where[x.device] = chosen.to(x.device, non_blocking=True)
            return x[where[x.device]]

        picked = self.map(pick)
        picked.key = [self.key[i] for i in chosen.tolist()]
        return picked

    def steps(self, start: int, stop: int) -> "Batch":
        """Frames start..stop-1 of every row."""
        cut = self.map(lambda x: x[:, start:stop] if x.dim() > 1 else x)
        return cut


def _map(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        return {name: function(x) for name, x in value.items()}
    return value
