"""Dreamer V1 to V3 online: a game is played, and learned from while it is played.

Whole episodes are played, by the policy as it is then, and written to RUN/played in the form of `reverie record`, so that
`reverie prepare` makes shards of them. Update number s happens once prefill + s x batch_size x length / train_ratio steps have
been played, where the first `pretrain` updates do not count. What is played is a function of seed, weights and the number of the
episode, so a run that was killed continues to the same bytes: episodes that are on disk are read, not played again. One in which
the game fails is given up (RUN/played/failed).
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from torch import nn

from reverie.data.batch import RETURN, Batch
from reverie.data.errors import UserError
from reverie.data.loading.replay import Replay
from reverie.data.loading.streams import NO_TASK
from reverie.data.sources.episodes import EpisodeWriter
from reverie.data.sources.given_up import GivenUp
from reverie.environments.game import GameEnv
from reverie.environments.lasting import LastingGame, Streak
from reverie.environments.make import make_env, with_limit
from reverie.environments.play import Playing, play, play_episode
from reverie.environments.vector import VectorGame
from reverie.evaluation.games import AgentPolicy, held_out_seeds, require_played
from reverie.evaluation.games import play as play_all
from reverie.pipelines.datasets.record import episode_name
from reverie.pipelines.runs.configs import to_plain
from reverie.pipelines.stages.baseline_config import BaselineStage
from reverie.pipelines.stages.phases import Phases, advice, identity, updates
from reverie.pipelines.training.checkpoints import Card
from reverie.pipelines.training.processes import Processes
from reverie.pipelines.training.stage import Evaluate, Plan, Run, train
from reverie.rssm.model import Dreamer, DreamerObjective
from reverie.rssm.player import Player

PLAYED = "played"
"""Folder of the played episodes within the run folder."""
_RECENT = 10
"""Episodes whose mean return is logged."""


def train_online(config: BaselineStage) -> None:
    """Plays and learns. Raises `UserError` when the game cannot be played or has not the task."""
    game = _make_game(config)
    if config.task not in (None, RETURN, *game.tasks):
        raise UserError(
            f"--task {config.task}: the game has the tasks {', '.join(game.tasks) or 'none'}; choose one of them."
        )
    if config.fabric.devices * config.fabric.num_nodes > 1:
        raise UserError("--fabric.devices: one process plays and learns online; leave it at 1.")
    card = Card(
        kind="baseline",
        model=to_plain(config.model),
        fps=game.fps,
        frame_size=list(game.frame_size),
        action_space=to_plain(game.action_space_spec.to_json()),
        tasks=[] if config.task in (None, RETURN) else [config.task],
    )
    played = {
        name: to_plain(getattr(config, name))
        for name in ("env", "max_steps", "options", "collect", "batches")
    }
    batches: list[PlayedBatches] = []

    def open_batches(objective: nn.Module, _: Processes) -> PlayedBatches:
        batches.append(PlayedBatches(config, game, objective))
        return batches[0]

    plan = Plan(
        build=lambda: DreamerObjective(Dreamer(config.model, (*game.frame_size, 3), game.action_space_spec)),
        card=card,
        identity=identity(card) | played,
        advice=advice(config),
        inputs={},
        updates=updates(config.model, Phases("joint", config.training.steps, "joint", 0)),
        open_batches=open_batches,
        open_evaluation=partial(_open_evaluation, config),
        counts=lambda: batches[0].counts(),
    )
    for note in game.notes():
        print(f"note: {note}", flush=True)
    game.close()  # what it is like is known; it is played by `PlayedBatches`
    try:
        train("baseline", config, plan)
    finally:
        for played_batches in batches:
            played_batches.close()


class PlayedBatches:
    """Batches of what has been played so far; playing goes on when more is needed.

    Args:
      config: of the stage.
      game: what the game is like.
      objective: whose model plays.
    """

    def __init__(self, config: BaselineStage, game: GameEnv, objective: nn.Module):
        self._config, self._objective = config, objective
        self._folder = config.out / PLAYED
        self._lasting, self._given_up = LastingGame(partial(_make_game, config)), GivenUp(self._folder)
        self._streak = Streak(self._given_up.hint)
        self._writer = EpisodeWriter(
            self._folder,
            env=game.name,
            fps=game.fps,
            frame_size=game.frame_size,
            action_space=game.action_space_spec,
            tasks=game.tasks,
            players={"baseline": config.version, "seed": config.training.seed},
        )
        self._writer.remove_leftovers()
        task = NO_TASK if config.task in (None, RETURN) else game.tasks.index(config.task)
        self._replay = Replay(self._folder, self._writer.recording, config.collect.memory, task)
        self._episodes, self._steps, self._failed = 0, 0, 0
        self.skipped: list[str] = []

    def next(self, step: int) -> Batch:
        """The batch of update number `step`."""
        collect, batches = self._config.collect, self._config.batches
        per_update = batches.batch_size * batches.length / collect.train_ratio
        while self._steps < collect.prefill + int(max(0, step - collect.pretrain) * per_update):
            self._play()
        rng = np.random.default_rng([self._config.training.seed, step])
        return self._replay.batch(batches.batch_size, batches.length, rng)

    def state_dict(self) -> dict[str, int]:
        """How much had been played; episodes that were given up count as such, with no steps."""
        return {"episodes": self._episodes, "steps": self._steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues there; the episodes are read from disk. Raises `UserError` when one is missing."""
        self._episodes, self._steps = int(state["episodes"]), int(state["steps"])
        if min(self._episodes, self._steps) < 0:
            raise ValueError(f"episodes {self._episodes} and steps {self._steps} must be at least 0")
        # Looked for one by one: the number may be anything.
        numbered = (name for name in map(episode_name, range(self._episodes)) if not self._given_up.has(name))
        missing = next((name for name in numbered if not self._writer.has(name)), None)
        if missing is not None:
            raise UserError(
                f"{self._folder}: episode {missing} is missing, which the run has learned from; put it back, or begin "
                f"anew with another --out."
            )
        numbers = map(episode_name, range(self._episodes))
        names = [name for name in numbers if not self._given_up.has(name)]
        self._failed = self._episodes - len(names)
        self._replay.restore(names)

    def counts(self) -> dict[str, float]:
        """Steps and episodes played, of these given up, and the mean return of the newest ones."""
        newest = self._replay.episodes[-_RECENT:]
        returns = [float(episode.steps.reward.sum()) for episode in newest]
        return {
            "play/steps": float(self._steps),
            "play/episodes": float(self._episodes),
            "play/failed": float(self._failed),
            "play/return": float(np.mean(returns)),
        }

    def close(self) -> None:
        """Closes the game."""
        self._lasting.close()

    def _play(self) -> None:
        name, number = episode_name(self._episodes), self._episodes
        if not self._writer.has(name) and not self._given_up.has(name):
            reasons = self._lasting.attempt(
                lambda game: self._writer.record(name, self._episode(game, number))
            )
            if reasons:
                self._given_up.add(name, reasons)
        self._episodes += 1
        if self._given_up.has(name):
            self._failed += 1
            self._streak.see(self._given_up.reasons(name))
            return
        self._streak.see([])
        self._steps += len(self._replay.add(name).frames) - 1

    def _episode(self, game: GameEnv, number: int) -> Playing:
        seed = np.random.SeedSequence([self._config.training.seed, number])
        if self._steps < self._config.collect.prefill:
            return play_episode(game, "random", seed=seed)
        return play(game, partial(self._acting, game), "agent", seed)

    def _acting(self, game: GameEnv, rng: np.random.Generator) -> "_Acting":
        model = self._objective.model
        assert isinstance(model, Dreamer)
        player = Player(model, 1, noise=self._config.collect.noise, seed=int(rng.integers(2**31)))
        return _Acting(player, game)


class _Acting:
    """A model's player in one game."""

    def __init__(self, player: Player, game: GameEnv):
        self._player, self._game = player, game

    def act(self) -> dict[str, np.ndarray]:
        """The action for the frame that the game shows."""
        return {name: value[0] for name, value in self._player.act(self._game.frame()[None]).items()}


def _make_game(config: BaselineStage) -> GameEnv:
    assert config.env is not None
    return make_env(config.env, seed=config.training.seed, **with_limit(config.options, config.max_steps))


def _open_evaluation(config: BaselineStage, objective: nn.Module, _: Run) -> Evaluate:
    """Plays in worlds that no episode is recorded in."""
    assert isinstance(objective, DreamerObjective) and config.env is not None
    make = partial(VectorGame, config.env, **with_limit(config.options, config.max_steps))

    def evaluate() -> Mapping[str, float]:
        count = config.collect.episodes
        game = make(num_envs=min(count, 16), seeds=held_out_seeds(count, config.training.seed))
        greedy = config.version != "v3" if config.collect.greedy is None else config.collect.greedy
        player = Player(objective.model, game.num_envs, greedy=greedy, seed=config.training.seed)
        try:
            results = require_played(play_all(game, AgentPolicy(player)))
        finally:
            game.close()
        success = {
            f"success/{task}": float(np.mean([task in r.events for r in results])) for task in game.tasks
        }
        returns = float(np.mean([r.episode_return for r in results]))
        return {"return": returns, "steps": float(np.mean([r.steps for r in results])), **success}

    return evaluate
