"""The models under evaluation as players of a game, and whether they can play it."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

from reverie.agent.model import Agent
from reverie.agent.player import Player
from reverie.data.actions import ActionSpace
from reverie.data.batch import RETURN
from reverie.data.errors import UserError
from reverie.dynamics.fast_frame import use_fast
from reverie.pipelines.scoring.models import EvaluateConfig, Scoring
from reverie.pipelines.training.checkpoints import read_card
from reverie.pipelines.worlds.gamer import learned_tasks
from reverie.rssm.model import Dreamer
from reverie.rssm.player import Player as RecurrentPlayer

STAGES = ("cloning", "imagination")
"""What the players of Dreamer 4 are called."""

MakePlayer = Callable[[int], Player | RecurrentPlayer]
"""Makes a player of so many games side by side."""


def learned_players(scoring: Scoring, task: str | None) -> Mapping[str, MakePlayer]:
    """The baselines, the cloned policy (of its own run, or the prior of the improved agent) and the improved one.

    `task` is what agents are asked for; None: nothing, or what they are told later.
    """
    models, config = scoring.models, scoring.config

    def recurrent(model: Dreamer, num: int) -> RecurrentPlayer:
        return RecurrentPlayer(model, num, greedy=config.greedy, seed=config.seed)

    def agent(model: Agent, num: int, *, prior: bool = False) -> Player:
        assert models.tokenizer is not None
        number = -1 if task is None else model.task_index(task)
        device = models.tokenizer.mask_token.device
        return Player(
            models.tokenizer,
            model,
            num,
            task=number,
            prior=prior,
            greedy=config.greedy,
            seed=config.seed,
            fast=use_fast(config.compile, device, None),
        )

    found: dict[str, MakePlayer] = {
        name: partial(recurrent, model) for name, model in models.baselines.items()
    }
    if models.cloned is not None:
        found[STAGES[0]] = partial(agent, models.cloned)
    elif models.agent is not None:
        found[STAGES[0]] = partial(agent, models.agent, prior=True)
    if models.agent is not None:
        found[STAGES[1]] = partial(agent, models.agent)
    return found


def asked_task(scoring: Scoring, tasks: Sequence[str]) -> str | None:
    """What the agents of Dreamer 4 are asked for in a game with `tasks`; None without agents.

    --task, or else the game's last task; the game's own reward (`RETURN`) where they have learned that and not this task; in a
    game without tasks the one that they have learned. Raises `UserError` for one that an agent has not learned, or where it
    must be chosen.
    """
    config, models = scoring.config, scoring.models
    agents = [
        (path, agent)
        for path, agent in ((config.cloned, models.cloned), (config.agent, models.agent))
        if path is not None and agent is not None
    ]
    if not agents:
        return None
    learned = [learned_tasks(path, agent) for path, agent in agents]
    common = [name for name in learned[0] if all(name in others for others in learned)]
    task = config.task or (tasks[-1] if tasks else None)
    if config.task is None and task not in common and RETURN in common:
        return RETURN
    if task is None:
        if len(common) != 1:
            raise UserError(
                f"--task: the game has no tasks, the agents have learned {', '.join(learned[0])}; choose one of them."
            )
        return common[0]
    for (path, agent), known in zip(agents, learned, strict=True):
        agent.task_index(task)
        if task not in known:
            raise UserError(f"--task {task}: {path} has learned {known[0]} alone; give that task.")
    return task


def learned_task(scoring: Scoring, player: str, asked: str | None) -> str | None:
    """What a learned player plays for: agents for what they are `asked`, a baseline for the task of its run."""
    if player not in scoring.config.baselines:
        return asked
    return next(iter(read_card(scoring.config.baselines[player]).tasks or []), None)


def require_players(config: EvaluateConfig, available: Collection[str]) -> None:
    """Raises `UserError` unless each player that is asked for is `available`, and there is one."""
    for name in config.players:
        if name == "expert" and name not in available:
            raise UserError(f"players: game {config.env!r} has no expert; leave it out.")
        if name not in available:
            raise UserError(f"players: {name} needs a run that was not given; add --agent or --cloned.")


def require_actions(scoring: Scoring, space: ActionSpace) -> None:
    """Raises `UserError` unless the agents and baselines have learned the actions of the game, `space`."""
    learned = [
        ("the agent", agent.dynamics.action_space)
        for agent in (scoring.models.cloned, scoring.models.agent)
        if agent is not None
    ]
    for path in scoring.config.baseline:
        learned.append((str(path), ActionSpace.from_json(read_card(path).action_space or {}, str(path))))
    for who, known in learned:
        if known != space:
            raise UserError(
                f"--env {scoring.config.env}: has other actions than {who} has learned; give the game that was recorded."
            )
