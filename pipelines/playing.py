"""The part of `evaluate` that plays: random, scripted, cloned and improved players in the same held-out worlds."""

from collections.abc import Callable, Mapping
from functools import partial

from reverie.agent.model import Agent
from reverie.agent.player import Player
from reverie.data.errors import UserError
from reverie.environments.players import require_player
from reverie.environments.vector import VectorGame
from reverie.evaluation.charts import success_chart
from reverie.evaluation.figures import GameScores
from reverie.evaluation.gallery import agent_films
from reverie.evaluation.games import (
    AgentPolicy,
    GameScore,
    Policy,
    ScriptedPolicy,
    gain,
    held_out_seeds,
    play,
    score,
)
from reverie.evaluation.recorded import recorded_results
from reverie.pipelines.progress import meter
from reverie.pipelines.scoring import EvaluateConfig, Scoring


def open_game(scoring: Scoring) -> VectorGame:
    """The game with its held-out worlds. Raises `UserError` unless the models can play it."""
    config = scoring.config
    assert config.env is not None
    limit = {} if config.max_steps is None else {"max_steps": config.max_steps}
    seeds = held_out_seeds(config.episodes, config.seed)
    num_envs = min(config.num_envs, config.episodes)
    game = VectorGame(config.env, num_envs, seeds, keep_frames=config.films, **limit, **config.options)
    size = scoring.models.tokenizer.config.frame_size
    if tuple(game.frame_size) != tuple(size):
        raise UserError(
            f"--env {config.env}: has frames of {tuple(game.frame_size)}, the tokenizer is for {tuple(size)}; "
            f"give the game and the options that were recorded."
        )
    _require_task(scoring, game)
    return game


def _require_task(scoring: Scoring, game: VectorGame) -> None:
    task = _task(scoring.config, game)
    if task is None:
        return
    if task not in game.tasks:
        raise UserError(
            f"--task {task}: the game has the tasks {', '.join(game.tasks) or 'none'}; choose one of them."
        )
    for agent in (scoring.models.cloned, scoring.models.agent):
        if agent is None:
            continue
        agent.task_index(task)
        if agent.dynamics.action_space != game.action_space_spec:
            raise UserError(
                f"--env {scoring.config.env}: has other actions than the agent's data; give the game it was "
                f"recorded from."
            )


def _task(config: EvaluateConfig, game: VectorGame) -> str | None:
    """The task played for; None in a game without tasks, where only the return counts."""
    return config.task or (game.tasks[-1] if game.tasks else None)


def play_all(scoring: Scoring, game: VectorGame) -> GameScores:
    """Every player in the same worlds, from the random one to the one trained in imagination."""
    config, task = scoring.config, _task(scoring.config, game)
    players: list[GameScore] = []
    for name, make in _scripted(config, game).items():
        players.append(_play(scoring, game, name, make(), learned=False))
    if scoring.index.tasks == game.tasks and (recorded := recorded_results(scoring.index)):
        players.insert(1, score("data", recorded, game.tasks))
    learned = _learned(scoring, game, task)
    for name, make in learned.items():
        players.append(_play(scoring, game, name, make(), learned=True))
    named = {found.player: found for found in players}
    ladder = [named["random"], *(named[name] for name in learned)]
    scores = GameScores(
        env=str(config.env),
        task=task,
        tasks=game.tasks,
        episodes=config.episodes,
        players=players,
        gains=[gain(better, worse, task) for worse, better in zip(ladder, ladder[1:], strict=False)],
    )
    if game.tasks:
        scoring.gallery.success_chart = success_chart({p.player: p.success for p in players}, game.tasks)
    game.close()
    return scores


def _play(scoring: Scoring, game: VectorGame, name: str, policy: Policy, *, learned: bool) -> GameScore:
    with meter(f"play: {name}", len(game.seeds)) as shown:
        episodes = play(game, policy, shown.update)
    if learned:
        films = agent_films(name, episodes, game.action_space_spec, game.fps)
        scoring.gallery.agent_films[name] = films
    return score(name, [episode.result for episode in episodes], game.tasks, learned=learned)


def _scripted(config: EvaluateConfig, game: VectorGame) -> Mapping[str, Callable[[], Policy]]:
    """The random player, and the expert where the game has one."""
    kinds = ["random"]
    try:
        require_player("expert", game.envs[0])
        kinds.append("expert")
    except UserError:
        pass  # not every game has an expert, and the score stands without it
    return {kind: partial(ScriptedPolicy, kind, game, config.seed) for kind in kinds}


def _learned(scoring: Scoring, game: VectorGame, task: str | None) -> Mapping[str, Callable[[], Policy]]:
    """The cloned policy (of its own run, or the prior of the improved agent) and the improved one."""
    models, config = scoring.models, scoring.config

    def policy(agent: Agent, *, prior: bool = False) -> Policy:
        player = Player(
            models.tokenizer,
            agent,
            game.num_envs,
            task=-1 if task is None else agent.task_index(task),
            prior=prior,
            greedy=config.greedy,
            seed=config.seed,
        )
        return AgentPolicy(player)

    found: dict[str, Callable[[], Policy]] = {}
    if models.cloned is not None:
        found["cloning"] = partial(policy, models.cloned)
    elif models.agent is not None:
        found["cloning"] = partial(policy, models.agent, prior=True)
    if models.agent is not None:
        found["imagination"] = partial(policy, models.agent)
    return found
