"""Plays a game with scripted, random and trained players, or lets a person play, and records every episode as video and log.

What an episode holds is a pure function of the settings, the seed and the episode's number, unless a person played it. A killed
recording is continued by the same command, with the same result, by any number of workers. An episode in which the game fails is
given up: FOLDER/failed says why, and the others go on.
"""

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context, parent_process
from multiprocessing.synchronize import Event
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import numpy as np

from reverie.data.errors import UserError
from reverie.data.files.lock import sole_writer
from reverie.data.sources.episodes import EpisodeSteps, EpisodeWriter, read_steps
from reverie.data.sources.given_up import GivenUp
from reverie.environments.game import GameEnv
from reverie.environments.human import Desk, PlayerLeft, instructions
from reverie.environments.lasting import LastingGame, Streak, none_got_through
from reverie.environments.make import make_env, with_limit
from reverie.environments.play import Playing, play, play_episode
from reverie.environments.players import KINDS, require_player
from reverie.pipelines.runs.progress import Meter, meter
from reverie.pipelines.worlds.places import is_world, stage_run, take_worlds

if TYPE_CHECKING:
    from reverie.pipelines.worlds.gamer import GameAgent

AGENT = "agent"
"""A player beside those that need no learning."""
CHUNK = 16
"""Most episodes that a worker records with one game before it reports."""


@dataclass(frozen=True, kw_only=True)
class RecordConfig:
    """Recording of one game."""

    out: Path
    """Folder of the episodes; what it holds already is kept, and not recorded again."""
    env: str = "minigrid-doorkey"
    """Game: minigrid-doorkey[-SIZE], minigrid-empty[-SIZE], minigrid-empty-random[-SIZE], crafter, luanti,
    minecraft-minerl, minecraft-minestudio, or gym:<Gymnasium id>."""
    episodes: int = 1000
    """Number of episodes the folder holds at the end, less those that were given up since the game failed."""
    players: dict[str, float] = field(default_factory=lambda: {"expert": 0.9, "random": 0.1})
    """Who plays how often: weights of "expert" (scripted), "random", "agent" (trained) and "human" (you, in a window), one drawn
    per episode."""
    agent: Path | None = None
    """Run folder of the agent that plays, of `clone` or `imagine`, or `world:NAME`; it draws its actions."""
    tokenizer: Path | None = None
    """Run folder of the agent's tokenizer; null for the one of its world, or the one among the runs beside it."""
    task: str | None = None
    """What the agent plays for; null for the game's last task."""
    skill: tuple[float, float] = (0.3, 1.0)
    """Range of the expert's skill, drawn uniformly per episode: the share of steps that are not random."""
    seed: int = 0
    """Seed of everything drawn."""
    max_steps: int | None = None
    """Longest episode in steps; the game's own limit by default."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further options of the game, such as {tile_size: 8} (MiniGrid) or {frame_size: [64, 64]} (gym:)."""
    workers: int = 1
    """Processes that play at the same time."""

    def __post_init__(self) -> None:
        low, high = self.skill
        if not 0 <= low <= high <= 1:
            raise UserError(f"skill: needs 0 <= low <= high <= 1, got {low} and {high}.")
        unknown = sorted(set(self.players) - {*KINDS, AGENT})
        if unknown:
            raise UserError(f"players: {unknown[0]!r} is not known; use {', '.join((*KINDS, AGENT))}.")
        weights = self.players.values()
        if not all(math.isfinite(w) and w >= 0 for w in weights) or sum(weights) <= 0:
            raise UserError(f"players: weights must be at least 0 with a positive sum, got {self.players}.")
        for name in ("episodes", "workers"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}: must be at least 1, got {getattr(self, name)}.")
        if self.workers > 1 and self.players.get("human", 0) > 0:
            raise UserError("workers: one person plays one game at a time; leave it at 1.")
        if self.seed < 0:
            raise UserError(f"seed: must be at least 0, got {self.seed}.")
        self._take_agent()

    def _take_agent(self) -> None:
        asked = self.players.get(AGENT, 0) > 0
        if asked and self.agent is None:
            raise UserError("players: an agent is to play; give its run folder, --agent RUN.")
        if self.agent is not None and not asked:
            raise UserError('agent: nobody lets it play; add it to the players, --players "{agent: 1}".')
        if self.agent is not None and self.tokenizer is None and is_world(self.agent):
            object.__setattr__(self, "tokenizer", stage_run(self.agent, "tokenizer"))
        take_worlds(self, agent="agent", tokenizer="tokenizer")


def record(config: RecordConfig) -> None:
    """Records until the folder holds `config.episodes` episodes, then prints what they are like.

    Raises `UserError` when the folder belongs to another recording, or another process records into it.
    """
    with ExitStack() as alone:
        with closing(_make_game(config)) as game:
            for kind, weight in config.players.items():
                if weight > 0:
                    _require_player(config, kind, game)
            alone.enter_context(sole_writer(config.out))
            if config.players.get("human", 0) > 0:
                print(instructions(game), flush=True)
            writer = _make_writer(config, game)
            for note in game.notes():
                print(f"note: {note}", flush=True)
        _record_all(config, writer)


def _record_all(config: RecordConfig, writer: EpisodeWriter) -> None:
    """Records what is missing, and says what there is then."""
    try:
        writer.remove_leftovers()
        _record_missing(config, writer)
    except PlayerLeft:
        present = sum(writer.has(episode_name(number)) for number in range(config.episodes))
        print(f"{writer.folder}: {present} of {config.episodes} episodes; the same command goes on.")
        return
    finally:
        Desk.close()
    for line in summary(writer, config.episodes):
        print(line, flush=True)


def _record_missing(config: RecordConfig, writer: EpisodeWriter) -> None:
    missing = _missing(config, writer)
    given_up = GivenUp(writer.folder)
    streak = Streak(given_up.hint)
    with meter("record", config.episodes, start=config.episodes - len(missing)) as shown:
        if config.workers == 1:
            for reasons in _record_episodes(config, missing):
                _count(reasons, shown, streak)
        else:
            _record_by_workers(config, writer, shown, streak)
    names = [episode_name(number) for number in range(config.episodes)]
    if all(map(given_up.has, names)):
        raise none_got_through(given_up.reasons(names[-1]), given_up.hint)


def _missing(config: RecordConfig, writer: EpisodeWriter) -> list[int]:
    """Numbers of the episodes that are neither there nor given up."""
    given_up, names = GivenUp(writer.folder), map(episode_name, range(config.episodes))
    return [n for n, name in enumerate(names) if not (writer.has(name) or given_up.has(name))]


def _count(reasons: list[str], shown: Meter, streak: Streak) -> None:
    if reasons:
        shown.line(f"an episode was given up: {reasons[-1]}")
    shown.update()
    streak.see(reasons)


def episode_name(number: int) -> str:
    """The file name, without ending, of an episode."""
    return f"{number:06d}"


def draw_player(config: RecordConfig, seed: np.random.SeedSequence) -> tuple[str, float]:
    """Who plays an episode, and with which skill."""
    rng = np.random.default_rng(seed)
    kinds = sorted(config.players)
    weights = np.array([config.players[kind] for kind in kinds], np.float64)
    kind = kinds[rng.choice(len(kinds), p=weights / weights.sum())]
    return kind, float(rng.uniform(*config.skill))


def summary(writer: EpisodeWriter, episodes: int) -> Iterator[str]:
    """Lines that say how the first `episodes` episodes went, for all and for each kind of player."""
    groups: dict[str, list[EpisodeSteps]] = defaultdict(list)
    names = [episode_name(number) for number in range(episodes)]
    for name in filter(writer.has, names):
        steps = read_steps(writer.folder, name, writer.recording)
        groups[steps.player.split()[0]].append(steps)
    everyone = [steps for group in groups.values() for steps in group]
    frames = sum(steps.num_frames for steps in everyone)
    steps_played = frames - len(everyone)
    yield f"{writer.folder}: {len(everyone)} episodes of {writer.recording.env}, {steps_played} steps"
    for kind in sorted(groups):
        yield _describe(kind, groups[kind], writer.recording.tasks)
    given_up = GivenUp(writer.folder)
    if failed := [name for name in names if given_up.has(name)]:
        reason = given_up.reasons(failed[-1])[-1]
        yield f"  {len(failed)} of {episodes} were given up (see {given_up.folder}), lastly: {reason}"


def _describe(kind: str, group: list[EpisodeSteps], tasks: tuple[str, ...]) -> str:
    mean_return = np.mean([steps.reward.sum() for steps in group])
    mean_steps = np.mean([steps.num_frames - 1 for steps in group])
    success = np.mean([steps.events.any(axis=0) for steps in group], axis=0)
    shares = ", ".join(f"{task} {100 * share:.1f} %" for task, share in zip(tasks, success))
    line = f"  {kind}: {len(group)} episodes, mean return {mean_return:.3f}, mean steps {mean_steps:.1f}"
    return f"{line}, success: {shares}" if tasks else line


def _require_player(config: RecordConfig, kind: str, game: GameEnv) -> None:
    """Raises `UserError` unless this kind of player can play."""
    if kind != AGENT:
        return require_player(kind, game)
    from reverie.pipelines.worlds.gamer import require_game

    require_game(_agent(config), game, config.task)


def _agent(config: RecordConfig) -> "GameAgent":
    from reverie.pipelines.worlds.gamer import load_game_agent, tokenizer_of

    assert config.agent is not None
    return load_game_agent(config.agent, config.tokenizer or tokenizer_of(config.agent))


def _make_game(config: RecordConfig) -> GameEnv:
    return make_env(config.env, seed=config.seed, **with_limit(config.options, config.max_steps))


def _make_writer(config: RecordConfig, game: GameEnv) -> EpisodeWriter:
    total = sum(config.players.values())
    settings = {
        "mixture": {kind: weight / total for kind, weight in sorted(config.players.items())},
        "skill": list(config.skill),
        "seed": config.seed,
        "max_steps": config.max_steps,
        "options": config.options,
        **({} if config.agent is None else {"agent": _agent(config).name, "task": config.task}),
    }
    return EpisodeWriter(
        config.out,
        env=game.name,
        fps=game.fps,
        frame_size=game.frame_size,
        action_space=game.action_space_spec,
        tasks=game.tasks,
        players=settings,
    )


def _record_episodes(config: RecordConfig, numbers: Iterable[int]) -> Iterator[list[str]]:
    """Records one after the other; yields nothing for each, or why it was given up."""
    lasting = LastingGame(partial(_make_game, config))
    try:
        for number in numbers:
            reasons = lasting.attempt(partial(_record_episode, config, number))
            if reasons:
                GivenUp(config.out).add(episode_name(number), reasons)
            yield reasons
    finally:
        lasting.close()


def _record_episode(config: RecordConfig, number: int, game: GameEnv) -> None:
    playing = _while_wanted(_play_episode(config, game, number))
    _make_writer(config, game).record(episode_name(number), playing)


def _play_episode(config: RecordConfig, game: GameEnv, number: int) -> Playing:
    player_seed, play_seed = np.random.SeedSequence([config.seed, number]).spawn(2)
    kind, skill = draw_player(config, player_seed)
    if kind == AGENT:
        agent = _agent(config)
        return play(game, lambda rng: agent.player(game, rng, config.task), agent.name, play_seed)
    return play_episode(game, kind, seed=play_seed, skill=skill)


def _record_chunk(config: RecordConfig, numbers: list[int]) -> list[list[str]]:
    return list(_record_episodes(config, numbers))


class _Unwanted(Exception):
    """The command that asked for the episode has failed."""


_over: Event | None = None
"""In a worker: set when the command ends before its episodes are there."""


def _begin_work(over: Event) -> None:
    global _over
    _over = over
    Thread(target=_end_with_the_command, daemon=True).start()


def _end_with_the_command() -> None:
    """A killed command leaves its workers waiting for more to do, for ever, and its folder to another command."""
    command = parent_process()
    assert command is not None
    command.join()
    os._exit(1)


def _while_wanted(playing: Playing) -> Playing:
    """`playing`; in a worker it ends with the command."""
    while True:
        if _over is not None and _over.is_set():
            raise _Unwanted
        try:
            frame = next(playing)
        except StopIteration as end:
            return end.value
        yield frame


def _record_by_workers(config: RecordConfig, writer: EpisodeWriter, shown: Meter, streak: Streak) -> None:
    """Goes on with new workers where one was killed, as long as that leads anywhere."""
    missing = _missing(config, writer)
    while missing:
        try:
            return _record_in_parallel(config, missing, shown, streak)
        except BrokenProcessPool:
            before, missing = len(missing), _missing(config, writer)
            if len(missing) == before:
                raise UserError(
                    f"--workers {config.workers}: a worker was killed before it had recorded an episode; is there enough memory?"
                ) from None


def _record_in_parallel(config: RecordConfig, missing: list[int], shown: Meter, streak: Streak) -> None:
    # Spawned, not forked: the parent has loaded torch, whose threads do not survive a fork.
    context = get_context("spawn")
    over = context.Event()
    with ProcessPoolExecutor(
        config.workers, mp_context=context, initializer=_begin_work, initargs=(over,)
    ) as pool:
        # One at a time where there are few: they may be long.
        size = min(CHUNK, max(1, len(missing) // (4 * config.workers)))
        chunks = [missing[i : i + size] for i in range(0, len(missing), size)]
        jobs = [pool.submit(_record_chunk, config, chunk) for chunk in chunks]
        try:
            for job in as_completed(jobs):
                for reasons in job.result():
                    _count(reasons, shown, streak)
        except BaseException:
            over.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
