"""Stage `imagine`: reinforcement learning inside the frozen world model (Dreamer 4, section 3.3).

Its data are its own rollouts, so it has its own small loop, driven by Accelerate: contexts come from the latent shards
and everything after them is imagined. Start it with `accelerate launch -m reverie.pipelines.cli imagine ...` on several
devices.
"""

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator

from reverie.agent.imagination import ImaginationConfig, ImaginationObjective, discount_for, imagine
from reverie.data.batch import RETURN
from reverie.data.errors import UserError
from reverie.data.files.location import Location
from reverie.data.loading.config import LoaderConfig
from reverie.data.loading.corpora import Corpora
from reverie.dynamics.fast_frame import use_fast
from reverie.nn.compilation import Compile
from reverie.nn.threads import shared_out
from reverie.pipelines.runs.configs import to_plain
from reverie.pipelines.runs.run import RunFolder, open_run
from reverie.pipelines.training.accumulation import refuse_accumulation
from reverie.pipelines.training.batches import BatchesConfig, Mixture, heldout_batches, training_batches
from reverie.pipelines.training.boards import require_logger
from reverie.pipelines.training.checkpoints import load_agent, read_card, weights_sha256
from reverie.pipelines.training.finite import GRADIENT_NORM
from reverie.pipelines.training.layers import refuse_layers, step_elements
from reverie.pipelines.training.loop import heldout_metrics
from reverie.pipelines.training.optimization import (
    OptimizerConfig,
    learning_rate,
    make_optimizer,
    set_learning_rate,
)
from reverie.pipelines.training.pace import Gauge, batch_frames
from reverie.pipelines.training.parents import parent_input, start_imagine
from reverie.pipelines.training.parts import part
from reverie.pipelines.training.processes import Processes, Vote, sole_run
from reverie.pipelines.training.session import Session, TrainingConfig, derive_seed
from reverie.pipelines.training.stage import (
    calmer,
    require_latents,
    require_same_actions,
    require_same_tasks,
    require_same_tokenizer,
)
from reverie.pipelines.worlds.places import take_worlds

CRITIC_STEPS = 10
"""Steps in which the critic of the game's own reward learns alone before the policy does."""
HELDOUT_CONTEXTS = 1
"""Batches of contexts in an evaluation while training; each costs as much as a training step."""


@dataclass(frozen=True, kw_only=True)
class ImagineStage:
    """Improves a cloned agent's policy by imagined rollouts from contexts of the data."""

    data: Location
    """Latent shards of the contexts: a folder, the URL of one, or a YAML file that mixes several (docs/data/mixtures.md)."""
    agent: Path
    """Run folder of the cloned agent; its policy is the behavioural prior."""
    out: Path
    """Run folder; the same command again continues an interrupted run."""
    imagination: ImaginationConfig = field(default_factory=ImaginationConfig)
    """Rollouts and objective."""
    batches: BatchesConfig = field(default_factory=BatchesConfig)
    """Contexts per step; length is their number of frames."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimiser of the policy and value heads."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """Length and intervals."""
    relevant_fraction: float = 0.0
    """Share of the contexts from stretches in which a task is accomplished, for `return` from the better episodes."""
    best_fraction: float = LoaderConfig.best_fraction
    """For `return`: share of the episodes that are the better ones, those with the greatest returns."""
    relevant_before: int | None = None
    """Frames before a task's event that count as relevant to it; null for the length of a window."""
    task: str | None = None
    """Imagine for this task alone, `return` for the game's own reward; null for all that the agent knows."""
    parent: Path | None = None
    """Run folder of an improved agent, or `world:NAME`, whose policy and value head the training starts from; null for the cloned
    policy and a new value head. The prior is `agent` in any case."""
    cpu: bool = False
    """Stay on the CPU where a GPU is present."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Accelerate's mixed precision: no, bf16 or fp16."""
    compile: Compile = "auto"
    """Compile what happens at every imagined frame: auto does on GPUs, and on CPUs where it pays."""

    def __post_init__(self) -> None:
        take_worlds(self, agent="agent", parent="agent")


def train_imagine(config: ImagineStage) -> None:
    """Runs the stage. Raises `UserError` when data and agent do not belong together."""
    require_logger(config.training.logger)
    corpora = Corpora.load(config.data)
    require_latents(corpora)
    card = read_card(config.agent, "agent")
    require_same_tokenizer(corpora, card, config.agent)
    require_same_actions(corpora, card, config.agent)
    if RETURN in (card.tasks or []) and RETURN not in corpora.tasks:
        corpora = corpora.with_return()
    require_same_tasks(corpora, card, config.agent)
    accelerator = _accelerator(config)
    processes = accelerate_processes(accelerator)
    inputs = {
        "data": corpora.hash(),
        "tokenizer": str(corpora.tokenizer_sha256),
        "agent": weights_sha256(config.agent),
        **parent_input(config.parent),
    }
    open_this = partial(
        open_run, config.out, kind="imagine", config=config, model=to_plain(card), inputs=inputs
    )
    with sole_run(config.out, processes):
        processes.by_main(open_this)
        refuse_accumulation(config.batches.accumulate)
        refuse_layers(config.training.compile, config.training.checkpointing)  # they are frozen here
        torch.manual_seed(derive_seed(config.training.seed, -2))
        agent = load_agent(config.agent)
        agent.freeze_prior()
        start_imagine(agent, config.parent)
        objective = ImaginationObjective(agent, _settings(config, corpora, processes))
        # Rollouts take most of the time, and of all rows one frame in a pass.
        with shared_out(step_elements(objective, config.batches.batch_size / processes.world_size)):
            _fit(accelerator, processes, objective, corpora, RunFolder(config.out), config)


def _settings(config: ImagineStage, corpora: Corpora, processes: Processes) -> ImaginationConfig:
    """The imagination's settings; what is not given follows from what is learned, and from the training episodes."""
    chosen = config.imagination
    if chosen.critic_steps is None:
        for_return = corpora.has_return and config.task in (None, RETURN)
        chosen = replace(chosen, critic_steps=CRITIC_STEPS if for_return else 0)
    if chosen.discount is not None:
        return chosen
    lengths = [episode.n for share in corpora.shares for episode in share.index.episodes("train")]
    length = sum(lengths) / len(lengths)
    discount = discount_for(length)
    if processes.rank == 0:
        print(f"discount: {discount:.4g} a frame, for episodes of {length:.3g} frames", flush=True)
    return replace(chosen, discount=discount)


def _accelerator(config: ImagineStage) -> Accelerator:
    try:
        return Accelerator(cpu=config.cpu, mixed_precision=config.precision)
    except (ValueError, RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise UserError(
            f"--precision {config.precision}: cannot be had here ({reason}); use --precision no."
        ) from None


def accelerate_processes(accelerator: Accelerator) -> Processes:
    """How the processes of `accelerator` agree."""
    if accelerator.num_processes == 1:
        return Processes()

    return Processes(rank=accelerator.process_index, world_size=accelerator.num_processes, vote=Vote())


def _fit(
    accelerator: Accelerator,
    processes: Processes,
    objective: ImaginationObjective,
    corpora: Corpora,
    run: RunFolder,
    config: ImagineStage,
) -> None:
    raw_optimizer = make_optimizer(objective.to(accelerator.device), config.optimizer)
    model, optimizer = accelerator.prepare(objective, raw_optimizer)
    trained = list(objective.trainable_parameters())
    frames = config.training.steps * config.imagination.horizon
    fast = use_fast(config.compile, accelerator.device, frames)
    with _session(model, objective, raw_optimizer, processes, corpora, run, config, accelerator) as session:
        while session.running:
            step, context = session.begin_step()
            set_learning_rate(raw_optimizer, learning_rate(step, config.training.steps, config.optimizer))
            context = context.to(accelerator.device)
            critic_alone = step < (objective.config.critic_steps or 0)
            rollouts = partial(imagine, objective.model, context, config.imagination, fast=fast)
            with part("forward"), accelerator.autocast():
                rollout = rollouts()
            with session.counted(rollouts):
                for _ in range(_updates(config, critic_alone)):
                    with part("forward"):
                        loss, metrics = model(context, rollout, critic_alone=critic_alone)
                    with part("backward"):
                        accelerator.backward(loss)
                    if critic_alone:  # not even decay is to change the policy
                        objective.model.policy.zero_grad(set_to_none=True)
                    with part("optimizer"):
                        norm = accelerator.clip_grad_norm_(trained, config.optimizer.clip_norm)
                        optimizer.step()
                        optimizer.zero_grad()
            if (
                accelerator.scaler is None
            ):  # a scaler skips the steps at which it finds the gradients too large
                metrics = {**metrics, GRADIENT_NORM: norm}
            session.end_step(metrics)


def _updates(config: ImagineStage, critic_alone: bool) -> int:
    return config.imagination.critic_updates if critic_alone else config.imagination.updates_per_rollout


def _full_precision(config: ImagineStage) -> str | None:
    return None if config.precision == "no" else "--precision no"


def _gauge(config: ImagineStage, accelerator: Accelerator) -> Gauge:
    """Frames are those of the contexts and of the rollouts."""
    horizon = config.imagination.horizon
    return Gauge(
        device=accelerator.device,
        dtype=torch.float32 if config.precision == "no" else torch.bfloat16,
        frames=lambda context: batch_frames(context) + context.shape[0] * horizon,
        world_size=accelerator.num_processes,
    )


def _session(
    model: torch.nn.Module,
    objective: ImaginationObjective,
    optimizer: torch.optim.Optimizer,
    processes: Processes,
    corpora: Corpora,
    run: RunFolder,
    config: ImagineStage,
    accelerator: Accelerator,
) -> Session:
    mixture = Mixture(
        relevant_fraction=config.relevant_fraction,
        relevant_before=config.relevant_before,
        best_fraction=config.best_fraction,
        task=config.task,
    )
    held_out = heldout_batches(corpora, config.batches, HELDOUT_CONTEXTS, mixture)
    return Session(
        name="imagine",
        run=run,
        card=read_card(config.agent),
        objective=objective,
        optimizer=optimizer,
        batches=training_batches(
            corpora,
            config.batches,
            seed=config.training.seed,
            rank=processes.rank,
            world_size=processes.world_size,
            mixture=mixture,
        ),
        config=config.training,
        advice=calmer({"--optimizer.lr": config.optimizer.lr}, _full_precision(config)),
        processes=processes,
        gauge=_gauge(config, accelerator),
        evaluate=partial(heldout_metrics, lambda x: model(x.to(accelerator.device)), held_out)
        if held_out
        else None,
    )
