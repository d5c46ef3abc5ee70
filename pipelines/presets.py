"""Sizes that belong together: `--preset nano` and its larger kin, as values of the stages' configurations.

A preset sets the fields named here; everything else keeps its default, and --config and flags come after. Frame size,
latent shape and action space always come from the data.

| preset | tokenizer | dynamics | meant for |
|---|---|---|---|
| nano  | 0.9M | 0.4M | tests and the demo, CPU |
| small | 13M  | 19M  | one GPU of 24 GB, 64 x 64 games |
| base  | 50M  | 101M | one GPU of 80 GB, 64 x 64 games |
| paper | 408M | 1.6B | the paper's Minecraft shapes, eight GPUs of 80 GB |

`accumulate` and `checkpointing` follow from the memory plan of those machines (`reverie info --preset NAME --devices N`).
"""

from collections.abc import Mapping
from typing import Any

from reverie.agent.cloning import CloningObjectiveConfig
from reverie.agent.imagination import ImaginationConfig
from reverie.agent.model import AgentConfig
from reverie.dynamics.model import DynamicsConfig
from reverie.dynamics.objective import DynamicsObjectiveConfig
from reverie.pipelines.stages.baseline_config import OnlineConfig, PolicyConfig
from reverie.pipelines.training.batches import BatchesConfig
from reverie.pipelines.training.loop import FabricConfig
from reverie.pipelines.training.optimization import OptimizerConfig
from reverie.pipelines.training.session import TrainingConfig
from reverie.rssm import presets as rssm_presets
from reverie.rssm.config import DreamerConfig
from reverie.tokenizer.model import TokenizerConfig
from reverie.tokenizer.objective import TokenizerObjectiveConfig

Preset = Mapping[str, Mapping[str, Any]]
"""Stage -> field of its configuration -> value."""

NANO: Preset = {
    "tokenizer": {
        # Few tokens for the dynamics: a simple picture fits into two, and many updates are worth more than many tokens.
        "model": TokenizerConfig(
            width=96, bottleneck_tokens=8, bottleneck_channels=16, latents_per_token=4, context_length=4
        ),
        # A short training: with 0.9 the one tile that matters, the player's, is hidden too often to learn its direction.
        "objective": TokenizerObjectiveConfig(max_mask_probability=0.1, lpips_fraction=0.1),
        # Frames of as many episodes as there are, since neighbours are alike: which way the player looks is then learned some
        # hundred steps sooner (docs/results.md). Windows longer than the context, or it would count on true start frames.
        "batches": BatchesConfig(
            batch_size=40, length=1, long_batch_size=8, long_length=6, long_probability=0.2
        ),
        "optimizer": OptimizerConfig(
            name="muon", lr=1e-3, warmup_steps=50, decay="linear", final_lr_fraction=0.02
        ),
        "training": TrainingConfig(steps=1800, evaluate_every=200, save_every=200),
        # Muon lifts every direction of a gradient to one size, also those that bfloat16 drowns (docs/results.md, "Precision").
        "fabric": FabricConfig(precision="32-true"),
    },
    "dynamics": {
        "model": DynamicsConfig(width=64, depth=8, time_every=2, context_length=16, num_registers=0),
        # Windows of short episodes are full of start frames already.
        "objective": DynamicsObjectiveConfig(start_frame_fraction=0.1, bootstrap_fraction=0.25),
        # At two tokens a frame four times the rows take twice the time: most of a step is calls, whatever their size.
        "batches": BatchesConfig(
            batch_size=16, length=16, long_batch_size=8, long_length=32, long_probability=0.25
        ),
        "optimizer": OptimizerConfig(
            name="muon", lr=3e-3, warmup_steps=50, decay="linear", final_lr_fraction=0.02
        ),
        "training": TrainingConfig(steps=3000, evaluate_every=1000, save_every=500),
        "fabric": FabricConfig(precision="32-true"),
    },
    "clone": {
        "model": AgentConfig(head_width=128, prediction_length=4),
        "objective": CloningObjectiveConfig(start_frame_fraction=0.1, bootstrap_fraction=0.25),
        "batches": BatchesConfig(batch_size=8, length=20),
        "relevant_before": 64,
        "optimizer": OptimizerConfig(name="muon", lr=1e-3, warmup_steps=50, final_lr_fraction=0.02),
        "training": TrainingConfig(steps=300, evaluate_every=100, save_every=100),
        "fabric": FabricConfig(precision="32-true"),
    },
    "imagine": {
        # The discount follows from the episodes, 0.97 in the demo's: with 0.997 a step towards the goal is worth less there than
        # the critic's noise, whose sign is all that PMPO sees, and one agent in three learned to wait for a value that never
        # came (docs/results.md).
        "imagination": ImaginationConfig(horizon=12, updates_per_rollout=8),
        "batches": BatchesConfig(batch_size=32, length=8),
        # In float32: without gradients autocast would cast the frozen weights anew for every product.
        "optimizer": OptimizerConfig(lr=2e-3, warmup_steps=10, final_lr_fraction=0.1),
        "training": TrainingConfig(steps=150, evaluate_every=50, save_every=50, log_every=10),
    },
}

SMALL: Preset = {
    "tokenizer": {
        "model": TokenizerConfig(
            width=256,
            encoder_depth=8,
            decoder_depth=8,
            num_heads=4,
            num_kv_heads=4,
            bottleneck_tokens=32,
            context_length=32,
        ),
        "batches": BatchesConfig(batch_size=32, length=16, num_workers=4),
        "optimizer": OptimizerConfig(lr=5e-4, warmup_steps=1000),
        "training": TrainingConfig(steps=100_000, evaluate_every=2000, save_every=2000),
        "fabric": FabricConfig(precision="auto"),
    },
    "dynamics": {
        "model": DynamicsConfig(width=384, depth=12, num_heads=6, num_kv_heads=2, context_length=32),
        "batches": BatchesConfig(
            batch_size=32, length=16, long_batch_size=8, long_length=64, long_probability=0.2, num_workers=4
        ),
        "optimizer": OptimizerConfig(lr=5e-4, warmup_steps=1000),
        "training": TrainingConfig(steps=200_000, evaluate_every=2000, save_every=2000),
        "fabric": FabricConfig(precision="auto"),
    },
    "clone": {
        "model": AgentConfig(head_width=512),
        "batches": BatchesConfig(batch_size=16, length=64, num_workers=4),
        "optimizer": OptimizerConfig(lr=3e-4, warmup_steps=500),
        "training": TrainingConfig(steps=50_000, evaluate_every=2000, save_every=2000),
        "fabric": FabricConfig(precision="auto"),
    },
    "imagine": {
        "imagination": ImaginationConfig(),
        "batches": BatchesConfig(batch_size=64, length=16, num_workers=4),
        "optimizer": OptimizerConfig(lr=1e-4, warmup_steps=100),
        "training": TrainingConfig(steps=10_000),
    },
}

BASE: Preset = {
    "tokenizer": {
        "model": TokenizerConfig(
            width=512,
            encoder_depth=8,
            decoder_depth=8,
            num_heads=8,
            num_kv_heads=8,
            bottleneck_tokens=64,
            context_length=64,
        ),
        "batches": BatchesConfig(batch_size=64, length=16, accumulate=2, num_workers=8),
        "optimizer": OptimizerConfig(lr=3e-4, warmup_steps=2000),
        "training": TrainingConfig(steps=200_000, evaluate_every=5000, save_every=5000),
        "fabric": FabricConfig(precision="auto"),
    },
    "dynamics": {
        "model": DynamicsConfig(
            width=768, depth=16, num_heads=12, num_kv_heads=4, num_registers=8, context_length=64
        ),
        "batches": BatchesConfig(
            batch_size=64,
            length=32,
            long_batch_size=16,
            long_length=128,
            long_probability=0.2,
            accumulate=2,
            num_workers=8,
        ),
        "optimizer": OptimizerConfig(lr=3e-4, warmup_steps=2000),
        "training": TrainingConfig(steps=300_000, evaluate_every=5000, save_every=5000),
        "fabric": FabricConfig(precision="auto"),
    },
    "clone": {
        "model": AgentConfig(head_width=768),
        "batches": BatchesConfig(batch_size=16, length=128, accumulate=4, num_workers=8),
        "optimizer": OptimizerConfig(lr=1e-4, warmup_steps=1000),
        "training": TrainingConfig(steps=50_000, evaluate_every=5000, save_every=5000),
        "fabric": FabricConfig(precision="auto"),
    },
    "imagine": {
        "imagination": ImaginationConfig(horizon=32),
        "batches": BatchesConfig(batch_size=64, length=32, num_workers=4),
        "optimizer": OptimizerConfig(lr=1e-4, warmup_steps=100),
        "training": TrainingConfig(steps=10_000),
    },
}

PAPER: Preset = {
    "tokenizer": {
        "model": TokenizerConfig(
            frame_size=(384, 640),  # 360 x 640, zero-padded by `prepare --size 384 640 --mode pad`
            patch_size=16,
            width=1024,
            encoder_depth=16,
            decoder_depth=16,
            num_heads=16,
            num_kv_heads=16,
            bottleneck_tokens=512,
            bottleneck_channels=16,
            latents_per_token=2,
            context_length=192,
        ),
        "objective": TokenizerObjectiveConfig(lpips_net="vgg", lpips_fraction=0.25),
        "batches": BatchesConfig(
            batch_size=64,
            length=16,
            long_batch_size=16,
            long_length=64,
            long_probability=0.1,
            accumulate=2,
            num_workers=8,
        ),
        "optimizer": OptimizerConfig(lr=1e-4, warmup_steps=5000),
        "training": TrainingConfig(
            steps=500_000, evaluate_every=10_000, save_every=5000, checkpointing="layers"
        ),
        "fabric": FabricConfig(devices=8, strategy="fsdp", precision="auto"),
    },
    "dynamics": {
        "model": DynamicsConfig(
            latent_shape=(256, 32),
            width=2048,
            depth=36,
            num_heads=16,
            num_kv_heads=4,
            num_registers=32,
            context_length=192,
        ),
        "batches": BatchesConfig(
            batch_size=128,
            length=64,
            long_batch_size=32,
            long_length=256,
            long_probability=0.1,
            accumulate=4,
            num_workers=8,
        ),
        "optimizer": OptimizerConfig(lr=1e-4, warmup_steps=5000),
        "training": TrainingConfig(
            steps=500_000, evaluate_every=10_000, save_every=5000, checkpointing="layers"
        ),
        "fabric": FabricConfig(devices=8, strategy="fsdp", precision="auto"),
    },
    "clone": {
        "model": AgentConfig(head_width=2048),
        "batches": BatchesConfig(batch_size=32, length=256, accumulate=4, num_workers=8),
        "optimizer": OptimizerConfig(lr=3e-5, warmup_steps=1000),
        "training": TrainingConfig(
            steps=50_000, evaluate_every=5000, save_every=5000, checkpointing="layers"
        ),
        "fabric": FabricConfig(devices=8, strategy="fsdp", precision="auto"),
    },
    "imagine": {
        "imagination": ImaginationConfig(horizon=64, discount=0.997),
        "batches": BatchesConfig(batch_size=64, length=192, num_workers=4),
        "optimizer": OptimizerConfig(lr=3e-5, warmup_steps=100),
        "training": TrainingConfig(steps=10_000),
    },
}

PRESETS: Mapping[str, Preset] = {"nano": NANO, "small": SMALL, "base": BASE, "paper": PAPER}


def presets_of(command: str) -> Mapping[str, Mapping[str, Any]]:
    """Preset -> field of the command's configuration -> value; empty for commands without presets."""
    if command == "profile generate":
        return {
            name: {"model": stages["dynamics"]["model"], "decoder": stages["tokenizer"]["model"]}
            for name, stages in PRESETS.items()
        }
    command = command.removeprefix("profile ")
    if command == "baseline":
        return BASELINES
    if not any(command in stages for stages in PRESETS.values()):
        return {}
    return {name: stages.get(command, {}) for name, stages in PRESETS.items()}


COLLECT: Mapping[str, OnlineConfig] = {
    # 5000 frames of the game at action repeat 2; 100 updates of 50 x 50 every 1000 frames.
    "v1": OnlineConfig(prefill=2500, train_ratio=500, pretrain=100, noise=0.3),
    # Updates of 16 x 50 every 16 steps; every 5 in the others.
    "v2-atari": OnlineConfig(prefill=50_000, train_ratio=50, pretrain=1),
    "v2-dmc": OnlineConfig(prefill=1000, train_ratio=160, pretrain=100),
    "v2-crafter": OnlineConfig(prefill=10_000, train_ratio=160, pretrain=1),
    # Learning begins with the first batch of 16 x 64.
    "v3-atari": OnlineConfig(prefill=1024, train_ratio=32),
    "v3-atari100k": OnlineConfig(prefill=1024, train_ratio=256),
    "v3-dmc": OnlineConfig(prefill=1024, train_ratio=256),
    "v3-crafter": OnlineConfig(prefill=1024, train_ratio=512),
}
"""What the released configurations play, for each suite of games they name; steps are the agent's, not the game's."""

V3_SUITES = {name: rssm_presets.PRESETS["v3-200m"] for name in COLLECT if name.startswith("v3")}
"""V3 by the suite, at the released code's default size."""


def _baseline(name: str, model: DreamerConfig) -> Mapping[str, Any]:
    """The released batches, what is played where a suite is named, and V-D4RL's lengths of training."""
    size, length = {"v1": (50, 50), "v2": (16, 50), "v3": (16, 64)}[model.world_model.generation]
    fields: dict[str, Any] = {"model": model, "batches": BatchesConfig(batch_size=size, length=length)}
    if name in COLLECT:
        fields["collect"] = COLLECT[name]
    if name == "v2-offline":
        fields |= {
            "batches": BatchesConfig(batch_size=64, length=50),
            # 25,001 were asked for, in hundreds.
            "training": TrainingConfig(steps=25_100, evaluate_every=1000, save_every=1000),
            "policy": PolicyConfig(steps=200_000),
        }
    return fields


BASELINES = {name: _baseline(name, model) for name, model in {**rssm_presets.PRESETS, **V3_SUITES}.items()}
"""Settings of Dreamer V1, V2 and V3 by name; docs/baselines.md says which are as released."""

DEFAULT_BASELINES: Mapping[str | None, str] = {"v1": "v1-atari", "v2": "v2-atari", "v3": "v3-12m"}
"""What --version alone stands for: the settings for games that end."""
