"""`reverie pack`: the runs of a tokenizer, a world model and an agent as one small folder that can be played anywhere."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from reverie.data.errors import UserError
from reverie.data.files.documents import MOST_YAML_BYTES, parse_yaml, read_bounded
from reverie.data.files.durable import explain_full_disk
from reverie.data.files.location import Location
from reverie.data.shards.index import ShardIndex
from reverie.pipelines.runs.atomic import new_folder, write_json, write_text
from reverie.pipelines.runs.configs import to_plain
from reverie.pipelines.training.checkpoints import (
    FORMAT as CARD_FORMAT,
)
from reverie.pipelines.training.checkpoints import (
    Card,
    load_agent,
    load_dynamics,
    load_tokenizer,
    read_card,
    weights_sha256,
)
from reverie.pipelines.training.integrity import CARD, WEIGHTS, sha256
from reverie.pipelines.worlds.card import Origin, card_text, origin_of
from reverie.pipelines.worlds.manifest import FORMAT, MANIFEST, Manifest, listed, read_manifest, require_name
from reverie.pipelines.worlds.places import require_free, take_worlds
from reverie.pipelines.worlds.starts import CONTEXTS, held_out_starts, save_starts

_PATHS = ("data", "out", "tokenizer", "dynamics", "agent", "parent")
"""Settings of a training that name places on the machine where it ran."""
_LARGEST = 65504.0
"""In 16 bits."""


@dataclass(frozen=True, kw_only=True)
class PackConfig:
    """Makes a world: weights in 16 bits, held-out clips to begin in, a card, checksums."""

    data: Location
    """Folder of the video shards that the tokenizer was trained on, or the URL of one; dreams begin in its held-out clips."""
    tokenizer: Path
    """Run folder of the tokenizer."""
    dynamics: Path | None = None
    """Run folder of the dynamics model; null takes the one inside --agent, which was trained on with it."""
    agent: Path | None = None
    """Run folder of `imagine` or `clone`; null for a world without an agent."""
    out: Path
    """Folder of the world; an older world there is replaced."""
    name: str | None = None
    """By which it is asked for; null for the folder's name."""
    summary: str = ""
    """One line that says what world it is."""
    licence: str = "MIT"
    """Licence of weights and clips."""
    env: str | None = None
    """Game it was recorded in, as in `record`; null for other video."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further options of the game, as in `record`."""
    max_steps: int | None = None
    """Longest episode in steps, as in `record`; null for the game's own."""
    evaluation: Path | None = None
    """Folder of `evaluate`, whose scores stand on the card where they are of these weights; null for a card without scores."""
    contexts: int = 8
    """Held-out clips to begin in."""
    context: int = 24
    """Frames of each clip."""
    split: str = "validation"
    """Split of the clips."""
    seed: int = 0
    """Seed of the choice of clips."""

    def __post_init__(self) -> None:
        for setting in ("contexts", "context"):
            if getattr(self, setting) < 1:
                raise UserError(f"{setting}: must be at least 1, got {getattr(self, setting)}.")
        if (self.dynamics is None) == (self.agent is None):
            raise UserError(
                "--dynamics: give it for a world without an agent, and --agent alone for one with an agent, which holds the "
                "world model that it was trained on with."
            )
        try:
            require_name(self.title)
        except ValueError as error:
            raise UserError(f"--name: {error}.") from None
        take_worlds(self, tokenizer="tokenizer", dynamics="dynamics", agent="agent")

    @property
    def title(self) -> str:
        """The world's name."""
        return self.name or self.out.resolve().name


def pack(config: PackConfig) -> Manifest:
    """Writes the world and prints what it holds. Raises `UserError` where runs and data do not belong together."""
    index = ShardIndex.load(config.data)
    if index.latent_shape is not None:
        raise UserError(f"{config.data}: holds latents; give the folder of video shards that `prepare` made.")
    require_free(config.out)
    with explain_full_disk(config.out), new_folder(config.out) as folder:
        manifest = _fill(config, index, folder)
    size = sum(file.bytes for file in manifest.files.values())
    print(f"{config.out}: world {manifest.name}, {size / 1e6:.1f} MB, {len(manifest.files)} files")
    print(f"next: reverie play --world {config.out}")
    return manifest


def _fill(config: PackConfig, index: ShardIndex, folder: Path) -> Manifest:
    tokenizer = _add(
        folder / "tokenizer", config.tokenizer, load_tokenizer(config.tokenizer).state_dict(), None
    )
    tasks: list[str] = []
    if config.agent is not None:
        card = _require_family(read_card(config.agent, "agent"), config.agent, config.tokenizer)
        agent = load_agent(config.agent)
        heads = {n: x for n, x in agent.state_dict().items() if not n.startswith("dynamics.")}
        world_model = replace(card, kind="dynamics", model=card.dynamics or {}, dynamics=None, tasks=None)
        _add(folder / "dynamics", config.agent, agent.dynamics.state_dict(), tokenizer, world_model)
        _add(folder / "agent", config.agent, heads, tokenizer)
        tasks = _learned(config.agent, card.tasks or [])
    else:
        assert config.dynamics is not None
        _require_family(read_card(config.dynamics, "dynamics"), config.dynamics, config.tokenizer)
        _add(folder / "dynamics", config.dynamics, load_dynamics(config.dynamics).state_dict(), tokenizer)
    save_starts(
        folder / CONTEXTS,
        held_out_starts(index, config.split, config.context, config.contexts, config.seed),
    )
    origin = origin_of(index, _runs(config), folder, config.evaluation)
    return _finish(config, index, folder, origin, tasks)


def _runs(config: PackConfig) -> dict[str, Path]:
    runs = {"tokenizer": config.tokenizer, "dynamics": config.dynamics, "agent": config.agent}
    return {name: run for name, run in runs.items() if run is not None}


def _finish(
    config: PackConfig, index: ShardIndex, folder: Path, origin: Origin, tasks: list[str]
) -> Manifest:
    manifest = Manifest(
        format=FORMAT,
        name=config.title,
        summary=config.summary or config.env or config.title,
        licence=config.licence,
        fps=index.fps,
        frame_size=list(index.frame_size),
        files={},
        env=config.env,
        options=config.options,
        max_steps=config.max_steps,
        tasks=tasks,
    )
    write_text(folder / "README.md", card_text(manifest, origin))
    manifest = replace(manifest, files=listed(folder))
    write_json(folder / MANIFEST, to_plain(manifest))
    return read_manifest(folder)


def _add(
    part: Path, run: Path, weights: Mapping[str, Tensor], tokenizer: str | None, card: Card | None = None
) -> str:
    """Writes one part and returns the checksum of its weights; `tokenizer` is that of the tokenizer's."""
    part.mkdir()
    card = card or read_card(run)
    if tokenizer is not None:
        card = replace(card, tokenizer_sha256=tokenizer)
    write_json(part / CARD, {"format": CARD_FORMAT, **to_plain(card)})
    save_file({name: _narrow(weights[name], run) for name in sorted(weights)}, part / WEIGHTS)
    (part / WEIGHTS).chmod(0o644)  # safetensors lets nobody else read it
    _copy_settings(run, part)
    return sha256(part / WEIGHTS)


def _narrow(x: Tensor, run: Path) -> Tensor:
    """Real numbers in 16 bits. Raises `UserError` for one that is too large for that."""
    if not x.is_floating_point():
        return x.contiguous()
    if x.numel() and float(x.abs().max()) > _LARGEST:
        raise UserError(
            f"{run}: has a weight beyond {_LARGEST:g}, which 16 bits cannot hold; train it again."
        )
    return x.detach().to("cpu", torch.float16).contiguous()


def _copy_settings(run: Path, part: Path) -> None:
    """The settings of the training without the places they name."""
    settings = _settings(run)
    kept = {name: value for name, value in settings.items() if name not in _PATHS}
    if kept:
        write_text(part / "config.yaml", yaml.safe_dump(kept, sort_keys=False))


def _settings(run: Path) -> dict[str, Any]:
    try:
        settings = parse_yaml(read_bounded(run / "config.yaml", MOST_YAML_BYTES))
    except (OSError, ValueError):
        return {}
    return settings if isinstance(settings, dict) else {}


def _learned(run: Path, tasks: list[str]) -> list[str]:
    """The tasks that a run was trained for: all of its data, or the one it was told."""
    task = _settings(run).get("task")
    return [task] if task in tasks else tasks


def _require_family(card: Card, run: Path, tokenizer: Path) -> Card:
    if card.tokenizer_sha256 != weights_sha256(tokenizer):
        raise UserError(f"{run}: was trained with another tokenizer than {tokenizer}; give its own.")
    return card
