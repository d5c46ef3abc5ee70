"""What the stages that learn from shards have in common: their settings, and one run from folder to last step."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from reverie.data.actions import ActionSpace
from reverie.data.batch import Batch
from reverie.data.errors import UserError
from reverie.data.files.location import Location
from reverie.data.loading.corpora import Corpora
from reverie.dynamics.model import DynamicsConfig
from reverie.nn.dispatch import kernel_of
from reverie.nn.precision import in_bfloat16
from reverie.nn.threads import shared_out
from reverie.pipelines.runs.configs import to_plain
from reverie.pipelines.runs.run import RunFolder, open_run
from reverie.pipelines.training.batches import (
    Batches,
    BatchesConfig,
    BatchSource,
    Mixture,
    heldout_batches,
    training_batches,
)
from reverie.pipelines.training.boards import require_logger
from reverie.pipelines.training.checkpoints import Card
from reverie.pipelines.training.layers import prepare_layers, step_elements
from reverie.pipelines.training.loop import (
    FabricConfig,
    Updates,
    fabric_processes,
    fit,
    forward,
    heldout_metrics,
    make_fabric,
    scheduled_updates,
)
from reverie.pipelines.training.optimization import OptimizerConfig
from reverie.pipelines.training.pace import Gauge, products
from reverie.pipelines.training.processes import Processes, sole_run
from reverie.pipelines.training.session import Session, TrainingConfig, derive_seed
from reverie.pipelines.training.showing import Show, show_of
from reverie.tokenizer.model import TokenizerConfig

if TYPE_CHECKING:
    from lightning.fabric import Fabric

HELDOUT_BATCHES = 8
"""Batches in an evaluation while training; `reverie evaluate` measures more and better."""


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """Settings of the Dreamer 4 stages that learn from shards."""

    data: Location
    """Folder of shards, or the URL of one, or a YAML file that mixes several (docs/data/mixtures.md)."""
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


class RunConfig(Protocol):
    """What a run needs to know of its stage's settings."""

    @property
    def out(self) -> Path:
        """The run folder."""

    @property
    def training(self) -> TrainingConfig:
        """Length and intervals."""

    @property
    def fabric(self) -> FabricConfig:
        """Devices, processes, precision."""


Run = Callable[[Batch], Any]
"""The wrapped objective, on its device and in its precision."""
Evaluate = Callable[[], Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One run, from data to weights.

    build           makes the objective; the random generator is seeded before
    card            what the model is, for its checkpoints
    identity        plain values that may not change while the run continues
    inputs          what it learns from, by name and hash
    updates         how weights are updated
    open_batches    called with the objective and the processes
    open_evaluation called with the objective and its wrapped form; None where nothing is held out
    open_show       called with the objective: pictures and films to show after each evaluation
    counts          further figures of every logged row
    advice          what to change when training leaves the finite numbers: flags, in words
    accumulate      micro-batches of a step
    frames          frames of a step over all processes, on average; by which `--training.compile auto` decides on a CPU
    """

    build: Callable[[], nn.Module]
    card: Card
    identity: Mapping[str, Any]
    inputs: Mapping[str, str]
    updates: Updates
    open_batches: Callable[[nn.Module, Processes], BatchSource]
    open_evaluation: Callable[[nn.Module, Run], Evaluate | None]
    open_show: Callable[[nn.Module], Show | None] = lambda _: None
    counts: Callable[[], Mapping[str, float]] = dict
    advice: str = "lower the learning rate"
    accumulate: int = 1
    frames: float = 0.0


def train_stage(
    name: str,
    config: StageConfig,
    corpora: Corpora,
    *,
    build: Callable[[], nn.Module],
    card: Card,
    inputs: Mapping[str, str],
    mixture: Mixture | None = None,
    tokenizer: Path | None = None,
) -> None:
    """Trains the objective that `build` makes, in the run folder `config.out`.

    Args:
      build, card: see `Plan`.
      inputs: parents of the run by name and hash, beside the data.
      mixture: which rows a batch is mixed of; None draws uniformly.
      tokenizer: run of the tokenizer that decodes rollouts to show; None shows none.
    """
    rows = mixture or Mixture()

    @cache
    def held_out() -> Sequence[Batch]:
        return heldout_batches(corpora, config.batches, HELDOUT_BATCHES, rows)

    def open_evaluation(objective: nn.Module, run: Run) -> Evaluate | None:
        return partial(heldout_metrics, run, held_out()) if held_out() else None

    plan = Plan(
        build=build,
        card=card,
        identity=to_plain(card),
        inputs={"data": corpora.hash(), **inputs},
        updates=scheduled_updates(config.optimizer, config.training.steps),
        open_batches=lambda _, processes: shard_batches(
            corpora, config.batches, config.training.seed, processes, rows
        ),
        open_evaluation=open_evaluation,
        open_show=lambda objective: show_of(objective, held_out(), tokenizer) if held_out() else None,
        advice=calmer({"--optimizer.lr": config.optimizer.lr}, full_precision(config.fabric)),
        accumulate=config.batches.accumulate,
        frames=config.batches.frames,
    )
    train(name, config, plan)


def calmer(rates: Mapping[str, float], full_precision: str | None) -> str:
    """Flags that calm a training which has left the finite numbers: a third of each learning rate, and 32 bits."""
    lower = " ".join(f"{flag} {rate / 3:.2g}" for flag, rate in rates.items())
    return f"lower the learning rate ({lower})" + (f" or add {full_precision}" if full_precision else "")


def full_precision(fabric: FabricConfig) -> str | None:
    """The flag that makes all arithmetic 32 bits; None where it is."""
    return None if fabric.precision == "32-true" else "--fabric.precision 32-true"


def shard_batches(
    corpora: Corpora, config: BatchesConfig, seed: int, processes: Processes, mixture: Mixture
) -> Batches:
    """The training batches of one process."""
    return training_batches(
        corpora, config, seed=seed, rank=processes.rank, world_size=processes.world_size, mixture=mixture
    )


def train(name: str, config: RunConfig, plan: Plan, steps: int | None = None) -> None:
    """Trains by `plan` in the run folder `config.out` for `steps`, by default `config.training.steps`."""
    require_logger(config.training.logger)
    fabric = make_fabric(config.fabric)
    _require_backend(getattr(config, "model", None), config.fabric.precision, fabric.device)
    processes = fabric_processes(fabric)
    with sole_run(config.out, processes):
        open_plan = partial(
            open_run, config.out, kind=name, config=config, model=plan.identity, inputs=plan.inputs
        )
        processes.by_main(open_plan)
        _train(name, config, plan, fabric, processes, steps)


def _require_backend(model: Any, precision: str, device: torch.device) -> None:
    """Refuses a forced attention backend that cannot train here, before there is a run folder. Raises `UserError`."""
    if isinstance(model, TokenizerConfig | DynamicsConfig) and model.backend != "auto":
        dtype = torch.bfloat16 if in_bfloat16(precision, device) else torch.float32
        width, capped = model.width // model.num_heads, model.softcap is not None
        kernel_of(model.backend, "full", device, dtype, width, capped, gradient=True)


def _train(
    name: str, config: RunConfig, plan: Plan, fabric: "Fabric", processes: Processes, steps: int | None
) -> None:
    torch.manual_seed(derive_seed(config.training.seed, -2))
    objective = _build(plan.build)
    training = config.training if steps is None else replace(config.training, steps=steps)
    prepare_layers(
        objective,
        fabric.device,
        compile=training.compile,
        checkpointing=training.checkpointing,
        frames=plan.frames * training.steps / processes.world_size,
    )

    def make_session(model: nn.Module, optimizer: torch.optim.Optimizer) -> Session:
        run_model = partial(forward, model, device=fabric.device, precision=config.fabric.precision)
        return Session(
            name=name,
            run=RunFolder(config.out),
            card=plan.card,
            objective=objective,
            optimizer=optimizer,
            batches=plan.open_batches(objective, processes),
            config=training,
            processes=processes,
            gauge=Gauge(
                device=fabric.device,
                dtype=products(fabric.device, config.fabric.precision),
                world_size=processes.world_size,
            ),
            evaluate=plan.open_evaluation(objective, run_model),
            show=plan.open_show(objective) if processes.main else None,
            counts=plan.counts,
            advice=plan.advice,
        )

    frames = plan.frames / processes.world_size / plan.accumulate
    with shared_out(step_elements(objective, frames)):
        fit(fabric, objective, plan.updates, make_session, config.fabric.precision, plan.accumulate)


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
