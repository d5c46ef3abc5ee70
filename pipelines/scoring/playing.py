"""The part of `evaluate` that plays: random, scripted, cloned and improved players in the same held-out worlds."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial

from reverie.agent.player import Player
from reverie.data.batch import RETURN
from reverie.data.errors import UserError
from reverie.environments.make import with_limit
from reverie.environments.players import require_player
from reverie.environments.vector import VectorGame, Watcher
from reverie.evaluation.alarm import Watchers
from reverie.evaluation.charts import success_chart
from reverie.evaluation.figures import GameScores
from reverie.evaluation.filming import EpisodeFilms
from reverie.evaluation.games import (
    AgentPolicy,
    Gain,
    GameScore,
    Policy,
    ScriptedPolicy,
    gain,
    held_out_seeds,
    play,
    score,
)
from reverie.evaluation.recorded import recorded_results
from reverie.evaluation.traces import Traces
from reverie.pipelines.runs.progress import meter
from reverie.pipelines.scoring.alarming import agreement, beginnings
from reverie.pipelines.scoring.models import EvaluateConfig, Scoring
from reverie.pipelines.scoring.players import (
    STAGES,
    asked_task,
    learned_players,
    learned_task,
    require_actions,
    require_players,
)
from reverie.pipelines.training.checkpoints import read_card
from reverie.rssm.player import Player as RecurrentPlayer


def open_game(scoring: Scoring) -> VectorGame:
    """The game with its held-out worlds. Raises `UserError` unless the models can play it."""
    config = scoring.config
    assert config.env is not None
    options = with_limit(config.options, config.max_steps)
    seeds = held_out_seeds(config.episodes, config.seed)
    num_envs = min(config.num_envs, config.episodes)
    game = VectorGame(config.env, num_envs, seeds, **options)
    size = scoring.index.frame_size
    if tuple(game.frame_size) != tuple(size):
        raise UserError(
            f"--env {config.env}: has frames of {tuple(game.frame_size)}, the models are for {tuple(size)}; "
            f"give the game and the options that were recorded."
        )
    require_actions(scoring, game.action_space_spec)
    _require_task(scoring, game)
    require_players(config, {*_scripted(config, game), *learned_players(scoring, None)})
    _note(scoring, game)
    return game


def _note(scoring: Scoring, game: VectorGame) -> None:
    """What is to be known of the game, and of what is asked of its players."""
    notes = game.envs[0].notes()
    asked = asked_task(scoring, game.tasks)
    if asked not in (None, RETURN, *game.tasks):
        notes.append(
            f"The game has no tasks; agents are asked for {asked}, which they have learned, and scored by the return."
        )
    for note in notes:
        print(f"note: {note}", flush=True)
    scoring.notes.extend(notes)


def _require_task(scoring: Scoring, game: VectorGame) -> None:
    task = _wanted(scoring, game)
    if task in (None, RETURN):
        return
    known_by_agents = not game.tasks and asked_task(scoring, game.tasks) is not None
    if task not in game.tasks and not known_by_agents:
        raise UserError(
            f"--task {task}: the game has the tasks {', '.join(game.tasks) or 'none'}; choose one of them."
        )
    for path in scoring.config.baseline:
        known = read_card(path).tasks
        if game.tasks and known and task not in known:
            raise UserError(
                f"--task {task}: {path} has learned {known[0]}; give that task, or a run that learned this one."
            )


def _wanted(scoring: Scoring, game: VectorGame) -> str | None:
    """What is played for, by agents or else by whoever plays."""
    return asked_task(scoring, game.tasks) or scoring.config.task or (game.tasks[-1] if game.tasks else None)


def _task(scoring: Scoring, game: VectorGame) -> str | None:
    """The game's task that is scored; None where only the return counts: it has no such task, or the return is asked for."""
    wanted = _wanted(scoring, game)
    return wanted if wanted in game.tasks else None


def play_all(scoring: Scoring, game: VectorGame) -> GameScores:
    """Every player in the same worlds, from the random one to the one trained in imagination."""
    config, task = scoring.config, _task(scoring, game)
    asked = asked_task(scoring, game.tasks)
    players: list[GameScore] = []
    for name, make in _scripted(config, game).items():
        if config.plays(name):
            players.append(_play(scoring, game, name, make()))
    if set(game.tasks) <= set(scoring.index.tasks) and (recorded := recorded_results(scoring.index)):
        players.insert(1, score("data", recorded, game.tasks))
    for name, make_player in learned_players(scoring, asked).items():
        if config.plays(name):
            player = make_player(game.num_envs)
            players.append(_play_and_film(scoring, game, name, player, learned_task(scoring, name, asked)))
    scores = GameScores(
        env=str(config.env),
        task=task,
        tasks=game.tasks,
        episodes=config.episodes,
        players=players,
        gains=_gains({found.player: found for found in players}, scoring.models.baselines, task),
    )
    if game.tasks:
        scoring.gallery.success_chart = success_chart({p.player: p.success for p in players}, game.tasks)
    scoring.notes.extend(scores.failures())
    game.close()
    return scores


def _gains(players: Mapping[str, GameScore], baselines: Iterable[str], task: str | None) -> list[Gain]:
    """Each stage of Dreamer 4 over the one before it, and its last one over every baseline."""
    ladder = [players[name] for name in ("random", *STAGES) if name in players]
    baselines = [name for name in baselines if name in players and ladder]
    steps = [gain(better, worse, task) for worse, better in zip(ladder, ladder[1:], strict=False)]
    if len(ladder) == 1:
        return [gain(players[name], ladder[0], task) for name in baselines]
    return steps + [gain(ladder[-1], players[name], task) for name in baselines]


def _play(scoring: Scoring, game: VectorGame, name: str, policy: Policy) -> GameScore:
    with meter(f"play: {name}", len(game.seeds)) as shown:
        return score(name, play(game, policy, shown.update), game.tasks)


def _play_and_film(
    scoring: Scoring, game: VectorGame, name: str, player: Player | RecurrentPlayer, task: str | None
) -> GameScore:
    """A learned player; its first episodes are shown in the report."""
    config = scoring.config
    films = EpisodeFilms(config.out / "media", name, config.films, game.action_space_spec, game.fps)
    watched = beginnings(scoring, name, task, list(game.tasks))
    traces = Traces(AgentPolicy(player), player if isinstance(player, Player) else None, game, config.films)
    watchers: list[Watcher] = [films, traces, *([] if watched is None else [watched])]
    with meter(f"play: {name}", len(game.seeds)) as shown:
        results = play(game, traces, shown.update, Watchers(watchers))
    scoring.traces[name] = traces.to_json()
    scoring.gallery.agent_films[name] = films.media()
    if watched is not None and (found := agreement(scoring, name, task, watched)) is not None:
        scoring.agreements.append(found)
    return score(name, results, game.tasks, learned=True, task=task)


def _scripted(config: EvaluateConfig, game: VectorGame) -> Mapping[str, Callable[[], Policy]]:
    """The random player, and the expert where the game has one."""
    kinds = ["random"]
    try:
        require_player("expert", game.envs[0])
        kinds.append("expert")
    except UserError:
        pass  # not every game has an expert, and the score stands without it
    return {kind: partial(ScriptedPolicy, kind, game, config.seed, config.skill) for kind in kinds}
