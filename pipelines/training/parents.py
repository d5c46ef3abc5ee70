"""Training on: a run that starts from the weights of another run or of a world, in its sizes (`--parent`, `--from`).

RUN stands for the average of its weights where it kept one (training.ema), RUN/raw for the weights themselves. Nothing of the
optimiser is taken: its moments begin at zero, and the schedule is that of the new run.
"""

from pathlib import Path
from typing import TypeVar

from torch import nn

from reverie.agent.model import Agent, AgentConfig
from reverie.data.errors import UserError
from reverie.dynamics.model import Dynamics, DynamicsConfig
from reverie.pipelines.runs.run import RunFolder, read_provenance
from reverie.pipelines.training.checkpoints import (
    load_agent,
    load_dynamics,
    load_tokenizer,
    read_card,
    weights_sha256,
)
from reverie.tokenizer.model import Tokenizer, TokenizerConfig

ModelT = TypeVar("ModelT", bound=nn.Module)
_ACTIONS = "action_embedding."
"""Before the names of weights that belong to the actions alone."""
_WORLD_MODEL = "dynamics."
"""Before the names of an agent's weights that are its world model's."""
_IMPROVED = ("policy.", "value_head.")
"""Before the names of what imagination trains."""


def tokenizer_config(parent: Path, frame_size: tuple[int, int]) -> TokenizerConfig:
    """The sizes of the tokenizer at `parent`. Raises `UserError` unless it is for frames of `frame_size`."""
    found = load_tokenizer(parent).config
    if tuple(found.frame_size) != tuple(frame_size):
        raise UserError(
            f"--parent {parent}: is for frames of {tuple(found.frame_size)}, but the data has {tuple(frame_size)}; prepare it "
            f"with --size {found.frame_size[0]}x{found.frame_size[1]}."
        )
    return found


def dynamics_config(
    parent: Path, tokenizer_sha256: str | None, tokenizer: Path | None = None
) -> DynamicsConfig:
    """The sizes of the world model at `parent`.

    Raises `UserError` unless it is for latents of that tokenizer, or of the one that `tokenizer` was trained on from.
    """
    known = read_card(parent, "dynamics").tokenizer_sha256
    if known != tokenizer_sha256 and (tokenizer is None or known != _trained_on_from(tokenizer)):
        raise UserError(
            f"--parent {parent}: was trained with tokenizer {(known or 'none')[:12]}, but the latents come from "
            f"{(tokenizer_sha256 or 'none')[:12]}; encode the data with its tokenizer, or give --tokenizer RUN if that was "
            f"trained on from it."
        )
    return load_dynamics(parent).config


def _trained_on_from(run: Path) -> str | None:
    """Hash of the weights that a run started from; None for random ones."""
    file = RunFolder(run if run.exists() else run.parent).provenance
    inputs = read_provenance(file)["identity"]["inputs"] if file.is_file() else {}
    return str(inputs["parent"]) if "parent" in inputs else None


def agent_config(parent: Path) -> AgentConfig:
    """The sizes of the heads of the agent at `parent`."""
    read_card(parent, "agent")
    return load_agent(parent).config


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


def start_clone(agent: Agent, parent: Path | None) -> Agent:
    """`agent` with heads and task embedding of `parent`, if there is one; its world model is the one that it was given."""
    if parent is not None:
        former = load_agent(parent)
        _require_alike(agent, former, parent)
        weights = former.state_dict()
        agent.load_state_dict(
            {n: x for n, x in weights.items() if not n.startswith(_WORLD_MODEL)}, strict=False
        )
    return agent


def start_imagine(agent: Agent, parent: Path | None) -> Agent:
    """`agent` with the policy and the value head of `parent`, if there is one; its prior and all else are its own."""
    if parent is not None:
        former = load_agent(parent)
        _require_alike(agent, former, parent)
        weights = former.state_dict()
        agent.load_state_dict({n: x for n, x in weights.items() if n.startswith(_IMPROVED)}, strict=False)
    return agent


def _require_alike(agent: Agent, former: Agent, parent: Path) -> None:
    """Raises `UserError` where the heads of one do not fit the other."""
    sides = {
        "the tasks": (list(former.tasks), list(agent.tasks)),
        "the actions": (
            list(former.dynamics.action_space.components),
            list(agent.dynamics.action_space.components),
        ),
        "width": (former.dynamics.config.width, agent.dynamics.config.width),
        "head_width": (former.config.head_width, agent.config.head_width),
        "prediction_length": (former.config.prediction_length, agent.config.prediction_length),
    }
    for name, (theirs, ours) in sides.items():
        if theirs != ours:
            raise UserError(f"--parent {parent}: has {name} {theirs}, not {ours}; give a run of the same.")
    if former.dynamics.action_space != agent.dynamics.action_space:
        raise UserError(f"--parent {parent}: its actions have other sizes; give a run of the same game.")


def parent_input(parent: Path | None) -> dict[str, str]:
    """What a run is identified by, so that it is not continued from another parent."""
    return {} if parent is None else {"parent": weights_sha256(parent)}


def _start(model: ModelT, former: nn.Module, anew: str | None = None) -> ModelT:
    weights = {n: x for n, x in former.state_dict().items() if anew is None or not n.startswith(anew)}
    model.load_state_dict(weights, strict=anew is None)
    return model
