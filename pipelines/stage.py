"""What the stages that learn from shards have in common: their settings, and one run from folder to last step."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import nn

from reverie.data.actions import ActionSpace
from reverie.data.corpora import Corpora
from reverie.data.errors import UserError
from reverie.data.location import Location
from reverie.pipelines.batches import BatchesConfig, Mixture, heldout_batches, training_batches
from reverie.pipelines.checkpoints import Card
from reverie.pipelines.configs import to_plain
from reverie.pipelines.optimization import OptimizerConfig, make_optimizer
from reverie.pipelines.run import open_run
from reverie.pipelines.session import Session, TrainingConfig, derive_seed
from reverie.pipelines.training import (
    FabricConfig,
    fabric_processes,
    fit,
    forward,
    heldout_metrics,
    make_fabric,
)

HELDOUT_BATCHES = 8
"""Batches in an evaluation while training; `reverie evaluate` measures more and better."""


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """Settings of every stage that learns from shards."""

    data: Location
    """Folder of shards, or the URL of one, or a YAML file that mixes several (docs/data.md)."""
    out: Path
    """Run folder; the same command again continues an interrupted run."""
    batches: BatchesConfig = field(default_factory=BatchesConfig)
    """Windows per step."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """AdamW."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """Length and intervals."""
    fabric: FabricConfig = field(default_factory=FabricConfig)
    """Devices, processes, precision."""


def train_stage(
    name: str,
    config: StageConfig,
    corpora: Corpora,
    *,
    build: Callable[[], nn.Module],
    card: Card,
    inputs: Mapping[str, str],
    mixture: Mixture | None = None,
) -> None:
    """Trains the objective that `build` makes, in the run folder `config.out`.

    Args:
      build: makes the objective; the random generator is seeded before.
      card: what the model is, for its checkpoints.
      inputs: parents of the run by name and hash, beside the data.
      mixture: which rows a batch is mixed of; None draws uniformly.
    """
    fabric = make_fabric(config.fabric)
    processes = fabric_processes(fabric)
    run = open_run(
        config.out,
        kind=name,
        config=config,
        model=to_plain(card),
        inputs={"data": corpora.hash(), **inputs},
        main=processes.main,
    )
    torch.manual_seed(derive_seed(config.training.seed, -2))
    objective = _build(build)
    mixture = mixture or Mixture()
    held_out = heldout_batches(corpora, config.batches, HELDOUT_BATCHES, mixture)

    def make_session(model: nn.Module, optimizer: torch.optim.Optimizer) -> Session:
        batches = training_batches(
            corpora,
            config.batches,
            seed=config.training.seed,
            rank=processes.rank,
            world_size=processes.world_size,
            mixture=mixture,
        )
        run_model = partial(forward, model, device=fabric.device, precision=config.fabric.precision)
        return Session(
            name=name,
            run=run,
            card=card,
            objective=objective,
            optimizer=optimizer,
            batches=batches,
            config=config.training,
            processes=processes,
            evaluate=partial(heldout_metrics, run_model, held_out) if held_out else None,
        )

    optimizer = partial(make_optimizer, config=config.optimizer)
    fit(fabric, objective, optimizer, make_session, config.optimizer, config.fabric.precision)


def _build(build: Callable[[], nn.Module]) -> nn.Module:
    try:
        return build()
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"--model: {error}.") from None


def require_latents(corpora: Corpora) -> tuple[int, int]:
    """(N_z, D_z) of latent shards. Raises `UserError` for video shards."""
    if corpora.latent_shape is None:
        raise UserError(
            f"{corpora.place}: holds video, not latents; run `reverie encode` and give its folder."
        )
    return corpora.latent_shape


def require_known_actions(corpora: Corpora) -> None:
    """Raises `UserError` when there are actions, but no corpus logs all of them, so that none would count as known."""
    if not any(corpora.knows_all_actions(share) for share in corpora.shares):
        raise UserError(
            f"{corpora.place}: no corpus logs all of the actions {', '.join(corpora.action_space.components)}, "
            f"so none would count as known; train on the corpora one by one, or prepare one that logs them all."
        )


def require_same_tokenizer(corpora: Corpora, card: Card, place: Path) -> None:
    """Raises `UserError` unless the model in `place` was trained on latents of the tokenizer that made `corpora`."""
    if corpora.tokenizer_sha256 != card.tokenizer_sha256:
        raise UserError(
            f"{corpora.place}: its latents come from tokenizer {_short(corpora.tokenizer_sha256)}, "
            f"but {place} was trained with tokenizer {_short(card.tokenizer_sha256)}; give matching ones."
        )


def require_same_actions(corpora: Corpora, card: Card, place: Path) -> None:
    """Raises `UserError` unless the model in `place` has the action space of `corpora`."""
    if ActionSpace.from_json(card.action_space or {}, str(place)) != corpora.action_space:
        raise UserError(
            f"{corpora.place}: has the actions {', '.join(corpora.action_space.components) or 'none'}, "
            f"but {place} has {', '.join(card.action_space or {}) or 'none'} or other sizes; give matching ones."
        )


def require_same_tasks(corpora: Corpora, card: Card, place: Path) -> None:
    """Raises `UserError` unless the agent in `place` numbers its tasks as `corpora` do."""
    if card.tasks != corpora.tasks:
        raise UserError(
            f"{corpora.place}: has the tasks {', '.join(corpora.tasks) or 'none'}, "
            f"but {place} has {', '.join(card.tasks or []) or 'none'}; give the data it was cloned from."
        )


def _short(digest: str | None) -> str:
    return "none" if digest is None else digest[:12]
