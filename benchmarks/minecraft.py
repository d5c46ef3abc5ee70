"""What a run on Minecraft would take, computed from the presets: an estimate, nothing of it was measured.

    python -m benchmarks.minecraft [--hours 2541] [--teraflops 200]

Floating-point operations are 2 per weight and token, and 4 S D per token of a space layer, forward; a backward pass costs twice
that. What fits into memory: `reverie info --preset paper --devices 8` (docs/cluster.md).
"""

import argparse
from dataclasses import replace
from typing import Any

import torch

from reverie.data.sources.vpt.minecraft import SPACE
from reverie.dynamics.model import Dynamics
from reverie.nn.transformer import TransformerConfig
from reverie.pipelines.presets import PRESETS
from reverie.tokenizer.model import Tokenizer

SIZES = {"small": ((96, 160), 8), "base": ((192, 320), 16), "paper": ((384, 640), 16)}
"""Preset -> size of the frames, side of a patch."""
FPS = 20
BOOTSTRAPPED = 3 + 2
"""Forward passes that a training frame of the dynamics costs: one with its gradient, two bootstrap passes without."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--hours", type=float, default=2541, help="hours of video")
    parser.add_argument("--teraflops", type=float, default=200, help="sustained speed in TFLOP/s")
    arguments = parser.parse_args()
    frames = arguments.hours * 3600 * FPS
    for name in SIZES:
        print(f"{name}: {arguments.hours:g} h = {frames / 1e6:.0f} million frames")
        for line in stages(name, frames, arguments.teraflops * 1e12):
            print("  " + line)


def stages(name: str, frames: float, speed: float) -> list[str]:
    """One line for each stage."""
    preset = PRESETS[name]
    size, patch = SIZES[name]
    config = replace(preset["tokenizer"]["model"], frame_size=size, patch_size=patch)
    dynamics_config = replace(preset["dynamics"]["model"], latent_shape=config.latent_shape)
    with torch.device("meta"):  # sizes alone
        tokenizer, dynamics = Tokenizer(config), Dynamics(dynamics_config, SPACE)
    patches, latents = config.num_patches + config.bottleneck_tokens, dynamics_config.num_world_tokens
    encoder = per_frame(count(tokenizer.encoder), patches, config.transformer(config.encoder_depth))
    decoder = per_frame(count(tokenizer.decoder), patches, config.transformer(config.decoder_depth))
    world = per_frame(count(dynamics.transformer), latents, dynamics_config.transformer())
    flops: dict[str, float] = {
        "tokenizer": training_frames(preset["tokenizer"]) * 3 * (encoder + decoder),
        "encode": frames * encoder,
        "dynamics": training_frames(preset["dynamics"]) * BOOTSTRAPPED * world,
        "clone": training_frames(preset["clone"]) * (BOOTSTRAPPED + 3) * world,
        "imagine": imagined(preset["imagine"], world),
    }
    lines = [f"frame {size[0]} x {size[1]}, latents of a frame {2 * latent_numbers(config) / 1e3:.1f} kB"]
    for stage, total in flops.items():
        lines.append(f"{stage}: {total:.1e} FLOP, {total / speed / 3600:.0f} h")
    return [*lines, f"act: {(encoder + world) / 1e9:.0f} GFLOP a frame"]


def per_frame(weights: int, tokens: int, config: TransformerConfig) -> float:
    """Operations of a forward pass over one frame; attention over time is left out, it is small."""
    space = config.depth - config.num_time_layers
    return 2.0 * weights * tokens + 4.0 * tokens * tokens * config.width * space


def training_frames(stage: Any) -> float:
    """Frames that a stage sees in all its steps."""
    batches, steps = stage["batches"], stage["training"].steps
    share = batches.long_probability
    short, long = batches.batch_size * batches.length, batches.long_batch_size * batches.long_length
    return steps * ((1 - share) * short + share * long)


def imagined(stage: Any, world: float) -> float:
    """Contexts, and K + 1 passes for each imagined frame."""
    batches, config = stage["batches"], stage["imagination"]
    frames = batches.length + config.horizon * (config.sampling_steps + 1)
    return stage["training"].steps * batches.batch_size * frames * world


def latent_numbers(config: Any) -> int:
    return config.latent_shape[0] * config.latent_shape[1]


def count(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


if __name__ == "__main__":
    main()
