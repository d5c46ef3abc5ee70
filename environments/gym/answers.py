"""What a game's `reset` and `step` return, in Gymnasium's form and in that of gym before 0.26, as plain values."""

import inspect
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from reverie.environments.game import GameCrashed

_LARGEST_REWARD = float(np.finfo(np.float32).max)
"""Rewards are stored as float32."""


class AnyForm(gymnasium.Wrapper):
    """The innermost wrapper: whatever form the environment speaks, the others see Gymnasium's own.

    Old forms are `reset` without a seed (which then goes to `seed`, if there is one) or without infos, `step` of four
    values, and numbers in arrays of one. Raises `GameCrashed` for an answer of no form.
    """

    def __init__(self, env: gymnasium.Env, place: str) -> None:
        super().__init__(env)
        self._place = place
        self._reset_takes = _parameters(env.reset)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Any]:
        """Observation and infos."""
        given: dict[str, Any] = {"seed": seed, "options": options}
        if seed is not None and not self._reset_takes & {"seed", "**"} and hasattr(self.env, "seed"):
            self.env.seed(seed)  # the form before 0.26
        wanted = {k: v for k, v in given.items() if self._reset_takes & {k, "**"}}
        answer: Any = self.env.reset(**wanted)
        pair = isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], dict)
        return answer if pair else (answer, {})

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Observation, reward, terminated, truncated, infos."""
        answer: Any = self.env.step(action)
        if not isinstance(answer, tuple) or len(answer) not in (4, 5):
            form = f"{len(answer)} values" if isinstance(answer, tuple) else f"a {type(answer).__name__}"
            raise GameCrashed(f"{self._place}: step returned {form}, not observation, reward and ends.")
        observation, reward, ended, *rest = answer
        infos = rest[-1] if isinstance(rest[-1], dict) else {}
        if len(answer) == 5:
            terminated, truncated = self._flag(ended, "terminated"), self._flag(rest[0], "truncated")
        else:
            truncated = self._flag(ended, "done") and bool(infos.get("TimeLimit.truncated", False))
            terminated = self._flag(ended, "done") and not truncated
        return observation, self._reward(reward), terminated, truncated, infos

    def _reward(self, value: Any) -> float:
        number = _one(value)
        if number is None or not np.isfinite(number) or abs(number) > _LARGEST_REWARD:
            raise GameCrashed(f"{self._place}: gave {_shown(value)} as a reward, which is no number.")
        return number

    def _flag(self, value: Any, name: str) -> bool:
        number = _one(value)
        if number is None or np.isnan(number):
            raise GameCrashed(
                f"{self._place}: gave {_shown(value)} for {name}, which is neither true nor false."
            )
        return bool(number)


def _parameters(function: Callable[..., Any]) -> set[str]:
    """Names of the arguments that a function takes by name; `**` where it takes all."""
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return {"**"}
    return {"**" if p.kind is p.VAR_KEYWORD else p.name for p in found if p.kind is not p.POSITIONAL_ONLY}


def _one(value: Any) -> float | None:
    """The only number in `value`; None if there is none, or several."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    try:
        array = np.asarray(value)
        if array.size != 1 or isinstance(value, (str, bytes)) or array.dtype.kind in "cSUMmV":
            return None
        return None if array.item() is None else float(array.item())
    except Exception:
        return None


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
