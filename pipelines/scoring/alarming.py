"""The part of `evaluate` that compares what Dreamer 4's players were promised in imagination with what the game gave."""

from reverie.agent.model import Agent
from reverie.data.batch import RETURN
from reverie.evaluation.alarm import Agreement, Beginnings, imagined
from reverie.pipelines.scoring.models import Scoring
from reverie.pipelines.scoring.players import STAGES

_EPISODES = 64
"""Most episodes that are dreamed again."""


def beginnings(scoring: Scoring, player: str, task: str | None, tasks: list[str]) -> Beginnings | None:
    """What to watch while `player` plays; None for players without imagination, and where nothing can be compared.

    A game without tasks gives a return, which an agent that was asked for a task does not promise.
    """
    comparable = task in (None, RETURN, *tasks)
    if not scoring.config.alarm or player not in STAGES or not comparable:
        return None
    return Beginnings(min(_EPISODES, scoring.config.episodes), scoring.config.alarm, _event(task))


def agreement(scoring: Scoring, player: str, task: str | None, watched: Beginnings) -> Agreement | None:
    """The comparison; None where every episode was given up."""
    config, tokenizer = scoring.config, scoring.models.tokenizer
    assert tokenizer is not None
    agent, prior = _dreamer(scoring, player)
    frames, real = watched.kept()
    if not len(real):
        return None
    dreamed = imagined(
        tokenizer,
        agent,
        frames,
        task=-1 if task is None else agent.task_index(task),
        steps=watched.steps,
        sampling_steps=config.sampling_steps,
        prior=prior,
        once=_event(task) is not None,
        seed=config.seed,
    )
    return Agreement.of(player, _event(task), watched.steps, dreamed, real)


def _event(task: str | None) -> str | None:
    """The task that happens once, or not at all; None where rewards add up."""
    return None if task == RETURN else task


def _dreamer(scoring: Scoring, player: str) -> tuple[Agent, bool]:
    """The agent of a player of Dreamer 4, and whether it acts by its prior."""
    models = scoring.models
    own = models.cloned if player == STAGES[0] else models.agent
    if own is not None:
        return own, False
    assert models.agent is not None
    return models.agent, True
