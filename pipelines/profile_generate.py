"""`reverie profile generate`: what a generated and decoded frame costs, by models of any size or those of run folders."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from reverie.data.actions import ActionSpace
from reverie.data.errors import UserError
from reverie.dynamics.fast_frame import use_fast
from reverie.dynamics.frame import Step
from reverie.dynamics.generation import Continuation
from reverie.dynamics.model import Dynamics, DynamicsConfig
from reverie.nn.cache import FRAMES_PER_PASS
from reverie.nn.compilation import Compile
from reverie.nn.precision import bfloat16, in_bfloat16
from reverie.pipelines.info import MINECRAFT
from reverie.pipelines.profile import ProfileConfig
from reverie.pipelines.stopwatch import Measured, Stopwatch, report
from reverie.pipelines.training.checkpoints import load_dynamics, load_tokenizer
from reverie.pipelines.training.devices import pick_device
from reverie.pipelines.training.flops import count_flops
from reverie.pipelines.training.pace import Gauge, StepCost, products
from reverie.pipelines.training.parts import end_step, part, watched
from reverie.pipelines.worlds.places import take_worlds
from reverie.tokenizer.model import Tokenizer, TokenizerConfig
from reverie.tokenizer.streaming import decode_next, warm_decoder


@dataclass(frozen=True, kw_only=True)
class GenerateProfile:
    """Measures generation frame by frame, with a full context, by untrained models of a preset or by run folders."""

    dynamics: Path | None = None
    """Run folder of the world model; null takes `model` with random weights, which are as fast."""
    tokenizer: Path | None = None
    """Run folder of the tokenizer; null takes `decoder` with random weights."""
    model: DynamicsConfig = field(default_factory=DynamicsConfig)
    """Sizes of the world model; latent_shape is taken from the tokenizer."""
    decoder: TokenizerConfig = field(default_factory=TokenizerConfig)
    """Sizes of the tokenizer."""
    context: int | None = None
    """Frames that a frame sees, itself included, all of them past; null as the model has it."""
    batch_size: int = 1
    """Videos at once."""
    sampling_steps: int = 4
    """Shortcut steps K per frame."""
    decode: bool = True
    """Decode the frames, too."""
    compile: Compile = "auto"
    """Make frames by compiled functions: auto (on GPUs), on or off."""
    precision: Literal["auto", "32-true", "bf16-mixed"] = "32-true"
    """Arithmetic; auto: bf16-mixed on GPUs that multiply it in hardware, 32-true elsewhere."""
    device: str = "auto"
    """Device: auto, cpu, cuda or mps."""
    profile: ProfileConfig = field(default_factory=ProfileConfig)
    """How much is measured; a step is a frame of each video."""

    def __post_init__(self) -> None:
        take_worlds(self, tokenizer="tokenizer", dynamics="dynamics")
        if self.batch_size < 1 or (self.context is not None and self.context < 2):
            raise ValueError(
                f"batch_size must be at least 1 and context at least 2, got {self.batch_size} and {self.context}"
            )
        k = self.sampling_steps
        if k < 1 or k & (k - 1) or k > self.model.max_sampling_steps:
            raise ValueError(
                f"sampling_steps must be a power of two from 1 to {self.model.max_sampling_steps}, got {k}"
            )
        if self.dynamics is not None and self.context is not None:
            raise UserError("--context: a trained model has the context it was trained with; leave it out.")
        if self.tokenizer is None and self.dynamics is not None and self.decode:
            raise UserError(
                "--tokenizer: give the run folder that decodes what --dynamics makes, or --decode false."
            )


def profile_generate(config: GenerateProfile) -> None:
    """Prints what a generated frame costs."""
    watch = measure_generate(config)
    title = f"profile of generate: K = {config.sampling_steps}, {config.batch_size} videos"
    print("\n".join(report(title, watch)))


def measure_generate(config: GenerateProfile) -> Stopwatch:
    """Generates until enough was seen."""
    device = pick_device(config.device)
    watch = Stopwatch(config.profile.warmup, config.profile.steps, config.profile.trace)
    fast = bfloat16(device, in_bfloat16(config.precision, device))
    with torch.no_grad(), fast, suppress(Measured):
        video = open_video(config, device)
        video.frame()  # the first frame has none before it
        cost = video.cost()
        gauge = Gauge(device=device, dtype=products(device, config.precision))
        with watched(watch):
            while True:
                video.frame()
                end_step(cost, gauge)
    return watch


@dataclass
class OpenVideo:
    """Videos with a full context that go on frame by frame."""

    dynamics: Dynamics
    continuation: Continuation
    step: Step
    decode: Callable[[Tensor], object]
    sampling_steps: int

    def frame(self) -> None:
        """The next frame of each video."""
        with part("denoise"):
            latents = self.continuation.next(self.step)
        with part("decode"):
            self.decode(latents)

    def cost(self) -> StepCost:
        """What a frame of each video works on; makes one."""
        b = self.step.action_mask.shape[0]
        tokens = b * self.sampling_steps * self.dynamics.config.num_world_tokens
        return StepCost(b, tokens, count_flops(self.frame))


def open_video(config: GenerateProfile, device: torch.device) -> OpenVideo:
    """Models and caches, full of past frames; to be called without gradients and in the wanted precision."""
    tokenizer = _tokenizer(config).to(device).eval()
    dynamics = _dynamics(config, tokenizer).to(device).eval()
    fast = use_fast(config.compile, device, None)
    b, context = config.batch_size, dynamics.config.context_length
    past = torch.rand(b, context, *dynamics.config.latent_shape, device=device) * 2 - 1
    continuation = Continuation(
        dynamics,
        past,
        _null_actions(dynamics.action_space, b, context, device),
        sampling_steps=config.sampling_steps,
        frames_per_pass=max(FRAMES_PER_PASS, b),
        fast=fast,
    )
    decode: Callable[[Tensor], object] = lambda latents: None  # noqa: E731
    if config.decode:
        seen = warm_decoder(tokenizer, past)
        decode = lambda latents: decode_next(tokenizer, latents, seen, fast=fast)  # noqa: E731
    step = _null_actions(dynamics.action_space, b, 1, device)
    return OpenVideo(dynamics, continuation, step, decode, config.sampling_steps)


def _tokenizer(config: GenerateProfile) -> Tokenizer:
    return Tokenizer(config.decoder) if config.tokenizer is None else load_tokenizer(config.tokenizer)


def _dynamics(config: GenerateProfile, tokenizer: Tokenizer) -> Dynamics:
    if config.dynamics is not None:
        found = load_dynamics(config.dynamics)
        if config.decode and found.config.latent_shape != tokenizer.config.latent_shape:
            raise UserError(
                f"{config.tokenizer}: has latents of {tokenizer.config.latent_shape}, but {config.dynamics} makes "
                f"{found.config.latent_shape}; give matching ones."
            )
        return found
    context = config.model.context_length if config.context is None else config.context
    model = replace(config.model, latent_shape=tokenizer.config.latent_shape, context_length=context)
    return Dynamics(model, MINECRAFT)


def _null_actions(space: ActionSpace, b: int, t: int, device: torch.device) -> Step:
    """Known actions, all of them null."""
    return Step(space.null(b, t), torch.ones(b, t, dtype=torch.bool)).to(device)
