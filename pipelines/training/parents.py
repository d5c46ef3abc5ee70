"""Finetuning: a training that starts from the weights of another run or of a world, in its sizes."""

from pathlib import Path
from typing import TypeVar

from torch import nn

from reverie.data.errors import UserError
from reverie.dynamics.model import Dynamics, DynamicsConfig
from reverie.pipelines.training.checkpoints import load_dynamics, load_tokenizer, read_card, weights_sha256
from reverie.tokenizer.model import Tokenizer, TokenizerConfig

ModelT = TypeVar("ModelT", bound=nn.Module)
_ACTIONS = "action_embedding."
"""Before the names of weights that belong to the actions alone."""


def tokenizer_config(parent: Path, frame_size: tuple[int, int]) -> TokenizerConfig:
    """The sizes of the tokenizer at `parent`. Raises `UserError` unless it is for frames of `frame_size`."""
    found = load_tokenizer(parent).config
    if tuple(found.frame_size) != tuple(frame_size):
        raise UserError(
            f"--parent {parent}: is for frames of {tuple(found.frame_size)}, but the data has {tuple(frame_size)}; prepare it "
            f"with --size {found.frame_size[0]}x{found.frame_size[1]}."
        )
    return found


def dynamics_config(parent: Path, tokenizer_sha256: str | None) -> DynamicsConfig:
    """The sizes of the world model at `parent`. Raises `UserError` unless it is for latents of that tokenizer."""
    known = read_card(parent, "dynamics").tokenizer_sha256
    if known != tokenizer_sha256:
        raise UserError(
            f"--parent {parent}: was trained with tokenizer {(known or 'none')[:12]}, but the latents come from "
            f"{(tokenizer_sha256 or 'none')[:12]}; encode the data with its tokenizer."
        )
    return load_dynamics(parent).config


def start_tokenizer(model: Tokenizer, parent: Path | None) -> Tokenizer:
    """`model` with the weights of `parent`, if there is one."""
    return model if parent is None else _start(model, load_tokenizer(parent))


def start_dynamics(model: Dynamics, parent: Path | None) -> Dynamics:
    """`model` with the weights of `parent`, if there is one; where it has other actions, their embedding begins anew."""
    if parent is None:
        return model
    former = load_dynamics(parent)
    if former.action_space != model.action_space:
        print(f"{parent}: has other actions; their embedding is learned anew.", flush=True)
        return _start(model, former, _ACTIONS)
    return _start(model, former)


def parent_input(parent: Path | None) -> dict[str, str]:
    """What a run is identified by, so that it is not continued from another parent."""
    return {} if parent is None else {"parent": weights_sha256(parent)}


def _start(model: ModelT, former: nn.Module, anew: str | None = None) -> ModelT:
    weights = {n: x for n, x in former.state_dict().items() if anew is None or not n.startswith(anew)}
    model.load_state_dict(weights, strict=anew is None)
    return model
