"""NOT MineRL: a double of `HumanSurvival(...).make()`, see `minecraft_double`."""

import numpy as np
from minecraft_double import ITEMS, KEYS, KINDS, DoubleProcess, DoubleWorld


class _DoubleEnv:
    """The old Gym interface: `reset() -> obs`, `step(action) -> obs, reward, done, info`."""

    def __init__(self, resolution):
        self.resolution = tuple(resolution)
        self.process = None
        self.done = True
        self._seed = None

    def seed(self, seed=None, seed_spaces=True):
        assert isinstance(seed, int) or seed is None, "Seed must be an int!"
        self._seed = seed

    def reset(self):
        if self.process is None:
            self.process = DoubleProcess()  # the first reset starts the game, later ones keep it
        if not self.process.alive:
            raise ConnectionRefusedError("connection refused")
        self.world, self.done = DoubleWorld(self._seed, self.resolution), False
        self._seed = None
        return self._observation()

    def step(self, action):
        if self.done:
            raise RuntimeError("Attempted to step an environment server with done=True")
        self._check(action)
        if not self.process.alive:
            self.done = True
            noise = np.random.randint(256, size=(*self.resolution[::-1], 3)).astype(np.uint8)
            return {**self._observation(), "pov": noise}, 0, True, {"error": "Connection timed out!"}
        self.done = self.world.tick({key for key in KEYS if action.get(key)})
        return self._observation(), 0.0, self.done, {"isGuiOpen": False, "location_stats": {}}

    def close(self):
        if self.process is not None:
            self.process.close()

    def _check(self, action):
        assert set(action) <= {*KEYS, "camera"}, set(action) - {*KEYS, "camera"}
        assert all(action[key] in (0, 1) for key in set(action) - {"camera"})
        camera = np.asarray(action["camera"])
        assert camera.shape == (2,) and camera.dtype == np.float32 and np.abs(camera).max() <= 180

    def _observation(self):
        # Here every item is listed, as a number in an array.
        statistics = {
            kind: {item: np.array(self.world.counts[kind, item], float) for item in ITEMS}
            for kind in KINDS
            if kind != "custom"
        }
        inventory = {item: np.array(0) for item in ITEMS}
        return {"pov": self.world.pov(), "inventory": inventory, **statistics}


class HumanSurvival:
    def __init__(self, *, fov_range, frameskip, gamma_range, guiscale_range, resolution, cursor_size_range):
        assert frameskip == 1 and len(cursor_size_range) == 2
        self.resolution = resolution

    def make(self):
        return _DoubleEnv(self.resolution)
