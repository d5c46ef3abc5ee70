"""The part of `evaluate` that plays games with milestones: every player the same worlds, prompted as in the paper.

Each finished episode is a file, `episodes/<player>/<number>.json`, written whole. The same command again plays those that
are missing: an episode that was under way when everything was killed begins anew, in the same world.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from reverie.agent.player import Player
from reverie.data.errors import UserError
from reverie.data.files.durable import PARTIAL, write_atomic
from reverie.environments.make import with_limit
from reverie.environments.players import KINDS
from reverie.environments.quest import Quest
from reverie.evaluation.expedition import Expedition, QuestPolicy
from reverie.evaluation.games import held_out_seeds
from reverie.evaluation.milestones import QuestEpisode, QuestScore, QuestScores
from reverie.evaluation.quest_policies import AgentQuest, BaselineQuest, RandomQuest
from reverie.evaluation.remote import GameCard, GamePlan, GamePool, Script, read_card
from reverie.pipelines.runs.progress import Meter, meter
from reverie.pipelines.scoring.models import EvaluateConfig, Scoring
from reverie.pipelines.scoring.players import MakePlayer, learned_players, require_actions, require_players

MakeQuestPlayer = Callable[[int], QuestPolicy | Script]
"""Makes a player for so many games side by side."""

_SAME_RATE = 0.005
_WIDTH = 140
"""Characters of the tables where the output is no terminal."""


@dataclass(frozen=True)
class Setting:
    """The game as this evaluation plays it."""

    plan: GamePlan
    card: GameCard
    quest: Quest


def open_quest(scoring: Scoring) -> Setting:
    """Asks the game what it is. Raises `UserError` when it cannot be had, or the models cannot play it."""
    config, index = scoring.config, scoring.index
    assert config.env is not None
    plan = GamePlan(
        name=config.env,
        options=with_limit(config.options, config.max_steps),
        size=index.frame_size,
        mode=index.resize_mode,
        python=config.quest.python,
        timeout=config.quest.timeout,
    )
    with TemporaryDirectory() as folder:
        card = read_card(plan, Path(folder) / "game.log", config.quest.max_crashes + 1)
    assert card.quest is not None
    quest = card.quest if config.task is None else card.quest.only(config.task)
    _require_fit(scoring, card, quest)
    return Setting(plan, card, quest)


def identity(config: EvaluateConfig) -> dict[str, Any]:
    """What the episodes depend on beside the models."""
    names = ("env", "task", "max_steps", "options", "greedy", "skill", "seed")
    return {name: getattr(config, name) for name in names}


def play_quests(scoring: Scoring, setting: Setting, console: Console) -> dict[str, Any]:
    """Every player in the same worlds, from the random one to the one trained in imagination; prints the tables.

    Returns the figures for the report.
    """
    config, quest = scoring.config, setting.quest
    with GamePool(setting.plan, config.out / "games") as pool:
        players = [
            _play(config, setting, pool, name, make)
            for name, make in _players(scoring, setting.card).items()
            if config.plays(name)
        ]
    scores = QuestScores(
        env=str(config.env),
        prompts=f"prompt {config.task}" if config.task else f"{len(quest.prompts)} prompts",
        max_minutes=max(e.steps for score in players for e in score.episodes) / setting.card.fps / 60,
        items=list(quest.milestones),
        players=players,
    )
    wide = console if console.is_terminal else Console(highlight=False, soft_wrap=True, width=_WIDTH)
    for table in scores.tables():
        wide.print(table)
    console.print("\n".join(score.line() for score in players))
    return {**scores.to_json(), "films": _films(config.out)}


def _play(
    config: EvaluateConfig, setting: Setting, pool: GamePool, name: str, make: MakeQuestPlayer
) -> QuestScore:
    """The episodes that are there already and those that are missing."""
    folder = config.out / "episodes" / name
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{number:06d}.json" for number in range(config.episodes)]
    done = {number: QuestEpisode.load(path) for number, path in enumerate(files) if path.exists()}
    seeds = held_out_seeds(config.episodes, config.seed)
    missing = [(number, seed) for number, seed in enumerate(seeds) if number not in done]
    with meter(f"play: {name}", config.episodes, start=len(done)) as shown:
        for episode in _episodes(config, setting, pool, name, make, missing, shown):
            write_atomic(files[episode.number], json.dumps(episode.to_json()).encode() + b"\n")
            done[episode.number] = episode
            shown.update(note=_note(episode))
    episodes, items = [done[number] for number in sorted(done)], list(setting.quest.milestones)
    return QuestScore.of(name, episodes, items, setting.card.fps, learned=name not in KINDS)


def _episodes(
    config: EvaluateConfig,
    setting: Setting,
    pool: GamePool,
    name: str,
    make: MakeQuestPlayer,
    worlds: Sequence[tuple[int, int]],
    shown: Meter,
) -> Iterator[QuestEpisode]:
    """Plays `worlds` side by side."""
    if not worlds:
        return
    num_rows = min(config.num_envs, len(worlds))
    media, every = config.out / "media", config.quest.film_every
    for leftover in media.glob(f"{PARTIAL}{name}-*"):
        leftover.unlink()
    total = 0

    def film(number: int) -> Path | None:
        return media / f"{name}-{number:06d}.mp4" if every and number % every == 0 else None

    def stepped(steps: int, crashes: int) -> None:
        nonlocal total
        total += steps
        shown.update(0, note=f"{total} steps, {crashes} crashes")

    expedition = Expedition(
        pool,
        num_rows,
        setting.quest,
        make(num_rows),
        frame_size=setting.plan.size or setting.card.frame_size,
        max_crashes=config.quest.max_crashes,
        film=film,
        stepped=stepped,
    )
    yield from expedition.play(worlds)


def _players(scoring: Scoring, card: GameCard) -> Mapping[str, MakeQuestPlayer]:
    """The random player, the expert where the game has one, and all that were learned."""
    config = scoring.config

    def learned(make: MakePlayer, num: int) -> QuestPolicy:
        player = make(num)
        return AgentQuest(player) if isinstance(player, Player) else BaselineQuest(player)

    expert = Script(kind="expert", skill=config.skill, seed=config.seed)
    return {
        "random": lambda num: RandomQuest(card.action_space, config.seed),
        **({"expert": lambda num: expert} if card.has_expert else {}),
        **{name: partial(learned, make) for name, make in learned_players(scoring, None).items()},
    }


def _require_fit(scoring: Scoring, card: GameCard, quest: Quest) -> None:
    config, index = scoring.config, scoring.index
    if abs(index.fps / card.fps - 1) > _SAME_RATE:
        raise UserError(
            f"--env {config.env}: runs at {card.fps:g} frames a second, {config.data} holds {index.fps:g}; "
            f"prepare the recordings with --fps {card.fps:g}."
        )
    require_actions(scoring, card.action_space)
    for agent in (scoring.models.cloned, scoring.models.agent):
        if agent is not None:
            for prompt in quest.prompts:
                agent.task_index(prompt.task)
    require_players(config, _players(scoring, card))


def _films(out: Path) -> list[str]:
    """Names of the films in media/."""
    return sorted(path.name for path in (out / "media").glob("*-??????.mp4"))


def _note(episode: QuestEpisode) -> str:
    last = list(episode.milestones)[-1:] or ["no milestone"]
    return f"episode {episode.number}: {episode.steps} steps, {last[0]}"
