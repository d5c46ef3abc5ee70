"""The stages of a preset as the memory plan builds them: objectives of any depth, batches of zeros, ways to train."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import nn

from reverie.agent.cloning import CloningObjective, CloningObjectiveConfig
from reverie.agent.imagination import ImaginationObjective
from reverie.agent.model import Agent
from reverie.data.actions import ActionSpace
from reverie.data.batch import Batch
from reverie.data.sources.vpt.minecraft import SPACE
from reverie.dynamics.model import Dynamics, DynamicsConfig
from reverie.dynamics.objective import DynamicsObjective, DynamicsObjectiveConfig
from reverie.pipelines.presets import Preset
from reverie.pipelines.training.batches import BatchesConfig
from reverie.pipelines.training.layers import Checkpointing, prepare_layers
from reverie.pipelines.training.memory import CPU
from reverie.pipelines.training.optimization import OptimizerConfig
from reverie.tokenizer.model import Tokenizer, TokenizerConfig
from reverie.tokenizer.objective import TokenizerObjective, TokenizerObjectiveConfig
from reverie.tokenizer.perceptual import untrained_lpips

TASKS = 20
"""Tasks of the agent that is counted, as many as the paper's."""

NO_BOOTSTRAP: Any = {"bootstrap_fraction": 0.0}
"""Passes without gradients keep nothing and take less than the pass that follows; counting them would take twice as long."""


@dataclass(frozen=True)
class Way:
    """How a stage may train.

    sharded        weights, gradients and optimiser over all devices (fsdp); else copied to each (ddp)
    checkpointing  layers are computed anew in the backward pass; else what they need is kept
    softcap        attention logits are capped, and plain matrix code keeps them; else fused attention keeps none
    """

    sharded: bool
    checkpointing: bool
    softcap: bool


@dataclass(frozen=True)
class Stage:
    """One stage of a preset, as the plan builds it.

    build     (time blocks, whether to checkpoint, whether to cap) -> the objective, with that many times `time_every` layers
    blocks    how many the preset has
    batch     (rows, length) -> what the objective is called with
    """

    name: str
    build: partial[nn.Module]
    blocks: int
    batch: partial[Batch]
    batches: BatchesConfig
    optimizer: OptimizerConfig
    trains_on_shards: bool
    half: bool
    softcap: bool
    checkpointing: bool
    sharded: bool
    ema: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """All that its counts depend on, as values that are written alike in every process."""
        preset, model = self.build.args
        fields = {name: value for name, value in vars(self).items() if name not in ("build", "batch")}
        return {**fields, "preset": dict(preset), "model": model, "batch": self.batch.keywords}


def ways(stage: Stage, devices: int) -> list[Way]:
    """All that is worth comparing."""
    sharded = (False, True) if devices > 1 and stage.trains_on_shards else (False,)
    checkpointing = (False, True) if stage.trains_on_shards else (False,)
    return [Way(*choice) for choice in product(sharded, checkpointing, (True, False))]


def windows(batches: BatchesConfig) -> Mapping[int, int]:
    """Length of a window -> how many a batch has, over all processes."""
    short = {batches.length: batches.batch_size} if batches.long_probability < 1 else {}
    return short | ({batches.long_length: batches.long_batch_size} if batches.long_probability > 0 else {})


def longest(batches: BatchesConfig) -> int:
    """Frames of the longest window. A frame takes most there: the logits of attention over time grow with it."""
    return max(windows(batches))


def stages(preset: Preset, frame_size: tuple[int, int] | None = None) -> list[Stage]:
    """The stages of a preset that train, in their order."""
    tokenizer = preset["tokenizer"]["model"]
    if frame_size is not None:
        tokenizer = replace(tokenizer, frame_size=frame_size)
    dynamics = replace(preset["dynamics"]["model"], latent_shape=tokenizer.latent_shape)
    latents = partial(empty_batch, latent_shape=dynamics.latent_shape)
    frames = partial(empty_batch, frame_size=tokenizer.frame_size)
    blocks = dynamics.depth // dynamics.time_every
    return [
        _stage("tokenizer", preset, tokenizer, _tokenizer_blocks(tokenizer), frames),
        *(_stage(name, preset, dynamics, blocks, latents) for name in ("dynamics", "clone", "imagine")),
    ]


def _stage(
    name: str,
    preset: Preset,
    model: TokenizerConfig | DynamicsConfig,
    blocks: int,
    batch: partial[Batch],
) -> Stage:
    settings = preset[name]
    fabric, training = settings.get("fabric"), settings["training"]
    return Stage(
        name=name,
        build=partial(_BUILD[name], preset, model),
        blocks=blocks,
        batch=batch,
        batches=settings["batches"],
        optimizer=settings["optimizer"],
        trains_on_shards=fabric is not None,
        half=fabric is not None and fabric.precision != "32-true",
        softcap=model.softcap is not None,
        checkpointing=training.checkpointing == "layers",
        sharded=fabric is not None and fabric.strategy in ("fsdp", "hsdp"),
        ema=training.ema is not None,
    )


def _tokenizer_blocks(config: TokenizerConfig) -> int:
    assert config.encoder_depth == config.decoder_depth, "the halves of a preset's tokenizer are equally deep"
    return config.encoder_depth // config.time_every


def _build_tokenizer(
    preset: Preset,
    model: TokenizerConfig,
    blocks: int,
    checkpointing: bool,
    softcap: bool,
) -> nn.Module:
    depth = blocks * model.time_every
    model = _attending(replace(model, encoder_depth=depth, decoder_depth=depth), softcap)
    objective = preset["tokenizer"].get("objective", TokenizerObjectiveConfig())
    lpips = untrained_lpips(objective.lpips_net) if objective.lpips_weight > 0 else None
    return _checkpointed(TokenizerObjective(Tokenizer(model), objective, lpips), checkpointing)


def _build_dynamics(
    preset: Preset,
    model: DynamicsConfig,
    blocks: int,
    checkpointing: bool,
    softcap: bool,
) -> nn.Module:
    objective = replace(preset["dynamics"].get("objective", DynamicsObjectiveConfig()), **NO_BOOTSTRAP)
    return _checkpointed(DynamicsObjective(_dynamics(model, blocks, softcap), objective), checkpointing)


def _build_clone(
    preset: Preset,
    model: DynamicsConfig,
    blocks: int,
    checkpointing: bool,
    softcap: bool,
) -> nn.Module:
    agent = _agent(preset, model, blocks, softcap)
    agent.value_head.requires_grad_(False)
    objective = replace(preset["clone"].get("objective", CloningObjectiveConfig()), **NO_BOOTSTRAP)
    return _checkpointed(CloningObjective(agent, objective), checkpointing)


def _build_imagine(
    preset: Preset,
    model: DynamicsConfig,
    blocks: int,
    checkpointing: bool,
    softcap: bool,
) -> nn.Module:
    # One imagined frame: the cache is as large as ever, and what is kept of each frame is small.
    config = replace(preset["imagine"]["imagination"], horizon=1)
    return ImaginationObjective(_agent(preset, model, blocks, softcap), config)


_BUILD: Mapping[str, Callable[..., nn.Module]] = {
    "tokenizer": _build_tokenizer,
    "dynamics": _build_dynamics,
    "clone": _build_clone,
    "imagine": _build_imagine,
}


def _dynamics(model: DynamicsConfig, blocks: int, softcap: bool) -> Dynamics:
    return Dynamics(_attending(replace(model, depth=blocks * model.time_every), softcap), SPACE)


def _agent(preset: Preset, model: DynamicsConfig, blocks: int, softcap: bool) -> Agent:
    tasks = [f"task {i}" for i in range(TASKS)]
    return Agent(_dynamics(model, blocks, softcap), preset["clone"]["model"], tasks)


def _attending(config: Any, softcap: bool) -> Any:
    """With the soft cap in plain matrix code, or without it in fused attention."""
    return (
        replace(config, softcap=config.softcap or 50.0, backend="math")
        if softcap
        else replace(config, softcap=None, backend="sdpa")
    )


def empty_batch(
    rows: int,
    length: int,
    *,
    frame_size: tuple[int, int] | None = None,
    latent_shape: tuple[int, int] | None = None,
    space: ActionSpace = SPACE,
) -> Batch:
    """A batch of zeros with frames or latents, all actions and tasks known."""
    no = torch.zeros(rows, length, dtype=torch.bool)
    index = torch.zeros(rows, length, dtype=torch.int64)
    return Batch(
        frames=None if frame_size is None else torch.zeros(rows, length, *frame_size, 3, dtype=torch.uint8),
        latents=None if latent_shape is None else torch.zeros(rows, length, *latent_shape),
        actions={
            name: torch.zeros(rows, length, *part.shape, dtype=part.dtype)
            for name, part in space.components.items()
        },
        action_mask=~no,
        reward=torch.zeros(rows, length),
        reward_mask=~no,
        is_first=no,
        is_last=no,
        is_terminal=no,
        task=index,
        segment=index,
        relevant=no[:, 0],
        key=[""] * rows,
    )


def _checkpointed(objective: nn.Module, wanted: bool) -> nn.Module:
    choice: Checkpointing = "layers" if wanted else "none"
    prepare_layers(objective, CPU, compile="off", checkpointing=choice, frames=0)
    return objective
