"""Checkpoint folders: complete or absent, free of pickles, and enough to build the model again.

RUN/checkpoints/latest                                text: the name of the newest complete folder
RUN/checkpoints/000050000/config.json                 `Card`: what the model is
                          model.safetensors           its weights, or with training.ema their average
                          checksums.json              of all other files, see `integrity`
                          training_state/             what only an exact resume needs:
                              optimizer.safetensors   moments
                              objective.safetensors   loss normalisers and the like
                              weights.safetensors     with training.ema: the weights themselves
                              state.json              step, loader positions, optimiser settings

Sharded over processes (FSDP), NAME.safetensors is several files and an index, see `stored`.

Wherever a run folder RUN is taken, RUN/raw means the weights themselves and RUN/ema insists on the average.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from reverie.agent.model import Agent, AgentConfig
from reverie.data.actions import ActionSpace
from reverie.data.errors import UserError
from reverie.dynamics.model import Dynamics, DynamicsConfig
from reverie.pipelines.runs.configs import to_plain
from reverie.pipelines.runs.reading import from_plain, parse_json, read_json
from reverie.pipelines.runs.run import FORMER_SOFTCAP
from reverie.pipelines.training.integrity import (
    CARD,
    RAW,
    WEIGHTS,
    has_raw,
    model_files,
    newest_whole,
    require_whole,
    sha256,
    tensor_files,
)
from reverie.pipelines.training.stored import StoredTensors
from reverie.pipelines.training.tensors import require_alike
from reverie.rssm.config import DreamerConfig
from reverie.rssm.model import Dreamer
from reverie.tokenizer.model import Tokenizer, TokenizerConfig

FORMAT = 1
Kind = Literal["tokenizer", "dynamics", "agent", "baseline"]
_REMEDY = "use an undamaged checkpoint"
_DYNAMICS = "dynamics."
"""Before the names of an agent's weights that are its world model's."""
_UNBUILDABLE = (
    ValueError,
    TypeError,
    RuntimeError,
    AssertionError,
    ArithmeticError,
    LookupError,
    AttributeError,
)
"""What building a model from impossible sizes raises."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """config.json: everything but the weights that is needed to build and to use a model.

    `kind` is tokenizer, dynamics, agent or baseline; `model` holds the fields of that kind's configuration. `dynamics` (of
    an agent), `action_space`, `tasks` and `tokenizer_sha256` are None where they do not apply. A baseline plays for one
    task, or for the recorded rewards if its `tasks` are empty.
    """

    kind: Kind
    model: dict[str, Any]
    fps: float | None = None
    frame_size: list[int] | None = None
    dynamics: dict[str, Any] | None = None
    action_space: dict[str, Any] | None = None
    tasks: list[str] | None = None
    tokenizer_sha256: str | None = None

    def __post_init__(self) -> None:
        if self.fps is not None and not 0 < self.fps < inf:
            raise ValueError(f"fps must be a positive number, got {self.fps}")
        if self.frame_size is not None and (len(self.frame_size) != 2 or min(self.frame_size) < 1):
            raise ValueError(f"frame_size must be height and width, got {self.frame_size}")
        needed = {"agent": ("dynamics", "action_space", "tasks"), "baseline": ("frame_size", "action_space")}
        for name in needed.get(self.kind, ()):
            if getattr(self, name) is None:
                raise ValueError(f"{name} is missing, which a model of kind {self.kind} needs")


def latest_checkpoint(checkpoints: Path) -> Path | None:
    """The newest whole folder, or None before the first one; see `newest_whole`."""
    return newest_whole(checkpoints)


def find_checkpoint(path: Path) -> Path:
    """The checkpoint folder meant by `path`: itself, or the newest whole one of a run folder.

    Raises `UserError` when there is none.
    """
    path = _asked(path)[0]
    if not path.exists():
        raise UserError(f"{path}: no such run folder; train that stage first or correct the path.")
    if (path / WEIGHTS).is_file() or (path / CARD).is_file():
        require_whole(path, model_files(path))
        return path
    found = newest_whole(path / "checkpoints")
    if found is None:
        raise UserError(f"{path}: holds no complete checkpoint; let its training reach the first save.")
    return found


def weights_file(path: Path) -> Path:
    """The file of weights, whole or in parts, that is meant by `path`: a run or checkpoint folder, or raw or ema in one.

    Raises `UserError` when there is none, it is damaged, or no average was kept.
    """
    folder, which = find_checkpoint(path), _asked(path)[1]
    averaged = has_average(path)
    if which == "ema" and not averaged:
        raise UserError(
            f"{path}: no average of the weights was kept; train with --training.ema, or leave /ema out."
        )
    if which == "raw" and averaged:
        require_whole(folder, tensor_files(folder, RAW))
        return folder / RAW
    return folder / WEIGHTS


def has_average(path: Path) -> bool:
    """Whether the run or checkpoint folder keeps an average of the weights (training.ema) beside them."""
    return has_raw(find_checkpoint(path))


def _asked(path: Path) -> tuple[Path, str | None]:
    """RUN/raw -> RUN, raw; RUN -> RUN, None."""
    chosen = path.name in ("raw", "ema") and not path.exists()
    return (path.parent, path.name) if chosen else (path, None)


def read_card(path: Path, kind: Kind | None = None) -> Card:
    """The card of a run or checkpoint folder. Raises `UserError` when it cannot be read, or is of another kind than `kind`."""
    file = find_checkpoint(path) / CARD
    content = read_json(file, dict[str, Any], _REMEDY)
    found = content.pop("format", None)
    if found != FORMAT:
        raise UserError(f"{file}: has format {found}, this version reads {FORMAT}; train again with it.")
    card = parse_json(json.dumps(content).encode(), Card, file, _REMEDY)
    if kind is not None and card.kind != kind:
        raise UserError(
            f"{path}: holds {_WORDS[card.kind]}, expected {_WORDS[kind]}; give a run of that stage."
        )
    return card


_WORDS = {
    "tokenizer": "a tokenizer",
    "dynamics": "a dynamics model",
    "agent": "an agent",
    "baseline": "a baseline (Dreamer V1 to V3)",
}


def weights_sha256(path: Path) -> str:
    """Identity of a model: the hash of its weights file, or of the index with its parts' hashes. `path` as in `weights_file`."""
    return sha256(StoredTensors(weights_file(path)).file)


def load_tokenizer(path: Path, device: torch.device | str = "cpu") -> Tokenizer:
    """The frozen tokenizer of a run or checkpoint folder, in evaluation mode."""
    return _loaded(path, "tokenizer", device)


def load_dynamics(path: Path, device: torch.device | str = "cpu") -> Dynamics:
    """The frozen dynamics model of a run or checkpoint folder, in evaluation mode."""
    return _loaded(path, "dynamics", device)


def load_agent(path: Path, device: torch.device | str = "cpu") -> Agent:
    """The frozen agent (with its dynamics model) of a clone or imagine run, in evaluation mode."""
    return _loaded(path, "agent", device)


def load_baseline(path: Path, device: torch.device | str = "cpu") -> Dreamer:
    """The frozen Dreamer V1, V2 or V3 of a baseline run, in evaluation mode."""
    return _loaded(path, "baseline", device)


def build_model(card: Card, file: Path) -> nn.Module:
    """The untrained model that `card`, read from `file`, describes. Raises `UserError` where it describes none."""
    try:
        return _BUILD[card.kind](card, file)
    except UserError:
        raise
    except _UNBUILDABLE as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file}: describes no model that can be built ({reason}); {_REMEDY}.") from None


def _build_tokenizer(card: Card, file: Path) -> Tokenizer:
    return Tokenizer(from_plain(TokenizerConfig, _as_loaded(card.model), file, _REMEDY))


def _build_dynamics(card: Card, file: Path) -> Dynamics:
    model = card.model if card.kind == "dynamics" else card.dynamics
    config = from_plain(DynamicsConfig, _as_loaded(model or {}), file, _REMEDY)
    return Dynamics(config, _action_space(card, file))


def _as_loaded(model: Mapping[str, Any]) -> dict[str, Any]:
    """A card's `model` for this machine, whose attention kernels may be others; without a soft cap named, 0.1.0's default."""
    return {"softcap": FORMER_SOFTCAP, **model, "backend": "auto"}


def _build_agent(card: Card, file: Path) -> Agent:
    heads = from_plain(AgentConfig, card.model, file, _REMEDY)
    return Agent(_build_dynamics(card, file), heads, card.tasks or [])


def _build_baseline(card: Card, file: Path) -> Dreamer:
    assert card.frame_size is not None
    height, width = card.frame_size
    config = from_plain(DreamerConfig, card.model, file, _REMEDY)
    return Dreamer(config, (height, width, 3), _action_space(card, file))


_BUILD: dict[Kind, Callable[[Card, Path], nn.Module]] = {
    "tokenizer": _build_tokenizer,
    "dynamics": _build_dynamics,
    "agent": _build_agent,
    "baseline": _build_baseline,
}


def _action_space(card: Card, file: Path) -> ActionSpace:
    return ActionSpace.from_json(card.action_space or {}, str(file))


def _loaded(path: Path, kind: Kind, device: torch.device | str) -> Any:
    card, folder, file = read_card(path, kind), find_checkpoint(path), weights_file(path)
    weights = _whole_weights(card, file)
    _require_plausible(card, weights, folder / CARD)
    with torch.device("meta"):  # sizes that do not fit must not be asked memory for
        expected = build_model(card, folder / CARD).state_dict()
    require_alike(weights, expected, file)
    model = build_model(card, folder / CARD)
    model.load_state_dict(weights)
    return model.to(device).eval().requires_grad_(False)


def _whole_weights(card: Card, file: Path) -> dict[str, Tensor]:
    """The weights of `file`, in 32 bits; heads of an agent alone with the world model that lies beside them."""
    weights = dict(StoredTensors(file))
    beside = file.parent.parent / "dynamics" / WEIGHTS
    if card.kind == "agent" and not any(name.startswith(_DYNAMICS) for name in weights) and beside.is_file():
        weights |= {_DYNAMICS + name: x for name, x in StoredTensors(beside).items()}
    return {name: x.float() if x.dtype == torch.float16 else x for name, x in weights.items()}


def _require_plausible(card: Card, weights: Mapping[str, Tensor], file: Path) -> None:
    """No size of a model is larger than the number of its weights; building a larger one could take for ever."""
    most = max(sum(x.numel() for x in weights.values()), 1 << 16)
    for name, value in _numbers(to_plain(card)):
        if abs(value) > most:
            raise UserError(
                f"{file}: {name} is {value:.6g}, which no model of {most:,} weights has; {_REMEDY}."
            )


def _numbers(value: Any, place: str = "") -> list[tuple[str, float]]:
    """Every number in plain values, with its dotted name."""
    if isinstance(value, Mapping):
        return [found for name, item in value.items() for found in _numbers(item, f"{place}{name}.")]
    if isinstance(value, list):
        return [found for item in value for found in _numbers(item, place)]
    return [(place[:-1], value)] if isinstance(value, int | float) else []
