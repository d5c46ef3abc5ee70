"""Gymnasium environments in every form that is about, made by code: `gym:tests.environments.odd_games:Odd-v0`.

One environment whose `make` arguments choose what it draws, which actions it takes, what it answers and how it fails. It writes
what it saw itself into `diary`, so that a test can compare what was stored with the truth.
"""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from PIL import Image

GAME = "gym:tests.environments.odd_games:Odd-v0"

PICTURES: dict[str, Callable[[np.ndarray], Any]] = {
    "uint8": lambda x: x,
    "int64": lambda x: x.astype(np.int64),
    "uint16": lambda x: x.astype(np.uint16),
    "float32 to 1": lambda x: x.astype(np.float32) / 255,
    "float64 to 1": lambda x: x / 255.0,
    "float16 to 1": lambda x: (x / 255.0).astype(np.float16),
    "float to 255": lambda x: x.astype(np.float32),
    "gray": lambda x: x[..., 0],
    "gray, one channel": lambda x: x[..., :1],
    "gray float": lambda x: x[..., 0] / 255.0,
    "rgba": lambda x: np.concatenate([x, np.full_like(x[..., :1], 255)], -1),
    "rgba of floats": lambda x: np.concatenate([x / 255.0, np.ones_like(x[..., :1])], -1),
    "channels first": lambda x: x.transpose(2, 0, 1),
    "one channel first": lambda x: x[..., :1].transpose(2, 0, 1),
    "list of one": lambda x: [x],
    "tuple of one": lambda x: (x,),
    "batch of one": lambda x: x[None],
    "nested lists": lambda x: x.tolist(),
    "tensor": torch.from_numpy,
    "float tensor, channels first": lambda x: torch.from_numpy(x).permute(2, 0, 1) / 255,
    "bfloat16 tensor": lambda x: torch.from_numpy((x >= 128).astype(np.float32)).bfloat16(),
    "tensor with gradient": lambda x: (torch.from_numpy(x) / 255).requires_grad_(),
    "bool": lambda x: x >= 128,
    "bool mask": lambda x: x[..., 0] >= 128,
    "PIL": Image.fromarray,
    "Fortran order": np.asfortranarray,
}
TRUE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    **dict.fromkeys(
        ("gray", "gray, one channel", "gray float", "one channel first"),
        lambda x: np.repeat(x[..., :1], 3, -1),
    ),
    "bfloat16 tensor": lambda x: (x >= 128) * np.uint8(255),
    "bool": lambda x: (x >= 128) * np.uint8(255),
    "bool mask": lambda x: np.repeat((x[..., :1] >= 128) * np.uint8(255), 3, -1),
}
"""What a picture stands for, where that is not the RGB picture itself."""
NO_PICTURES: dict[str, Callable[[np.ndarray], Any]] = {
    "nothing": lambda x: None,
    "text": lambda x: "a board",
    "dict": lambda x: {"image": x},
    "two pictures": lambda x: [x, x],
    "batch of two": lambda x: np.stack([x, x]),
    "empty": lambda x: x[:0],
    "complex": lambda x: x.astype(np.complex64),
    "uint16 beyond 255": lambda x: x.astype(np.uint16) * 257,
    "floats from -1 to 1": lambda x: x / 127.5 - 1,
    "floats beyond 255": lambda x: x * 4.0,
    "not finite": lambda x: np.where(x > 128, np.nan, x / 255),
    "whole numbers up to 1": lambda x: (x[..., 0] > 128).astype(np.int64),
    "uint8 mask": lambda x: (x[..., 0] > 128).astype(np.uint8),
    "two channels": lambda x: x[..., :2],
    "four gray pictures": lambda x: np.stack([x[..., 0], x[..., 1], x[..., 2], x[::-1, :, 0]], 0),
    "four gray pictures, last": lambda x: np.stack([x[..., 0], x[..., 1], x[..., 2], x[::-1, :, 0]], -1),
    "one axis": lambda x: x.ravel(),
    "objects": lambda x: x.astype(object),
}

ACTIONS: dict[str, spaces.Space] = {
    "discrete": spaces.Discrete(3),
    "shifted": spaces.Discrete(4, start=-2),
    "one": spaces.Discrete(1),
    "keys": spaces.MultiBinary(3),
    "keys in rows": spaces.MultiBinary([2, 3]),
    "numbers": spaces.MultiDiscrete([3, 4], start=[1, -5]),
    "numbers in rows": spaces.MultiDiscrete([[2, 3], [4, 2]]),
    "box": spaces.Box(-2.0, 10.0, (2,), np.float32),
    "float64 box": spaces.Box(np.array([-1e6, 0.0]), np.array([1.0, 1e-3]), dtype=np.float64),
    "scalar": spaces.Box(-1.0, 1.0, (), np.float32),
    "matrix": spaces.Box(0.0, 1.0, (2, 3), np.float32),
    "whole numbers": spaces.Box(-3, 4, (2,), np.int32),
    "whole number": spaces.Box(0, 9, (), np.int64),
    "bytes": spaces.Box(0, 255, (2,), np.uint8),
    "int16": spaces.Box(-32768, 32767, (1,), np.int16),
    "mixed": spaces.Dict({
        "keys": spaces.MultiBinary(2),
        "camera": spaces.Box(-180.0, 180.0, (2,), np.float32),
        "gear": spaces.Discrete(3, start=-1),
    }),
    "nested": spaces.Dict({"a": spaces.Tuple([spaces.Discrete(2), spaces.Dict({"b": spaces.Discrete(3)})])}),
    "same names": spaces.Dict({"a.b": spaces.Discrete(2), "a": spaces.Dict({"b": spaces.Discrete(5)})}),
    "odd names": spaces.Dict({"arm/left": spaces.Discrete(2), "": spaces.Discrete(3), "go home": spaces.Discrete(2)}),
    "tuple": spaces.Tuple([spaces.Box(-1, 1, (1,), np.int8), spaces.MultiBinary(1)]),
    "an empty member": spaces.Dict({"go": spaces.Discrete(2), "none": spaces.Box(0.0, 1.0, (0,), np.float32)}),
}  # fmt: skip
NO_ACTIONS: dict[str, spaces.Space] = {
    "unbounded": spaces.Box(-np.inf, np.inf, (2,), np.float32),
    "half bounded": spaces.Box(0.0, np.inf, (1,), np.float32),
    "huge": spaces.Box(-float(np.finfo(np.float32).max), float(np.finfo(np.float32).max), (1,), np.float32),
    "huge float64": spaces.Box(-1e300, 1e300, (1,), np.float64),
    "all of int64": spaces.Box(-(2**63), 2**63 - 1, (1,), np.int64),
    "sequence": spaces.Sequence(spaces.Discrete(2)),
    "text": spaces.Text(4),
    "nothing": spaces.Dict({}),
    "unbounded inside": spaces.Dict({"go": spaces.Discrete(2), "push": spaces.Box(-np.inf, 7.5, (1,), np.float32)}),
    "too many": spaces.Discrete(2**40),
}  # fmt: skip

REWARDS: dict[str, Any] = {
    "float": 0.5,
    "int": 2,
    "bool": True,
    "array of one": np.array([0.5], np.float32),
    "no axes": np.array(0.5),
    "numpy scalar": np.float64(0.5),
    "tensor": torch.tensor([0.5]),
}
NO_REWARDS: dict[str, Any] = {
    "nan": float("nan"),
    "inf": float("inf"),
    "minus inf": -np.inf,
    "none": None,
    "two": np.array([0.5, 0.5]),
    "text": "0.5",
    "beyond float32": 1e60,
    "complex": 1j,
    "empty": [],
}
SIZE = (24, 32)


class Odd(gymnasium.Env):
    """A field of numbers that moves with the actions it gets."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    observation_space: spaces.Space = spaces.Dict(
        {"image": spaces.Box(0, 255, (*SIZE, 3), np.uint8), "place": spaces.Box(0, 255, (2,), np.float32)}
    )

    def __init__(
        self,
        render_mode: str | None = None,
        picture: str = "uint8",
        action: str = "discrete",
        reward: str = "float",
        form: str = "",
        fails: str = "",
        often: int = 3,
        steps: int = 6,
        diary: str | None = None,
    ) -> None:
        self.render_mode, self.picture, self.steps = render_mode, picture, steps
        self.action_space = {**ACTIONS, **NO_ACTIONS}[action]
        self.reward, self.form, self.fails, self.often = {**REWARDS, **NO_REWARDS}[reward], form, fails, often
        self.diary = diary
        if fails == "making":
            raise RuntimeError("no licence")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        rng = np.random.default_rng() if self.form == "unseeded" else self.np_random
        self.field = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        self.field[0, :2] = (255, 255, 255), (0, 0, 0)
        self.unlucky = self.fails != "" and int(rng.integers(self.often)) == 0
        self.t, self.seen = 0, []
        if self.unlucky and self.fails == "reset":
            raise ConnectionError("no server")
        if self.unlucky and self.fails == "os._exit in reset":
            os._exit(7)
        return self._observation() if self.form == "observation alone" else (self._observation(), {})

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), action
        self.t += 1
        self.field = np.roll(self.field, 1 + self.t, axis=1)
        if self.unlucky and self.t == 3:
            fail(self.fails)
        self.seen.append(plain(action))
        if self.t >= self.steps:
            self._write()
        over, reward = self.t >= self.steps, self.reward
        if self.unlucky and self.t == 3 and self.fails == "reward":
            reward = float("nan")
        if self.form == "four values":
            return self._observation(), reward, over, {}
        if self.form == "arrays":
            return self._observation(), reward, np.array([over]), np.array([False]), {}
        if self.form == "three values":
            return self._observation(), reward, over
        return self._observation(), reward, over, False, {}

    def render(self) -> Any:
        field = self.field
        if self.unlucky and self.t == 3 and self.fails == "size":
            field = field[:-4]
        if self.unlucky and self.t == 3 and self.fails == "picture":
            return None
        return {**PICTURES, **NO_PICTURES}[self.picture](field)

    def _observation(self) -> Any:
        return {"image": self.field, "place": np.zeros(2, np.float32)}

    def _write(self) -> None:
        """The actions of a whole episode, by what its last picture was."""
        if self.diary is not None:
            Path(self.diary).mkdir(parents=True, exist_ok=True)
            name = f"{int(self.field.astype(np.int64).sum())}-{os.getpid()}-{time.monotonic_ns()}.json"
            content = {"actions": self.seen, "field": self.field.tolist()}
            (Path(self.diary) / name).write_text(json.dumps(content))


class OldSeed(Odd):
    """`reset` takes nothing, `seed` does, as in gym before 0.26."""

    def seed(self, seed: int) -> None:
        self.told = seed

    def reset(self) -> Any:  # type: ignore[override]
        return super().reset(seed=self.told)[0]


class Undrawn(Odd):
    """Has no pictures but its observations, and knows no render mode."""

    metadata = {"render_modes": []}

    def __init__(self) -> None:
        super().__init__()

    def render(self) -> None:
        return None


def fail(how: str) -> None:
    """Fails in one of many ways; does nothing for those that come later in the step."""
    match how:
        case "raise":
            raise RuntimeError("the simulator lost\nits connection")
        case "exit":
            raise SystemExit(3)
        case "os._exit":
            os._exit(7)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "segfault":
            signal.raise_signal(signal.SIGSEGV)
        case "hang":
            time.sleep(600)


def plain(action: Any) -> Any:
    """An action as JSON, with its dtypes."""
    match action:
        case dict():
            return {key: plain(value) for key, value in action.items()}
        case tuple():
            return [plain(value) for value in action]
    array = np.asarray(action)
    return [str(array.dtype), array.tolist()]


gymnasium.register("Odd-v0", Odd)
gymnasium.register("OldSeed-v0", OldSeed)
gymnasium.register("Undrawn-v0", Undrawn)
