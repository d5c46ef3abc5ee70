"""This project's loops. Imports only what older checkouts have, too: `--against` runs this file on their code."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from benchmarks.loops import CannotRun, Loop, Place
from benchmarks.sizes import Row, Sizes
from reverie.agent.imagination import ImaginationConfig, ImaginationObjective, imagine
from reverie.agent.model import Agent, AgentConfig
from reverie.data.actions import ActionSpace, Categorical
from reverie.data.batch import Batch
from reverie.dynamics.generation import Continuation, Step
from reverie.dynamics.model import Dynamics, DynamicsConfig
from reverie.dynamics.objective import DynamicsObjective, DynamicsObjectiveConfig
from reverie.rssm.model import Dreamer, DreamerObjective
from reverie.rssm.optimizers import make_optimizer, set_learning_rates
from reverie.rssm.presets import preset
from reverie.tokenizer.model import Tokenizer, TokenizerConfig
from reverie.tokenizer.objective import TokenizerObjective, TokenizerObjectiveConfig
from reverie.tokenizer.streaming import warm_decoder


def open_row(row: Row, sizes: Sizes, place: Place) -> Loop:
    """The loop of a row. Raises `CannotRun` for a row that this code has not."""
    makers: dict[str, Callable[[Row, Sizes, Place], Loop]] = {
        "tokenizer": _tokenizer_step,
        "dynamics": _dynamics_step,
        "generation": _frame,
        "imagination": _imagination,
        "rssm": _rssm_step,
    }
    if row.kind not in makers:
        raise CannotRun(f"there is no {row.kind}")
    return makers[row.kind](row, sizes, place)


def tokenizer_config(sizes: Sizes, **others: Any) -> TokenizerConfig:
    """Of the compared sizes."""
    own = {
        "frame_size": (sizes.frame_size, sizes.frame_size),
        "patch_size": sizes.patch_size,
        "encoder_depth": sizes.tokenizer_depth,
        "decoder_depth": sizes.tokenizer_depth,
        "num_kv_heads": sizes.num_heads,
        "bottleneck_tokens": sizes.latents,
        "bottleneck_channels": sizes.channels,
    }
    return TokenizerConfig(**{**_shared(sizes), **own, **others})


def dynamics_config(sizes: Sizes, **others: Any) -> DynamicsConfig:
    """Of the compared sizes."""
    own = {
        "latent_shape": (sizes.latents, sizes.channels),
        "depth": sizes.dynamics_depth,
        "num_kv_heads": sizes.num_kv_heads,
        "num_registers": sizes.num_registers,
    }
    return DynamicsConfig(**{**_shared(sizes), **own, **others})


def _shared(sizes: Sizes) -> dict[str, Any]:
    return {"width": sizes.width, "num_heads": sizes.num_heads, "context_length": sizes.context}


def random_batch(sizes: Sizes, b: int, t: int, frames: bool) -> Batch:
    """(B, T) frames or latents with one action, of one segment a row."""
    size, known = sizes.frame_size, torch.ones(b, t, dtype=torch.bool)
    zeros = torch.zeros(b, t, dtype=torch.int64)
    return Batch(
        frames=torch.randint(0, 256, (b, t, size, size, 3), dtype=torch.uint8) if frames else None,
        latents=None if frames else torch.rand(b, t, sizes.latents, sizes.channels) * 2 - 1,
        actions={"action": torch.randint(0, sizes.actions, (b, t))},
        action_mask=known,
        reward=torch.randn(b, t),
        reward_mask=known,
        is_first=~known,
        is_last=~known,
        is_terminal=~known,
        task=zeros,
        segment=zeros,
        relevant=~known[:, 0],
        key=[""] * b,
    )


def _space(sizes: Sizes) -> ActionSpace:
    return ActionSpace({"action": Categorical(sizes.actions)})


def _training_step(objective: torch.nn.Module, batch: Batch, place: Place) -> Loop:
    """As the training loop runs it."""
    return _step(objective, batch, place, partial(_products, objective, place))


def _step(
    objective: torch.nn.Module,
    batch: Batch,
    place: Place,
    products: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Loop:
    objective, batch = objective.to(place.device), batch.to(place.device)
    if place.compiled:
        _compile_layers(objective, place)
    optimizer = torch.optim.AdamW(objective.parameters(), 1e-4, fused=True)

    def step() -> None:
        with products():
            with place.autocast():
                loss, _ = objective(batch)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return step


def _products(objective: torch.nn.Module, place: Place) -> AbstractContextManager[None]:
    """The library for float32 products that the training loop takes."""
    try:
        from reverie.nn.onednn import onednn_products
    except ImportError:  # older code
        return nullcontext()
    return onednn_products(objective, place.device)


def _compile_layers(objective: torch.nn.Module, place: Place) -> None:
    try:
        from reverie.pipelines.training.layers import prepare_layers
    except ImportError:
        raise CannotRun("compiles nothing") from None
    prepare_layers(objective, place.device, compile="on", checkpointing="none", frames=0)


def _tokenizer_step(row: Row, sizes: Sizes, place: Place) -> Loop:
    config = TokenizerObjectiveConfig(lpips_weight=0)
    objective = TokenizerObjective(Tokenizer(tokenizer_config(sizes)), config, None)
    return _training_step(objective, random_batch(sizes, sizes.batch, sizes.length, frames=True), place)


def _dynamics_step(row: Row, sizes: Sizes, place: Place) -> Loop:
    objective = DynamicsObjective(Dynamics(dynamics_config(sizes), _space(sizes)), DynamicsObjectiveConfig())
    return _training_step(objective, random_batch(sizes, sizes.batch, sizes.length, frames=False), place)


def _frame(row: Row, sizes: Sizes, place: Place) -> Loop:
    """One generated and decoded frame of each video, with a full context."""
    b, c = row.videos, row.context
    dynamics = Dynamics(dynamics_config(sizes, context_length=c), _space(sizes)).eval().to(place.device)
    tokenizer = Tokenizer(tokenizer_config(sizes, context_length=c)).eval().to(place.device)
    past = (torch.rand(b, c, sizes.latents, sizes.channels) * 2 - 1).to(place.device)
    fast = {"fast": True} if place.compiled else {}
    with place.autocast():
        actions, k = _actions(b, c, place), sizes.sampling_steps
        video = Continuation(dynamics, past, actions, sampling_steps=k, frames_per_pass=max(512, b), **fast)
        seen, step = warm_decoder(tokenizer, past), _actions(b, 1, place)
    decode = _decode(tokenizer, seen, place)

    @torch.no_grad()
    def frame() -> None:
        with place.autocast():
            decode(video.next(step))

    return frame


def _decode(tokenizer: Tokenizer, seen: object, place: Place) -> Callable[[torch.Tensor], object]:
    if not place.compiled:
        return partial(tokenizer.decode, cache=seen)
    from reverie.tokenizer.streaming import decode_next  # older code has no compiled frames

    return lambda latents: decode_next(tokenizer, latents, seen, fast=True)


def _actions(b: int, t: int, place: Place) -> Step:
    step = Step({"action": torch.zeros(b, t, dtype=torch.int64)}, torch.ones(b, t, dtype=torch.bool))
    return step.to(place.device)


def _imagination(row: Row, sizes: Sizes, place: Place) -> Loop:
    """Rollouts of 16 contexts and one update of policy and values."""
    agent = Agent(Dynamics(dynamics_config(sizes), _space(sizes)), AgentConfig(), ["task"])
    config = ImaginationConfig(horizon=8, sampling_steps=sizes.sampling_steps)
    objective = ImaginationObjective(agent, config).to(place.device)
    context = random_batch(sizes, 16, 8, frames=False).to(place.device)
    optimizer = torch.optim.AdamW(objective.trainable_parameters(), 1e-4, fused=True)
    fast = {"fast": True} if place.compiled else {}

    def step() -> None:
        with place.autocast():
            loss, _ = objective(context, imagine(agent, context, config, **fast))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def _rssm_step(row: Row, sizes: Sizes, place: Place) -> Loop:
    """World model, actor and critic; horizon 15."""
    config = preset(row.preset)
    # No burn-in: all frames count.
    config = replace(config, world_model=replace(config.world_model, burn_in=0))
    model = Dreamer(config, (64, 64, 3), _space(sizes)).to(place.device)
    objective, optimizer = DreamerObjective(model), make_optimizer(model, config.optimizer)
    if place.compiled:
        _compile_layers(objective, place)
    batch = random_batch(replace(sizes, frame_size=64), 4, 16, frames=True).to(place.device)
    numbers = _count()

    def step() -> None:
        set_learning_rates(optimizer, config.optimizer, next(numbers))
        with place.autocast():
            loss, _ = objective(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def _count() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1
