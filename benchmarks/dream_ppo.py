"""A stock PPO trained inside a world that ships, scored in the real game beside random play.

    python -m benchmarks.dream_ppo --seeds 3

Needs `pip install "reverie[ppo]"`. The game is MiniGrid Empty-Random-5x5; PPO is Stable-Baselines3's, with its CNN.
"""

import argparse
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnv

from reverie.environments.make import make_env
from reverie.evaluation.statistics import success_rate
from reverie.pipelines.worlds.gymnasium_env import DreamVectorEnv

WORLD, GAME, MAX_STEPS = "world:minigrid", "minigrid-empty-random-5x5", 32


class StableVec(VecEnv):
    """A Gymnasium VectorEnv as Stable-Baselines3 takes it.

    A game that has ended begins anew with the next step, whose action does nothing; PPO sees it as an episode's first.
    """

    def __init__(self, inner: gymnasium.vector.VectorEnv) -> None:
        super().__init__(inner.num_envs, inner.single_observation_space, inner.single_action_space)
        self.inner = inner
        self._actions: np.ndarray = np.zeros(inner.num_envs)

    def reset(self) -> np.ndarray:
        """Begins anew in all games."""
        return self.inner.reset(seed=self._seeds[0])[0]

    def step_async(self, actions: np.ndarray) -> None:
        """Notes what is to be done."""
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Does it."""
        frames, rewards, terminated, truncated, _ = self.inner.step(self._actions)
        infos = [
            {"TimeLimit.truncated": bool(cut), "terminal_observation": frame}
            for cut, frame in zip(truncated, frames)
        ]
        return frames, rewards.astype(np.float32), terminated | truncated, infos

    def close(self) -> None:
        """Nothing is open."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The same for all."""
        return [getattr(self.inner, attr_name, None)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Not possible."""
        raise NotImplementedError

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Not possible."""
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """Never."""
        return [False] * self.num_envs


def train_in_dream(seed: int, steps: int) -> PPO:
    """PPO after `steps` dreamed steps."""
    inner = DreamVectorEnv(16, WORLD, max_steps=MAX_STEPS, sampling_steps=2, device="cpu")
    dream = StableVec(inner)
    dream.seed(seed)
    learner = PPO(
        "CnnPolicy",
        dream,
        n_steps=32,
        batch_size=128,
        n_epochs=4,
        learning_rate=5e-4,
        gamma=0.95,
        ent_coef=0.01,
        seed=seed,
        device="cpu",
    )
    return learner.learn(steps)


def successes(act: Callable[[np.ndarray], int], episodes: int, first: int = 10_000) -> list[bool]:
    """For each of `episodes` worlds of the real game whether the goal is reached."""
    game, reached = make_env(GAME, seed=0, max_steps=MAX_STEPS), list[bool]()
    for episode in range(first, first + episodes):
        frame, _ = game.reset(seed=episode)
        ended, reward = False, 0.0
        while not ended:
            frame, reward, terminated, truncated, _ = game.step(act(frame))
            ended = terminated or truncated
        reached.append(reward > 0)
    game.close()
    return reached


def policy_of(learner: PPO) -> Callable[[np.ndarray], int]:
    """Its actions, drawn."""
    return lambda frame: int(learner.predict(frame, deterministic=False)[0])


def random_policy(seed: int) -> Callable[[np.ndarray], int]:
    """Any of the seven actions."""
    rng = np.random.default_rng(seed)
    return lambda frame: int(rng.integers(7))


def main() -> None:
    """Prints a line for each player."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=16_384)
    parser.add_argument("--episodes", type=int, default=100)
    given = parser.parse_args()
    players = {"random": random_policy(0)}
    for seed in range(given.seeds):
        players[f"PPO in the dream, seed {seed}"] = policy_of(train_in_dream(seed, given.steps))
    for name, act in players.items():
        rate = success_rate(successes(act, given.episodes))
        print(f"{name}: {100 * rate.value:.0f} [{100 * rate.low:.1f}, {100 * rate.high:.1f}] %", flush=True)


if __name__ == "__main__":
    main()
