"""`reverie info`: parameter counts and memory plan of a preset, or what a run folder or shard folder holds."""

import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from reverie.agent.model import Agent, AgentConfig
from reverie.data.actions import ActionSpace, Binary, Categorical
from reverie.data.errors import UserError
from reverie.data.files.location import Location, Url
from reverie.data.shards.index import INDEX, ShardIndex
from reverie.dynamics.model import Dynamics, DynamicsConfig
from reverie.nn import dispatch
from reverie.pipelines.presets import PRESETS, Preset
from reverie.pipelines.runs.progress import meter
from reverie.pipelines.training.checkpoints import (
    build_model,
    find_checkpoint,
    has_average,
    read_card,
    weights_sha256,
)
from reverie.pipelines.training.integrity import CARD
from reverie.rssm.model import Dreamer
from reverie.tokenizer.model import Tokenizer, TokenizerConfig

MINECRAFT = ActionSpace({"keys": Binary(23), "mouse": Categorical(121, null=60)})
"""Action space for which presets are counted; other spaces change little."""


@dataclass(frozen=True, kw_only=True)
class InfoConfig:
    """Prints exact parameter counts, or which batches fit given devices."""

    preset: str | None = None
    """Count this preset's models; null for all presets, unless `path` is given."""
    path: Location | None = None
    """Run folder, checkpoint folder, or shard folder or its URL, to describe instead."""
    devices: int | None = None
    """Print the memory plan of `preset` for this many devices, in all nodes together; takes a minute the first time."""
    device_memory: str = "80GB"
    """Memory of each device: 80GB (10^9 bytes each) or 79.6GiB (2^30 bytes each)."""
    frame_size: tuple[int, int] | None = None
    """Height and width of the frames that are planned for; null for the preset's."""

    def __post_init__(self) -> None:
        memory_bytes(self.device_memory)
        if self.devices is not None and self.devices < 1:
            raise UserError(f"--devices {self.devices}: must be at least 1")
        if self.devices is not None and self.preset is None:
            raise UserError(f"--devices: needs a --preset to plan for, one of {', '.join(PRESETS)}")
        if self.frame_size is not None and min(self.frame_size) < 1:
            raise UserError(f"--frame_size {self.frame_size}: must be two sides of at least 1 pixel")
        if self.preset is not None and self.preset not in PRESETS:
            raise UserError(f"--preset {self.preset}: is not known, choose one of {', '.join(PRESETS)}")


def info(config: InfoConfig) -> None:
    """Prints one line per part."""
    if config.devices is not None and config.preset is not None:
        return _print_plan(config, config.preset, config.devices)
    if config.path is not None:
        lines = describe_folder(config.path)
    else:
        names = [config.preset] if config.preset is not None else list(PRESETS)
        lines = [line for name in names for line in describe_preset(name, PRESETS[name])]
    print("\n".join(lines))


def _print_plan(config: InfoConfig, preset: str, devices: int) -> None:
    from reverie.pipelines.memory_counts import counted
    from reverie.pipelines.memory_plan import plan_stage
    from reverie.pipelines.memory_stages import stages
    from reverie.pipelines.memory_table import heading, print_stage

    logging.getLogger(dispatch.__name__).setLevel(logging.WARNING)  # which kernels count is no news
    memory = memory_bytes(config.device_memory)
    console = Console(highlight=False)
    console.print(heading(preset, devices, memory))
    planned = stages(PRESETS[preset], config.frame_size)
    with meter("plan", len(planned)) as shown:
        for stage in planned:
            print_stage(console, plan_stage(stage, counted(stage), devices, memory))
            shown.update()


def memory_bytes(text: str) -> float:
    """80GB, 79.6 GiB, 24000MB -> bytes. Raises `UserError` for anything else."""
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)\s*([KMGT])(i?)B", text.strip(), re.IGNORECASE | re.ASCII)
    size = 0.0
    if found is not None:
        size = float(found[1]) * (1024 if found[3] else 1000) ** (" KMGT".index(found[2].upper()))
    if not size:
        raise UserError(f"--device-memory {text}: is no size of memory, write it as 80GB or 79.6GiB")
    return size


def describe_preset(name: str, preset: Preset) -> list[str]:
    """Exact parameter counts per part of the models of one preset."""
    tokenizer, agent = build_preset(preset)
    return [
        f"{name}",
        *_part_lines("tokenizer", tokenizer),
        *_part_lines("dynamics", agent.dynamics),
        *_part_lines("agent heads", agent, without="dynamics"),
        f"  {'total':24}{count(tokenizer) + count(agent):>15,}",
    ]


def build_preset(preset: Preset) -> tuple[Tokenizer, Agent]:
    """The preset's models without memory, for Minecraft's actions and the paper's 20 tasks."""
    tokenizer_config: TokenizerConfig = preset["tokenizer"]["model"]
    dynamics_config: DynamicsConfig = preset["dynamics"]["model"]
    agent_config: AgentConfig = preset["clone"]["model"]
    with torch.device("meta"):
        tokenizer = Tokenizer(tokenizer_config)
        dynamics = Dynamics(replace(dynamics_config, latent_shape=tokenizer_config.latent_shape), MINECRAFT)
        return tokenizer, Agent(dynamics, agent_config, [f"task {i}" for i in range(20)])


def describe_folder(path: Location) -> list[str]:
    """What lies in a shard folder, a run folder or a checkpoint folder. Raises `UserError` if it is neither."""
    if isinstance(path, Url) or (path / INDEX).is_file():
        return _describe_shards(ShardIndex.load(path))
    return _describe_model(path)


def count(module: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def _describe_shards(index: ShardIndex) -> list[str]:
    kind = "video" if index.latent_shape is None else f"latents {index.latent_shape}"
    lines = [f"shards of {kind}, frames {index.frame_size[0]} x {index.frame_size[1]}, {index.fps:g} fps"]
    for split in index.splits:
        samples = index.samples(split)
        lines.append(f"  {split:24}{len(samples):>8,} clips{sum(s.n for s in samples):>12,} frames")
    lines.append(f"  actions: {', '.join(index.action_space.components) or 'none'}")
    lines.append(f"  tasks: {', '.join(index.tasks) or 'none'}")
    return [*lines, f"  hash: {index.hash()}"]


def _describe_model(path: Path) -> list[str]:
    card = read_card(path)
    with torch.device("meta"):
        model = build_model(card, find_checkpoint(path) / CARD)
    if isinstance(model, Dreamer):
        lines = _part_lines("world model", model.world_model)
        lines += _part_lines("actor and critic", model.behaviour)
    elif isinstance(model, Agent):
        lines = _part_lines("dynamics", model.dynamics)
        lines += _part_lines("agent heads", model, without="dynamics")
    else:
        lines = _part_lines(card.kind, model)
    name = find_checkpoint(path).name
    average = " (the average; the weights themselves: add /raw)" if has_average(path) else ""
    return [
        f"{card.kind}, {f'step {int(name):,}' if name.isdigit() else name}",
        *lines,
        f"  weights: {weights_sha256(path)}{average}",
    ]


def _part_lines(title: str, model: nn.Module, without: str | None = None) -> list[str]:
    own = sum(p.numel() for p in model.parameters(recurse=False))
    parts = {name: count(child) for name, child in model.named_children() if name != without}
    parts = {**parts, "tokens and positions": own}
    lines = [f"    {name:22}{number:>15,}" for name, number in parts.items() if number]
    return [f"  {title:24}{sum(parts.values()):>15,}", *lines]
