"""The log of consecutive frames (`steps.npz`), and the one function that shifts actions.

On disk an action stands at the frame at which it was taken. `Steps.actions_into` turns that into the action that led
to each frame, the convention of `Batch`; nothing else in the project shifts actions.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from reverie.data.actions import ActionSpace
from reverie.data.shards.npz import load_npz

_KINDS = {"action_mask": "b", "action_mask_before": "b", "reward": "f", "reward_mask": "b", "events": "bu"}
"""Types of the arrays, as numpy's kinds."""


@dataclass(frozen=True, kw_only=True)
class Steps:
    """What is known about n consecutive frames of one episode.

    actions             component -> (n, ...), taken at frame i; null where unknown
    action_mask         (n,) bool, the action is known
    action_before       component -> (...), taken one frame before the first; null at an episode's first frame
    action_mask_before  () bool
    reward              (n,) float32, received on arriving at frame i
    reward_mask         (n,) bool, the reward is known
    events              (n, num_tasks) uint8, the task was accomplished on arriving at frame i
    """

    actions: dict[str, np.ndarray]
    action_mask: np.ndarray
    action_before: dict[str, np.ndarray]
    action_mask_before: np.ndarray
    reward: np.ndarray
    reward_mask: np.ndarray
    events: np.ndarray

    @classmethod
    def unknown(cls, n: int, space: ActionSpace, num_tasks: int) -> "Steps":
        """The steps of `n` frames about which nothing was logged."""
        return cls(
            actions=space.null_numpy(n),
            action_mask=np.zeros(n, np.bool_),
            action_before=space.null_numpy(),
            action_mask_before=np.zeros((), np.bool_),
            reward=np.zeros(n, np.float32),
            reward_mask=np.zeros(n, np.bool_),
            events=np.zeros((n, num_tasks), np.uint8),
        )

    def __len__(self) -> int:
        return len(self.action_mask)

    def actions_into(self, start: int, stop: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """The actions that LED TO frames start..stop-1 and whether they are known: the shift by one.

        Reads one step before `start`, so that nothing is lost at a window's left edge. Returns component ->
        (stop - start, ...) and (stop - start,) bool.
        """
        if start > 0:
            rows = slice(start - 1, stop - 1)
            return {name: value[rows] for name, value in self.actions.items()}, self.action_mask[rows]
        rows = slice(0, stop - 1)
        actions = {
            name: np.concatenate([self.action_before[name][None], value[rows]])
            for name, value in self.actions.items()
        }
        return actions, np.concatenate([self.action_mask_before[None], self.action_mask[rows]])

    def cut(self, start: int, stop: int) -> "Steps":
        """The steps of frames start..stop-1, with what was taken before them."""
        before, before_mask = self.action_before, self.action_mask_before
        if start > 0:
            before = {name: value[start - 1] for name, value in self.actions.items()}
            before_mask = self.action_mask[start - 1]
        return Steps(
            actions={name: value[start:stop] for name, value in self.actions.items()},
            action_mask=self.action_mask[start:stop],
            action_before=before,
            action_mask_before=before_mask,
            reward=self.reward[start:stop],
            reward_mask=self.reward_mask[start:stop],
            events=self.events[start:stop],
        )

    def to_npz(self) -> bytes:
        """The content of steps.npz, the same bytes every time."""
        arrays = {
            **{f"action/{name}": value for name, value in self.actions.items()},
            **{f"action_before/{name}": value for name, value in self.action_before.items()},
            "action_mask": self.action_mask,
            "action_mask_before": self.action_mask_before,
            "reward": self.reward,
            "reward_mask": self.reward_mask,
            "events": self.events,
        }
        target = io.BytesIO()
        np.savez_compressed(target, **arrays)  # type: ignore[arg-type]  # numpy's stub mistakes ** for its flag
        return target.getvalue()

    @classmethod
    def from_npz(cls, content: bytes) -> "Steps":
        """Inverse of `to_npz`; the arrays are read-only.

        Raises `ValueError`, `TypeError`, or an error of `zlib` or `struct`, on damage.
        """
        arrays = load_npz(content)
        return cls(
            actions=_component_arrays(arrays, "action/"),
            action_before=_component_arrays(arrays, "action_before/"),
            **{name: value for name, value in arrays.items() if "/" not in name},
        )

    def checked(self, n: int, space: ActionSpace, num_tasks: int) -> "Steps":
        """Itself, if it is the log of `n` frames with the actions of `space`. Raises `ValueError` saying what is not."""
        shapes = {"action_mask": (n,), "reward": (n,), "reward_mask": (n,), "action_mask_before": ()}
        for name, shape in {**shapes, "events": (n, num_tasks)}.items():
            value: np.ndarray = getattr(self, name)
            if value.shape != shape or value.dtype.kind not in _KINDS[name]:
                raise ValueError(
                    f"steps.npz: {name} is {value.dtype} of shape {value.shape}, expected {shape}"
                )
        if not np.isfinite(self.reward).all():
            raise ValueError("steps.npz: reward holds values that are not finite")
        before = {name: value[None] for name, value in self.action_before.items()}
        return replace(
            self,
            actions=space.check(self.actions, n, "steps.npz"),
            action_before={
                name: value[0] for name, value in space.check(before, 1, "steps.npz: action_before").items()
            },
        )


def _component_arrays(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
