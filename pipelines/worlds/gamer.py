"""A trained agent as a player of one game, beside scripted and random ones; `reverie record` lets it play."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch

from reverie.agent.model import Agent
from reverie.agent.player import Player
from reverie.data.batch import RETURN
from reverie.data.errors import UserError
from reverie.data.files.documents import MOST_YAML_BYTES, parse_yaml, read_bounded
from reverie.environments.game import GameEnv
from reverie.pipelines.training.checkpoints import (
    load_agent,
    load_tokenizer,
    read_card,
    weights_sha256,
)
from reverie.pipelines.worlds.places import is_world, stage_run
from reverie.tokenizer.model import Tokenizer


@dataclass(frozen=True)
class GameAgent:
    """The models of an agent, for any number of episodes.

    name   for logs: `agent`, and the beginning of the hash of its weights
    tasks  those it was trained for
    """

    tokenizer: Tokenizer
    model: Agent
    name: str
    tasks: tuple[str, ...]

    def player(self, game: GameEnv, rng: np.random.Generator, task: str | None) -> "AgentPlayer":
        """It, for one episode of `game`; `task` as in `chosen_task`. What it draws comes from `rng`."""
        asked = chosen_task(self, game, task)
        number = -1 if asked is None else self.model.task_index(asked)
        seed = int(rng.integers(2**62))
        return AgentPlayer(Player(self.tokenizer, self.model, 1, task=number, seed=seed), game)


class AgentPlayer:
    """Acts on what its game shows; a `GamePlayer`."""

    def __init__(self, player: Player, game: GameEnv) -> None:
        self._player, self._game = player, game

    def act(self) -> dict[str, np.ndarray]:
        """Drawn from the policy."""
        return {name: np.asarray(x[0]) for name, x in self._player.act(self._game.frame()[None]).items()}


@cache
def load_game_agent(run: Path, tokenizer: Path) -> GameAgent:
    """The agent of a run, loaded once in a process, on one thread of the CPU, so that what it does repeats.

    Raises `UserError` where the two runs do not belong together.
    """
    card, digest = read_card(run, "agent"), weights_sha256(tokenizer)
    if card.tokenizer_sha256 != digest:
        raise UserError(
            f"--tokenizer {tokenizer}: is {digest[:12]}, but {run} was trained with {(card.tokenizer_sha256 or 'none')[:12]}; "
            f"give the tokenizer run that it was trained with."
        )
    torch.set_num_threads(1)
    model = load_agent(run)
    name = f"agent {weights_sha256(run)[:8]}"
    return GameAgent(load_tokenizer(tokenizer), model, name, learned_tasks(run, model))


def learned_tasks(run: Path, model: Agent) -> tuple[str, ...]:
    """The tasks that the agent of a run was trained for: all of its data, or the one it was told."""
    folder = run if run.exists() else run.parent  # RUN/ema
    try:
        settings = parse_yaml(read_bounded(folder / "config.yaml", MOST_YAML_BYTES))
    except (OSError, ValueError):
        return model.tasks
    task = settings.get("task") if isinstance(settings, dict) else None
    return (task,) if task in model.tasks else model.tasks


def tokenizer_of(agent: Path) -> Path:
    """The tokenizer's run that belongs to an agent: of its world, or among the runs beside it. Raises `UserError`."""
    if is_world(agent):
        return stage_run(agent, "tokenizer")
    wanted = read_card(agent, "agent").tokenizer_sha256
    run = agent if agent.exists() else agent.parent  # RUN/ema
    for folder in sorted(run.absolute().parent.iterdir()):
        if _is_tokenizer(folder, wanted):
            return folder
    raise UserError(
        f"--tokenizer: that of {agent} does not lie beside it; give the tokenizer run that it was trained with."
    )


def _is_tokenizer(folder: Path, wanted: str | None) -> bool:
    if not (folder / "checkpoints").is_dir() and not (folder / "model.safetensors").is_file():
        return False
    try:
        return read_card(folder).kind == "tokenizer" and weights_sha256(folder) == wanted
    except UserError:
        return False


def chosen_task(agent: GameAgent, game: GameEnv, task: str | None) -> str | None:
    """What an agent is asked for: `task`, or else the game's last task, or of a game without tasks the agent's `default_task`.

    An agent that has learned the game's own reward and not that task is asked for the reward.

    Raises `UserError` for one that the agent has not learned.
    """
    model, known = agent.model, agent.tasks
    default = known[0] if len(known) == 1 else model.default_task
    asked = task or (game.tasks[-1] if game.tasks else default)
    if task is None and asked not in known and RETURN in known:
        asked = RETURN
    if asked is not None:
        model.task_index(asked)
        if asked not in known:
            raise UserError(f"--task {asked}: the agent has learned {known[0]} alone; give that task.")
    return asked


def require_game(agent: GameAgent, game: GameEnv, task: str | None) -> None:
    """Raises `UserError` unless the agent knows the game's frames, its actions and its task."""
    size = tuple(agent.tokenizer.config.frame_size)
    if size != tuple(game.frame_size):
        raise UserError(
            f"--agent: is for frames of {size}, but game {game.name!r} has {tuple(game.frame_size)}."
        )
    if agent.model.dynamics.action_space != game.action_space_spec:
        known = ", ".join(agent.model.dynamics.action_space.components)
        raise UserError(
            f"--agent: has learned the actions {known or 'none'}, but game {game.name!r} has "
            f"{', '.join(game.action_space_spec.components)} or other sizes; give an agent of this game."
        )
    chosen_task(agent, game, task)
