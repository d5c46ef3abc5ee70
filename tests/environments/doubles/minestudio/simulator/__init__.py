"""NOT MineStudio: a double of `MinecraftSim`, see `minecraft_double`."""

from collections import defaultdict

import gymnasium
import numpy as np
from gymnasium import spaces
from minecraft_double import KEYS, KINDS, DoubleProcess, DoubleWorld

from reverie.data.sources.vpt.minecraft import KEYS as ORDER
from reverie.data.sources.vpt.minecraft import decode_joint

ENV_KEYS = tuple(key for key in KEYS if key not in ("ESC", "drop", "swapHands", "pickItem"))


class _NoOp:
    def no_op(self):
        return {**dict.fromkeys(ENV_KEYS, 0), "camera": np.zeros(2, np.float32)}


class _DoubleEnv:
    """The MineRL environment inside."""

    def __init__(self, resolution):
        self.resolution, self.action_space = tuple(resolution), _NoOp()
        self.process, self.done, self._seed = None, True, None

    def seed(self, seed=None, seed_spaces=True):
        assert isinstance(seed, int) or seed is None, "Seed must be an int!"
        self._seed = seed

    def reset(self):
        if self.process is None:
            self.process = DoubleProcess()
        if not self.process.alive:
            raise ConnectionRefusedError("connection refused")
        self.world, self.done = DoubleWorld(self._seed, self.resolution), False
        self._seed = None

    def step(self, action):
        if self.done:
            raise RuntimeError("Attempted to step an environment server with done=True")
        if not self.process.alive:
            self.done = True
            noise = np.random.randint(256, size=(*self.resolution[::-1], 3)).astype(np.uint8)
            return {**self._observation(), "pov": noise}, 0, True, {"error": "Connection timed out!"}
        self.done = self.world.tick({key for key in ENV_KEYS if action.get(key)})
        return self._observation(), 0.0, self.done, {"health": 20.0, "food_level": 20}

    def close(self):
        if self.process is not None:
            self.process.close()

    def _observation(self):
        # Here only items that were counted are listed, in dicts that answer 0 for all others.
        statistics = {kind: defaultdict(lambda: np.zeros((), dtype=float)) for kind in KINDS}
        for (kind, item), count in self.world.counts.items():
            statistics[kind][item] = count
        return {"pov": self.world.pov(), "is_gui_open": False, **statistics}


class MinecraftSim(gymnasium.Env):
    """`reset() -> obs, info`; `step(action) -> obs, reward, terminated, truncated, info`, both flags the same."""

    def __init__(
        self,
        action_type="agent",
        obs_size=(224, 224),
        render_size=(640, 360),
        seed=0,
        inventory={},  # noqa: B006  (as it is there)
        preferred_spawn_biome=None,
        num_empty_frames=20,
        callbacks=[],  # noqa: B006
        camera_config=None,
    ):
        self.action_type, self.obs_size, self.num_empty_frames = action_type, obs_size, num_empty_frames
        self.seed = seed
        self.env = _DoubleEnv(render_size)
        self.env.seed(seed)
        self.info = {}

    @property
    def action_space(self):
        if self.action_type == "agent":
            return spaces.Dict(
                {"buttons": spaces.MultiDiscrete([8641]), "camera": spaces.MultiDiscrete([121])}
            )
        keys = {key: spaces.Discrete(2) for key in ENV_KEYS}
        return spaces.Dict({**keys, "camera": spaces.Box(-180, 180, (2,), np.float32)})

    def reset(self):
        self.env.reset()
        for _ in range(self.num_empty_frames):
            obs, _, _, info = self.env.step(self.env.action_space.no_op())
        return self._wrap(obs, info)

    def step(self, action):
        checked = {key: np.int64(v) if key in ENV_KEYS else np.asarray(v) for key, v in action.items()}
        assert set(checked) == set(self.action_space.spaces) and self.action_space.contains(checked), action
        if self.action_type == "agent":
            keys, _ = decode_joint(action.pop("buttons")[0], action.pop("camera")[0])
            action.update({key: int(down) for key, down in zip(ORDER, keys) if key in ENV_KEYS})
        obs, reward, done, info = self.env.step(action.copy())
        obs, info = self._wrap(obs, info)
        return obs, reward, done, done, info

    def close(self):
        self.env.close()

    def _wrap(self, obs, info):
        """What was told once stays in the info, also across resets."""
        width, height = self.obs_size
        rows = np.arange(height) * obs["pov"].shape[0] // height
        columns = np.arange(width) * obs["pov"].shape[1] // width
        self.info.update(info)
        self.info.update(obs)
        return {"image": obs["pov"][rows][:, columns]}, self.info.copy()
