"""`reverie improve`: from offline to online and back, as one resumable command, for Dreamer 4.

Each round records, prepares, trains every stage on from its last run, and scores the agent in the game; the next round records
that agent. A stage is a command of its own; which ones are finished is read from their folders (docs/stages.md).
"""

import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reverie.data.batch import RETURN
from reverie.data.errors import UserError
from reverie.data.files.lock import sole_writer
from reverie.environments.make import make_env, with_limit
from reverie.environments.minigrid import TILE
from reverie.environments.players import require_player
from reverie.evaluation.statistics import Estimate
from reverie.pipelines.launching import run_command, wait_for_orphan
from reverie.pipelines.presets import PRESETS
from reverie.pipelines.runs.atomic import write_json, write_text
from reverie.pipelines.sweeps.finished import REPORT, is_finished

PLAYERS = ("random", "cloning", "imagination")
"""Whose scores each round has."""


@dataclass(frozen=True, kw_only=True)
class ImproveConfig:
    """Plays, learns and plays again, round after round, in one folder."""

    out: Path
    """Folder of all rounds; the same command again continues, also to more rounds."""
    env: str = "minigrid-empty-random-5x5"
    """Game, as in `record`."""
    rounds: int = 2
    """How often data is recorded and everything trained on; the first time counts."""
    task: str | None = None
    """What the agent learns and plays for, `return` for the game's own reward; null for all tasks of the game, played for its
    last one, or for the reward of a game without tasks."""
    episodes: int = 200
    """Episodes to record in a round."""
    first: dict[str, float] = field(default_factory=lambda: {"random": 1.0})
    """Players of the first round, as in `record`."""
    explore: float = 0.1
    """Share of random episodes in the rounds after the first; the agent plays the others."""
    scored: int = 100
    """Held-out worlds in which each player is scored after a round."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further options of the game, as in `record`."""
    max_steps: int | None = None
    """Longest episode in steps; the game's own limit by default."""
    preset: str = "nano"
    """Sizes and lengths of the training stages."""
    steps_scale: float = 1.0
    """Multiplies the preset's numbers of steps, in each round."""
    seed: int = 0
    """Seed of every stage; a round adds its number, so that it plays other worlds."""

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise UserError(f"preset {self.preset!r}: is not known, choose one of {', '.join(PRESETS)}")
        for name in ("rounds", "episodes", "scored"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}: must be at least 1, got {getattr(self, name)}.")
        if self.steps_scale <= 0:
            raise UserError(f"steps_scale: must be above 0, got {self.steps_scale}.")
        if not 0 <= self.explore < 1:
            raise UserError(
                f"explore: must be at least 0 and below 1, so that the agent plays, got {self.explore}."
            )
        if "agent" in self.first:
            raise UserError("first: there is no agent before the first round; use random, expert or human.")


def improve(config: ImproveConfig) -> None:
    """Runs what is not finished of each round, and ends with the score of each.

    Raises `UserError` before anything is written where the game, its first players or its task are not there.
    """
    if not config.out.exists():
        _require_game(config)
    with sole_writer(config.out):
        for number in range(config.rounds):
            for stage, settings in round_stages(config, number).items():
                _run(config.out / f"round-{number}", stage, settings)
        rows = [_scores(config, number) for number in range(config.rounds)]
        write_json(config.out / "rounds.json", {"env": config.env, "rounds": rows})
        write_text(config.out / "rounds.md", "\n".join(table(config, rows)) + "\n")
    print((config.out / "rounds.md").read_text())


def _require_game(config: ImproveConfig) -> None:
    """A wrong task would otherwise be told by `clone`, when the world model is trained."""
    with closing(make_env(config.env, **with_limit(config.options, config.max_steps))) as game:
        for player, share in config.first.items():
            if share > 0:
                require_player(player, game)
        if config.task not in (None, RETURN, *game.tasks):
            known = ", ".join((*game.tasks, RETURN))
            raise UserError(
                f"task {config.task!r}: game {config.env!r} has no such task; use one of {known}."
            )


Settings = Mapping[str, Any]
"""Flag -> value."""


def round_stages(config: ImproveConfig, number: int) -> dict[str, Settings]:
    """The stages of a round in their order, with their settings but `out`; round 0 starts from nothing."""
    here, before = config.out / f"round-{number}", config.out / f"round-{number - 1}"
    later, task = number > 0, {} if config.task is None else {"task": config.task}
    game = {
        "env": config.env,
        "options": config.options,
        **({"max_steps": config.max_steps} if config.max_steps else {}),
    }
    data, latents = {"data": here / "shards"}, {"data": here / "latents"}
    agent = {"agent": before / "imagine", "tokenizer": before / "tokenizer", **task} if later else {}
    players = {"agent": 1 - config.explore, "random": config.explore} if later else config.first

    def trained(stage: str, **settings: Any) -> Settings:
        parent = {"parent": before / stage} if later and stage != "imagine" else {}
        return {"preset": config.preset, **settings, **parent, **_training(config, stage, number)}

    return {
        "record": {
            **game,
            **agent,
            "episodes": config.episodes,
            "players": {name: share for name, share in players.items() if share > 0},
            "seed": config.seed + number,
        },
        "prepare": {
            "source": here / "episodes",
            "workers": 1,
            **({"base": before / "shards"} if later else {}),
        },
        "tokenizer": trained("tokenizer", **data),
        "encode": {**data, "tokenizer": here / "tokenizer"},
        "dynamics": trained("dynamics", **latents, tokenizer=here / "tokenizer"),
        "clone": trained("clone", **latents, dynamics=here / "dynamics", **task),
        "imagine": trained("imagine", **latents, agent=here / "clone", **task),
        "evaluate": {
            **game,
            **data,
            **task,
            "tokenizer": here / "tokenizer",
            "dynamics": here / "dynamics",
            "cloned": here / "clone",
            "agent": here / "imagine",
            "episodes": config.scored,
            "players": list(PLAYERS),
            "trust": False,
            "seed": config.seed,
            **({"tile": TILE} if config.env.startswith("minigrid-") else {}),
        },
    }


FOLDERS = {"record": "episodes", "prepare": "shards", "encode": "latents", "evaluate": "evaluation"}
"""Stage -> its folder in a round; the others are called as their stage."""


def _training(config: ImproveConfig, stage: str, number: int) -> dict[str, Any]:
    steps = max(1, round(PRESETS[config.preset][stage]["training"].steps * config.steps_scale))
    return {"training.steps": steps, "training.seed": config.seed + number}


def _run(folder: Path, stage: str, settings: Settings) -> None:
    """Runs a stage of a round, unless its folder says that it is finished."""
    from reverie.pipelines.cli import parse

    out = folder / FOLDERS.get(stage, stage)
    arguments = [*_flags(settings), "--out", str(out)]
    if is_finished(stage, parse(stage, arguments)):
        return
    print(f"{folder.name}: reverie {shlex.join([stage, *arguments])}", flush=True)
    wait_for_orphan(out)
    run_command([stage, *arguments])


def _flags(settings: Settings) -> Iterator[str]:
    for name, value in settings.items():
        text = json.dumps(value) if isinstance(value, dict | list | bool) else str(value)
        yield from (f"--{name}", text)


def _scores(config: ImproveConfig, number: int) -> dict[str, Any]:
    """What a round's report says of its players."""
    report = json.loads((config.out / f"round-{number}" / "evaluation" / REPORT).read_text())
    game = report["games"]
    rows = {row["player"]: row for row in game["players"] if row["player"] in PLAYERS}
    shards = json.loads((config.out / f"round-{number}" / "shards" / "index.json").read_text())
    task = game["task"] if config.task in (None, game["task"]) else config.task
    return {
        "round": number,
        "frames": sum(sample["n"] for sample in shards["samples"]),
        "task": None if task == RETURN else task,
        "players": {
            name: {"return": row["return"], "success": row["success"].get(task)} for name, row in rows.items()
        },
        "rollouts_over_copying": report["rollouts"]["advantage"]["copy"]["average"],
    }


def table(config: ImproveConfig, rows: list[dict[str, Any]]) -> Iterator[str]:
    """A row a round: frames of all data, and each player's success at the task, or return without one."""
    task = rows[-1]["task"]
    what = f"{task}, %" if task is not None else "return"
    yield f"{config.env}: {what} in {config.scored} held-out worlds, 95 % intervals"
    yield ""
    yield "| round | frames of data | " + " | ".join(PLAYERS) + " | rollouts over copying, dB |"
    yield "|---" * (3 + len(PLAYERS)) + "|"
    for row in rows:
        cells = [_cell(row["players"].get(name)) for name in PLAYERS]
        lead = _estimate(row["rollouts_over_copying"]).text(1)
        yield f"| {row['round']} | {row['frames']:,} | " + " | ".join(cells) + f" | {lead} |"


def _cell(player: Mapping[str, Any] | None) -> str:
    if player is None:
        return "-"
    if player["success"] is not None:
        return _estimate(player["success"]).text(1, scale=100)
    return _estimate(player["return"]).text(2)


def _estimate(plain: Mapping[str, Any]) -> Estimate:
    value, low, high = (
        float("nan") if plain[x] is None else float(plain[x]) for x in ("value", "low", "high")
    )
    return Estimate(value, low, high, int(plain["n"]))
