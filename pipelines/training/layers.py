"""Transformer layers (and the baselines' recurrence) as a run wants them: compiled, computed anew backward, or as they are.

Layers stay the modules that they were, with the same names in checkpoints; only the two methods by which they are entered change.
All layers of a model share the code that is compiled. A run may go on with other choices than it began with.
"""

from collections.abc import Callable, Iterator
from functools import wraps
from types import MethodType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from reverie.data.errors import UserError
from reverie.dynamics.model import Dynamics
from reverie.nn.compilation import Compile, compiled, use_compile
from reverie.nn.transformer import Layer
from reverie.rssm.compiling import compile_steps
from reverie.rssm.model import DreamerObjective
from reverie.tokenizer.model import Tokenizer

Checkpointing = Literal["none", "layers"]
"""layers: of each layer only the input is kept, the rest is computed once more in the backward pass."""

WORK_THAT_PAYS = 6e13
"""FLOPs of a run from which compiling pays on a CPU: 20 minutes of one core at 50 GFLOP/s, of which a fifth is saved, while
compiling takes half a minute to two."""


def prepare_layers(
    objective: nn.Module,
    device: torch.device,
    *,
    compile: Compile,
    checkpointing: Checkpointing,
    frames: float,
    backend: str = "inductor",
) -> None:
    """Makes the transformer layers of `objective` run as chosen; before it is sharded.

    Args:
      frames: that one process trains on in the whole run, by which `auto` decides on a CPU.
      backend: of torch.compile.

    Raises:
      UserError: compilation is insisted on where it cannot be had, or there are no such layers.
    """
    if isinstance(objective, DreamerObjective):
        return _prepare_recurrence(objective, device, compile, checkpointing, backend)
    layers = [module for module in objective.modules() if isinstance(module, Layer)]
    if not layers:
        return refuse_layers(compile, checkpointing)
    pays = device.type == "cuda" or work_per_frame(objective) * frames >= WORK_THAT_PAYS
    compiles = use_compile(compile, device, pays=pays)
    for name in ("space", "time"):
        method: Callable[..., Tensor] = getattr(Layer, name)
        if compiles:
            method = compiled(method, f"layers over {name}", required=compile == "on", backend=backend)
        if checkpointing == "layers":
            method = _checkpointed(method)
        if method is not getattr(Layer, name):
            for layer in layers:
                setattr(layer, name, MethodType(method, layer))


def _prepare_recurrence(
    objective: DreamerObjective,
    device: torch.device,
    compile: Compile,
    checkpointing: Checkpointing,
    backend: str,
) -> None:
    """The steps of a baseline's recurrence, compiled. On a CPU that saves a twentieth at most, which `auto` leaves."""
    refuse_layers("off", checkpointing)
    if use_compile(compile, device, pays=device.type == "cuda"):
        compile_steps(objective.model, required=compile == "on", backend=backend)


def refuse_layers(compile: Compile, checkpointing: Checkpointing) -> None:
    """For stages without transformer layers to train. Raises `UserError` where something is insisted on."""
    if compile == "on":
        raise UserError("--training.compile on: this stage trains no transformer layers; leave it out.")
    if checkpointing != "none":
        raise UserError(
            f"--training.checkpointing {checkpointing}: this stage trains no transformer layers; leave it out."
        )


def work_per_frame(objective: nn.Module) -> float:
    """FLOPs of the matrix products of the layers for one frame, forward and backward; attention left out."""
    return 6.0 * sum(tokens * _layer_parameters(model) for model, tokens in _models(objective))


def step_elements(objective: nn.Module, frames: float) -> int | None:
    """Numbers of one activation for `frames` frames; None where no transformer is trained."""
    sizes = [
        model.config.frame_elements
        for model in objective.modules()
        if isinstance(model, Tokenizer | Dynamics)
    ]
    return round(max(sizes) * frames) if sizes else None


def _models(objective: nn.Module) -> Iterator[tuple[nn.Module, int]]:
    for module in objective.modules():
        if isinstance(module, Tokenizer):
            yield module, module.config.num_patches + module.config.bottleneck_tokens
        elif isinstance(module, Dynamics):
            yield module, module.config.num_world_tokens


def _layer_parameters(model: nn.Module) -> int:
    layers = (module for module in model.modules() if isinstance(module, Layer))
    return sum(p.numel() for layer in layers for p in layer.parameters())


def _checkpointed(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @wraps(method)
    def run(*args: Any) -> Tensor:
        if not torch.is_grad_enabled():
            return method(*args)
        # Layers draw nothing, so that no generator's state need be kept.
        result = checkpoint(method, *args, use_reentrant=False, preserve_rng_state=False)
        assert isinstance(result, Tensor)
        return result

    return run
