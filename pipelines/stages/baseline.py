"""Stage `baseline`: Dreamer V1, V2 or V3 on the same video shards as Dreamer 4, or, with --online, on what it plays itself.

Offline there are two phases in one run: the world model (steps 0 .. training.steps), then actor and critic in imagination on the
frozen world model (policy.steps more). --joint trains all in every step, as the originals did while they played.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from torch import nn

from reverie.data.batch import RETURN, Batch
from reverie.data.errors import UserError
from reverie.data.files.durable import fingerprint
from reverie.data.loading.corpora import Corpora
from reverie.pipelines.runs.configs import differences, to_plain
from reverie.pipelines.stages.baseline_config import BaselineStage
from reverie.pipelines.stages.online import train_online
from reverie.pipelines.stages.phases import Phases, advice, identity, updates
from reverie.pipelines.training.accumulation import refuse_accumulation
from reverie.pipelines.training.batches import Mixture, heldout_batches, heldout_episodes
from reverie.pipelines.training.checkpoints import Card, load_baseline, read_card
from reverie.pipelines.training.loop import heldout_metrics
from reverie.pipelines.training.metrics import Averages
from reverie.pipelines.training.stage import (
    HELDOUT_BATCHES,
    Evaluate,
    Plan,
    Run,
    require_known_actions,
    require_same_actions,
    shard_batches,
    train,
)
from reverie.rssm.model import Dreamer, DreamerObjective
from reverie.rssm.overestimation import overestimation

HELDOUT_EPISODES = 32
"""Whole episodes on which values are compared with what was received."""
LONGEST_EPISODE = 512
"""Frames of them that are looked at."""


def baseline(config: BaselineStage) -> None:
    """Runs the stage. Raises `UserError` when data, game and settings do not go together."""
    refuse_accumulation(config.batches.accumulate)
    if config.online:
        train_online(config)
    else:
        _train_offline(config)


def _train_offline(config: BaselineStage) -> None:
    assert config.data is not None
    corpora = Corpora.load(config.data)
    _require_labelled_video(corpora)
    _require_world_model(config, corpora)
    if config.task == RETURN:
        corpora = corpora.with_return()
    task = config.task or (corpora.tasks[-1] if corpora.tasks else None)
    mixture = Mixture(
        relevant_fraction=config.relevant_fraction, relevant_before=config.relevant_before, task=task
    )
    phases = Phases.of(config)
    if not phases.steps:
        raise UserError("--policy.steps 0: with a given --world_model there is nothing left to train.")
    card = Card(
        kind="baseline",
        model=to_plain(config.model),
        fps=corpora.fps,
        frame_size=list(corpora.frame_size),
        action_space=to_plain(corpora.action_space.to_json()),
        tasks=[] if task in (None, RETURN) else [task],
    )
    fixed: dict[str, Any] = {"phases": [phases.first, phases.second]}
    if not config.joint:  # the policy stands on what the first phase has learned
        fixed["world_model_steps"] = phases.first_steps
    given = {} if config.world_model is None else {"world_model": _world_model_sha256(config.world_model)}
    plan = Plan(
        build=lambda: _build(config, corpora),
        card=card,
        identity=identity(card) | fixed,
        advice=advice(config),
        inputs={"data": corpora.hash(), **given},
        updates=updates(config.model, phases),
        open_batches=lambda _, processes: shard_batches(
            corpora, config.batches, config.training.seed, processes, mixture
        ),
        open_evaluation=partial(_open_evaluation, corpora, config, mixture),
    )
    train("baseline", config, plan, phases.steps)


def _build(config: BaselineStage, corpora: Corpora) -> DreamerObjective:
    model = Dreamer(config.model, (*corpora.frame_size, 3), corpora.action_space)
    if config.world_model is not None:
        model.world_model.load_state_dict(load_baseline(config.world_model).world_model.state_dict())
    return DreamerObjective(model)


def _require_labelled_video(corpora: Corpora) -> None:
    if corpora.latent_shape is not None:
        raise UserError(
            f"{corpora.place}: holds latents; the baselines learn from video, give the folder that `reverie prepare` made."
        )
    if not corpora.action_space.components:
        raise UserError(
            f"{corpora.place}: has no actions, and the baselines need them; record or import labelled episodes."
        )
    require_known_actions(corpora)


def _require_world_model(config: BaselineStage, corpora: Corpora) -> None:
    """Raises `UserError` where the world model to be taken over does not fit."""
    if config.world_model is None:
        return
    if config.joint:
        raise UserError("--joint: trains the world model, which --world_model gives; leave one of them out.")
    card = read_card(config.world_model, "baseline")
    given = load_baseline(config.world_model).config.world_model
    require_same_actions(corpora, card, config.world_model)
    if card.frame_size != list(corpora.frame_size):
        raise UserError(
            f"{corpora.place}: has frames of {corpora.frame_size}, but {config.world_model} learned from "
            f"{tuple(card.frame_size or ())}; give matching ones."
        )
    different = differences(to_plain(config.model.world_model), to_plain(given))
    if different:
        raise UserError(
            f"{config.world_model}: its world model has other settings ({'; '.join(different[:3])}); give the same ones."
        )


def _world_model_sha256(path: Path) -> str:
    """Identity of a run's world model; its policy may train on."""
    weights = load_baseline(path).world_model.state_dict()
    return fingerprint({name: sha256(x.numpy().tobytes()).hexdigest() for name, x in weights.items()})


def _open_evaluation(
    corpora: Corpora, config: BaselineStage, mixture: Mixture, objective: nn.Module, run: Run
) -> Evaluate | None:
    assert isinstance(objective, DreamerObjective)
    batches = heldout_batches(corpora, config.batches, HELDOUT_BATCHES, mixture)
    device = next(objective.parameters()).device

    def evaluate() -> Mapping[str, float]:
        """The losses of the present phase, and where there is a critic, its values against what episodes brought."""
        values = dict(heldout_metrics(run, batches))
        if objective.phase in ("joint", "behaviour"):
            averages = Averages()
            for episode in heldout_episodes(corpora, HELDOUT_EPISODES, LONGEST_EPISODE, mixture):
                averages.add(overestimation(objective.model, _as_ended(episode).to(device)))
            values |= averages.take()
        return values

    return evaluate if batches else None


def _as_ended(episode: Batch) -> Batch:
    """Nothing is expected after the end of a recording: only what was received counts, not the critic's own opinion."""
    return replace(episode, is_terminal=episode.is_terminal | episode.is_last)
