"""Which runs are finished: their folders say it, nothing else is kept."""

from pathlib import Path
from typing import Any

from reverie.data.errors import UserError
from reverie.data.shards.index import INDEX
from reverie.data.sources.episodes import complete_episodes
from reverie.data.sources.given_up import GivenUp
from reverie.pipelines.datasets.record import RecordConfig, episode_name
from reverie.pipelines.training.integrity import newest_whole

REPORT = "report.json"
LAST_FILES = {"prepare": INDEX, "encode": INDEX, "evaluate": "report.html", "fvd": REPORT}
"""What a command writes last, whole or not at all."""


def is_finished(command: str, config: Any) -> bool:
    """Whether the folder of `command` with `config` holds all that it was asked for."""
    out: Path = config.out
    if command in LAST_FILES:
        return (out / LAST_FILES[command]).is_file()
    if command == "record":
        return _is_recorded(config)
    return trained_steps(out) >= _asked_steps(command, config)


def trained_steps(out: Path) -> int:
    """The step of the newest whole checkpoint of a run; 0 where there is none."""
    try:
        found = newest_whole(out / "checkpoints")
    except UserError:
        return 0
    return 0 if found is None else int(found.name)


def _is_recorded(config: RecordConfig) -> bool:
    there, given_up = set(complete_episodes(config.out)), GivenUp(config.out)
    names = map(episode_name, range(config.episodes))
    return all(name in there or given_up.has(name) for name in names)


def _asked_steps(command: str, config: Any) -> int:
    if command != "baseline" or config.online:
        return int(config.training.steps)
    from reverie.pipelines.stages.phases import Phases

    return Phases.of(config).steps
