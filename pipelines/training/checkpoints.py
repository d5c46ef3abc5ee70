"""Checkpoint folders: complete or absent, free of pickles, and enough to build the model again.

RUN/checkpoints/latest                                text: the name of the newest complete folder
RUN/checkpoints/000050000/config.json                 `Card`: what the model is
                          model.safetensors           its weights
                          training_state/             what only an exact resume needs:
                              optimizer.safetensors   moments
                              objective.safetensors   loss normalisers and the like
                              state.json              step, loader positions, optimiser settings
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from reverie.agent.model import Agent, AgentConfig
from reverie.data.actions import ActionSpace
from reverie.data.errors import UserError
from reverie.data.files.durable import explain_full_disk
from reverie.dynamics.model import Dynamics, DynamicsConfig
from reverie.pipelines.runs.atomic import new_folder, remove_folder, write_json, write_text
from reverie.pipelines.runs.configs import from_plain, to_plain
from reverie.pipelines.runs.run import file_sha256
from reverie.rssm.config import DreamerConfig
from reverie.rssm.model import Dreamer
from reverie.tokenizer.model import Tokenizer, TokenizerConfig

FORMAT = 1
LATEST = "latest"
WEIGHTS = "model.safetensors"


@dataclass(frozen=True, kw_only=True)
class Card:
    """config.json: everything but the weights that is needed to build and to use a model.

    `kind` is tokenizer, dynamics, agent or baseline; `model` holds the fields of that kind's configuration. `dynamics` (of
    an agent), `action_space`, `tasks` and `tokenizer_sha256` are None where they do not apply. A baseline plays for one
    task, or for the recorded rewards if its `tasks` are empty.
    """

    kind: str
    model: dict[str, Any]
    fps: float | None = None
    frame_size: list[int] | None = None
    dynamics: dict[str, Any] | None = None
    action_space: dict[str, Any] | None = None
    tasks: list[str] | None = None
    tokenizer_sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One moment of a training run."""

    step: int
    card: Card
    weights: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor] = field(default_factory=dict)
    objective: Mapping[str, Tensor] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)


def save_checkpoint(checkpoints: Path, snapshot: Snapshot, keep: int) -> Path:
    """Writes `snapshot` completely, then names it in `latest`, then deletes all but the newest `keep` folders."""
    path = checkpoints / f"{snapshot.step:09d}"
    with explain_full_disk(checkpoints), new_folder(path) as partial:
        write_json(partial / "config.json", {"format": FORMAT, **to_plain(snapshot.card)})
        _save_tensors(partial / WEIGHTS, snapshot.weights)
        (partial / "training_state").mkdir()
        _save_tensors(partial / "training_state" / "optimizer.safetensors", snapshot.optimizer)
        _save_tensors(partial / "training_state" / "objective.safetensors", snapshot.objective)
        write_json(partial / "training_state" / "state.json", {"step": snapshot.step, **snapshot.state})
    write_text(checkpoints / LATEST, path.name + "\n")
    for old in sorted(checkpoints.glob("[0-9]*"))[: -max(keep, 1)]:
        if old != path:
            remove_folder(old)
    return path


def latest_checkpoint(checkpoints: Path) -> Path | None:
    """The folder that `latest` names, or None before the first one."""
    pointer = checkpoints / LATEST
    return checkpoints / pointer.read_text().strip() if pointer.is_file() else None


def find_checkpoint(path: Path) -> Path:
    """The checkpoint folder meant by `path`: itself, or the latest one of a run folder.

    Raises `UserError` when there is none.
    """
    if not path.exists():
        raise UserError(f"{path}: no such run folder; train that stage first or correct the path.")
    found = path if (path / WEIGHTS).is_file() else latest_checkpoint(path / "checkpoints")
    if found is None or not (found / WEIGHTS).is_file():
        raise UserError(f"{path}: holds no complete checkpoint; let its training reach the first save.")
    return found


def read_card(path: Path) -> Card:
    """The card of a run or checkpoint folder. Raises `UserError` when it cannot be read."""
    file = find_checkpoint(path) / "config.json"
    try:
        data = json.loads(file.read_text())
        found = data.pop("format")
        if found != FORMAT:
            raise UserError(f"{file}: has format {found}, this version reads {FORMAT}; train again with it.")
        return Card(**data)
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{file}: is not a model card ({error}); use an undamaged checkpoint.") from None


def read_snapshot(path: Path) -> Snapshot:
    """Everything in a checkpoint folder, on the CPU."""
    folder = find_checkpoint(path)
    state = json.loads((folder / "training_state" / "state.json").read_text())
    return Snapshot(
        step=state.pop("step"),
        card=read_card(folder),
        weights=_load_tensors(folder / WEIGHTS),
        optimizer=_load_tensors(folder / "training_state" / "optimizer.safetensors"),
        objective=_load_tensors(folder / "training_state" / "objective.safetensors"),
        state=state,
    )


def weights_sha256(path: Path) -> str:
    """Identity of a model: the hash of its weights file. `path` is a run or checkpoint folder."""
    return file_sha256(find_checkpoint(path) / WEIGHTS)


def load_tokenizer(path: Path, device: torch.device | str = "cpu") -> Tokenizer:
    """The frozen tokenizer of a run or checkpoint folder, in evaluation mode."""
    card = _card_of_kind(path, "tokenizer")
    return _filled(Tokenizer(from_plain(TokenizerConfig, card.model)), path, device)


def load_dynamics(path: Path, device: torch.device | str = "cpu") -> Dynamics:
    """The frozen dynamics model of a run or checkpoint folder, in evaluation mode."""
    card = _card_of_kind(path, "dynamics")
    return _filled(build_dynamics(card.model, card), path, device)


def load_agent(path: Path, device: torch.device | str = "cpu") -> Agent:
    """The frozen agent (with its dynamics model) of a clone or imagine run, in evaluation mode."""
    card = _card_of_kind(path, "agent")
    assert card.dynamics is not None and card.tasks is not None
    agent = Agent(build_dynamics(card.dynamics, card), from_plain(AgentConfig, card.model), card.tasks)
    return _filled(agent, path, device)


def load_baseline(path: Path, device: torch.device | str = "cpu") -> Dreamer:
    """The frozen Dreamer V1, V2 or V3 of a baseline run, in evaluation mode."""
    return _filled(build_baseline(_card_of_kind(path, "baseline")), path, device)


def build_baseline(card: Card) -> Dreamer:
    """An untrained Dreamer as `card` describes it."""
    assert card.frame_size is not None
    height, width = card.frame_size
    space = ActionSpace.from_json(card.action_space or {}, "config.json")
    return Dreamer(from_plain(DreamerConfig, card.model), (height, width, 3), space)


def build_dynamics(model: Mapping[str, Any], card: Card) -> Dynamics:
    """An untrained dynamics model from plain configuration values and the action space of `card`."""
    return Dynamics(
        from_plain(DynamicsConfig, model), ActionSpace.from_json(card.action_space or {}, "config.json")
    )


def _card_of_kind(path: Path, kind: str) -> Card:
    card = read_card(path)
    if card.kind != kind:
        raise UserError(
            f"{path}: holds a model of kind {card.kind}, expected {kind}; give a run of that stage."
        )
    return card


def _filled(model: Any, path: Path, device: torch.device | str) -> Any:
    file = find_checkpoint(path) / WEIGHTS
    try:
        model.load_state_dict(_load_tensors(file))
    except RuntimeError:
        raise UserError(
            f"{file}: does not fit its config.json; use an undamaged checkpoint of this version of the code."
        ) from None
    frozen: nn.Module = model.to(device).eval().requires_grad_(False)
    return frozen


def _save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    # clone: safetensors refuses tensors that share memory.
    copies = {name: tensors[name].detach().cpu().clone().contiguous() for name in sorted(tensors)}
    try:
        save_file(copies, path)
    except SafetensorError as error:  # how safetensors words a full disk
        raise UserError(
            f"{path.parent}: the checkpoint cannot be written ({error}); "
            f"the former one is kept, make room and run this again."
        ) from None


def _load_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read ({error}); use an undamaged checkpoint.") from None
