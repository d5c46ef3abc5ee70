"""A world in memory: what a folder holds, whether a packed world, a demo, or the run of one stage, with models ready to use."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reverie.agent.dream import Dream
from reverie.agent.model import Agent
from reverie.data.actions import ActionSpace
from reverie.data.errors import UserError
from reverie.dynamics.frame import Step
from reverie.dynamics.model import Dynamics
from reverie.pipelines.training.checkpoints import (
    CARD,
    Card,
    load_agent,
    load_dynamics,
    load_tokenizer,
    read_card,
    weights_sha256,
)
from reverie.pipelines.training.devices import pick_device
from reverie.pipelines.worlds.actions import batch_of_steps
from reverie.pipelines.worlds.actor import Actor
from reverie.pipelines.worlds.manifest import Manifest, read_manifest
from reverie.pipelines.worlds.places import is_world, known_worlds, world_folder
from reverie.pipelines.worlds.starts import CONTEXTS, Start, load_starts
from reverie.tokenizer.model import Tokenizer

_STAGES = {"tokenizer": ("tokenizer",), "dynamics": ("dynamics",), "agent": ("imagine", "clone")}
"""Part of a world -> folders that may hold it beside the others, the best first."""


@dataclass(frozen=True, kw_only=True)
class World:
    """Frozen models on one device, in evaluation mode, and where their dreams may begin.

    path        the folder
    name        by which it is known
    tokenizer   None for a run of `dynamics` or `clone` alone
    dynamics    the world model; None for a tokenizer alone
    policy      the agent as a module; None without one
    starts      held-out clips; empty unless it is a packed world
    manifest    of a packed world, None for runs
    """

    path: Path
    name: str
    tokenizer: Tokenizer | None
    dynamics: Dynamics | None
    policy: Agent | None
    card: Card
    starts: tuple[Start, ...] = ()
    manifest: Manifest | None = None
    _agents: dict[str, Actor] = field(default_factory=dict, repr=False, compare=False)

    @property
    def fps(self) -> float:
        """Frames a second."""
        return self.card.fps or 10.0

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width of a frame in pixels."""
        size = self.card.frame_size if self.tokenizer is None else self.tokenizer.config.frame_size
        height, width = size or (0, 0)
        return height, width

    @property
    def action_space(self) -> ActionSpace:
        """What can be done in it; without components for a tokenizer alone or video without actions."""
        return ActionSpace() if self.dynamics is None else self.dynamics.action_space

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks that the agent knows."""
        return () if self.policy is None else self.policy.tasks

    @property
    def agent(self) -> Actor:
        """The agent, ready to act on frames: `agent.act(frame)`. Raises `UserError` where there is none."""
        if self.policy is None:
            raise UserError(f"{self.path}: holds no agent; give the folder of a run of `clone` or `imagine`.")
        if "" not in self._agents:
            self._agents[""] = Actor(self.require_tokenizer(), self.policy)
        return self._agents[""]

    def require_tokenizer(self) -> Tokenizer:
        """The tokenizer. Raises `UserError` where there is none."""
        if self.tokenizer is None:
            raise UserError(
                f"{self.path}: holds no tokenizer; give the folder that holds the runs of all stages."
            )
        return self.tokenizer

    def require_dynamics(self) -> Dynamics:
        """The world model. Raises `UserError` where there is none."""
        if self.dynamics is None:
            raise UserError(
                f"{self.path}: holds no world model; give the folder that holds the runs of all stages."
            )
        return self.dynamics

    def require_steps(self, sampling_steps: int) -> None:
        """Raises `UserError` unless frames can be denoised in so many steps."""
        most = self.require_dynamics().config.max_sampling_steps
        if not 1 <= sampling_steps <= most or sampling_steps & (sampling_steps - 1):
            raise UserError(f"sampling_steps: must be a power of two from 1 to {most}, got {sampling_steps}.")

    def dream(
        self,
        frames: torch.Tensor,
        led: Step,
        *,
        sampling_steps: int = 4,
        seed: int = 0,
        context_signal_level: float | None = None,
        fast: bool = False,
    ) -> Dream:
        """Videos that go on frame by frame; see `reverie.agent.dream.Dream`.

        Args:
          frames, led: (N, C, H, W, 3) uint8 and the actions that led to them, as `Start.context` gives them.
          context_signal_level: how clean past frames enter, in (0, 1]; None for the model's own.
        """
        dynamics = self.require_dynamics()
        if context_signal_level is not None:
            dynamics = _with_signal_level(dynamics, context_signal_level)
        self.require_steps(sampling_steps)
        return Dream(
            self.require_tokenizer(),
            dynamics,
            frames,
            led,
            sampling_steps=sampling_steps,
            seed=seed,
            fast=fast,
        )

    def imagine(
        self,
        frames: Any,
        actions: Any,
        *,
        led: Any = None,
        sampling_steps: int = 4,
        seed: int = 0,
        context_signal_level: float | None = None,
        fast: bool = False,
    ) -> np.ndarray:
        """The frames that `actions` lead to after `frames`.

        Args:
          frames: (C, H, W, 3) or (N, C, H, W, 3) uint8 in [0, 255], array or tensor: what is true so far.
          actions: what is done next. For one component (T,) or (N, T) whole numbers (Categorical), (..., n) of keys or real
            numbers; for several a mapping from component to such arrays.
          led: the actions that led to `frames`, in the same form with C steps; None where they are not known.
          sampling_steps: denoising steps K a frame, a power of two.
          seed: of the noise.
          context_signal_level: how clean past frames enter, in (0, 1]; None for the model's own.
          fast: compile what makes a frame.

        Returns:
          (T, H, W, 3) or (N, T, H, W, 3) uint8.

        Raises:
          UserError: frames or actions do not fit this world.
        """
        past, single = self._videos(frames)
        future = batch_of_steps(self.action_space, actions, len(past), single, "actions")
        before = batch_of_steps(self.action_space, led, len(past), single, "led", steps=past.shape[1])
        dream = self.dream(
            past,
            before,
            sampling_steps=sampling_steps,
            seed=seed,
            context_signal_level=context_signal_level,
            fast=fast,
        )
        steps = range(future.action_mask.shape[1])
        if not steps:
            raise UserError("actions: there are none; give one for each frame that is to be made.")
        made = torch.stack([dream.next(future.at(slice(t, t + 1))) for t in steps], dim=1).cpu().numpy()
        return np.asarray(made[0] if single else made)

    def _videos(self, frames: Any) -> tuple[torch.Tensor, bool]:
        """(N, C, H, W, 3) uint8, and whether it was one video."""
        height, width = self.frame_size
        wanted = f"(C, {height}, {width}, 3) or (N, C, {height}, {width}, 3) uint8"
        try:
            video = torch.as_tensor(frames)
        except (TypeError, ValueError, RuntimeError):
            raise UserError(f"frames: must be {wanted}, got a {type(frames).__name__}.") from None
        shape = tuple(video.shape)
        single = video.ndim == 4
        video = video[None] if single else video
        if video.ndim != 5 or video.dtype != torch.uint8 or tuple(video.shape[2:]) != (*self.frame_size, 3):
            raise UserError(f"frames: must be {wanted}, got {shape} {video.dtype}.")
        return video, single


def load_world(place: str | Path, device: str = "auto") -> World:
    """What lies at `place`, with models on `device` (auto, cpu, cuda, ...), weights in float32.

    Args:
      place: `world:NAME` or the NAME of a world that ships or was pulled; a world's folder; a folder that holds the runs of
        several stages under their own names (as `reverie demo` makes it); or the run of one stage.

    Raises:
      UserError: there is nothing, it is damaged, or its parts do not belong together.
    """
    where = pick_device(device)
    if not is_world(place) and str(place) in known_worlds() and not Path(place).exists():
        place = f"world:{place}"
    folder = world_folder(place)
    manifest = read_manifest(folder) if is_world(place) else None
    parts = _parts(folder)
    if not parts:
        raise UserError(
            f"{folder}: holds no run of a stage and no world; `reverie worlds` lists those that can be named."
        )
    _require_one_family(parts)
    policy = load_agent(parts["agent"], where) if "agent" in parts else None
    dynamics = policy.dynamics if policy is not None else None
    if dynamics is None and "dynamics" in parts:
        dynamics = load_dynamics(parts["dynamics"], where)
    card = read_card(next(parts[name] for name in ("agent", "dynamics", "tokenizer") if name in parts))
    return World(
        path=folder,
        name=folder.name if manifest is None else manifest.name,
        tokenizer=load_tokenizer(parts["tokenizer"], where) if "tokenizer" in parts else None,
        dynamics=dynamics,
        policy=policy,
        card=card,
        manifest=manifest,
        starts=() if manifest is None else _starts(folder, card, manifest),
    )


def _parts(folder: Path) -> dict[str, Path]:
    """Part -> its run. Raises `UserError` for a run that cannot be read, or that is no part of a world."""
    found = {
        part: next(path for name in names if (path := folder / name).is_dir())
        for part, names in _STAGES.items()
        if any((folder / name).is_dir() for name in names)
    }
    if (folder / "agent").is_dir():
        found["agent"] = folder / "agent"
    if found or not (folder / "checkpoints").is_dir() and not (folder / CARD).is_file():
        return found
    kind = read_card(folder).kind
    if kind == "baseline":
        raise UserError(f"{folder}: holds a baseline (Dreamer V1 to V3), which is no part of a world.")
    return {str(kind): folder}


def _require_one_family(parts: Mapping[str, Path]) -> None:
    """Raises `UserError` unless world model and agent were trained with the tokenizer."""
    if "tokenizer" not in parts:
        return
    digest = weights_sha256(parts["tokenizer"])
    for part in ("dynamics", "agent"):
        if part in parts and read_card(parts[part]).tokenizer_sha256 != digest:
            raise UserError(
                f"{parts[part]}: was trained with another tokenizer than {parts['tokenizer']}; give runs that belong together."
            )


def _starts(folder: Path, card: Card, manifest: Manifest) -> tuple[Start, ...]:
    space = ActionSpace.from_json(card.action_space or {}, str(folder))
    height, width = manifest.frame_size
    path = folder / CONTEXTS
    return tuple(load_starts(path, space, (height, width))) if path.exists() else ()


def _with_signal_level(dynamics: Dynamics, level: float) -> Dynamics:
    """The same weights, shared, with past frames at another signal level."""
    try:
        config = replace(dynamics.config, context_signal_level=level)
    except ValueError as error:
        raise UserError(f"{error}.") from None
    other = copy.copy(dynamics)
    other.config = config
    return other
