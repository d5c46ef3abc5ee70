"""`reverie play`: people act with keyboard, mouse, touch or gamepad inside the world model, in a browser, and are recorded."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from reverie.data.errors import UserError
from reverie.data.files.location import Location
from reverie.pipelines.worlds.places import take_worlds


@dataclass(frozen=True, kw_only=True)
class PlayConfig:
    """Serves a page on which people play inside a world model; Ctrl-C ends it."""

    world: str | None = None
    """A world that ships or was pulled, by name, or the folder of a world or of the runs of all stages; enough by itself."""
    data: Location | None = None
    """Folder of video shards, or the URL of one, in whose clips dreams begin."""
    tokenizer: Path | None = None
    """Run folder of the tokenizer."""
    dynamics: Path | None = None
    """Run folder of the dynamics model; None takes the world model of --agent."""
    agent: Path | None = None
    """Run folder of `clone` or `imagine`: an agent that can play, too, in the world model that it was trained in."""
    out: Path | None = None
    """Folder of the recorded episodes, films and marks; the same command again adds to it. None records nothing."""
    clip: str | None = None
    """Name of the clip or episode to begin in; null draws contexts."""
    frame: int = 0
    """First frame of the context within --clip."""
    context: int | None = None
    """True frames given; null for the context length of the dynamics, or as many as the recordings have."""
    split: str = "validation"
    """Split of the contexts."""
    env: str | None = None
    """The real game, played beside the dream with the same actions, as in `record`; None for none."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further options of the game, as in `record`."""
    max_steps: int | None = None
    """Longest episode of the game in steps; the game's own limit by default."""
    checklist: Path | None = None
    """YAML file of tasks to go through one by one, or `minecraft` for the shipped list; null for free play."""
    player: str = "human"
    """Who plays, for the records."""
    sampling_steps: int = 4
    """Denoising steps K for a frame, a power of two; can be changed while playing."""
    visitors: int = 8
    """People who may play at a time, each in a dream of their own."""
    history: int = 300
    """Frames that a dream can go back."""
    idle_minutes: float = 15.0
    """Minutes without anything pressed after which a visitor's place is given up."""
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    """Arithmetic; auto is bfloat16 on GPUs that multiply it in hardware, float32 elsewhere."""
    host: str = "127.0.0.1"
    """Address to listen on. Anything but a loopback address can be reached by others, who then need the token."""
    port: int = 8137
    """Port to listen on; 0 for any that is free."""
    hosts: list[str] = field(default_factory=list)
    """Further names by which browsers may call this machine, where it is reached by a name that it does not know itself."""
    secret: bool | None = None
    """Whether the address has a token, without which nobody plays; null: if it can be reached from elsewhere."""
    open: bool = False
    """Open the page in a browser."""
    seed: int = 0
    """Seed of the contexts, of the noise and of the games."""
    device: str = "auto"
    """Device: auto, cpu, cuda or cuda:N."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Compile what makes a frame: auto does on GPUs; on a CPU it takes minutes once, and frames then come about twice as fast."""

    def __post_init__(self) -> None:
        take_worlds(self, tokenizer="tokenizer", dynamics="dynamics", agent="agent")
        for name, least in (("frame", 0), ("seed", 0), ("visitors", 1), ("history", 0)):
            if getattr(self, name) < least:
                raise UserError(f"{name}: must be at least {least}, got {getattr(self, name)}.")
        if self.context is not None and self.context < 1:
            raise UserError(f"context: must be at least 1, got {self.context}.")
        if self.idle_minutes <= 0:
            raise UserError(f"idle_minutes: must be above 0, got {self.idle_minutes}.")
        if self.sampling_steps < 1 or self.sampling_steps & (self.sampling_steps - 1):
            raise UserError(f"sampling_steps: must be a power of two, got {self.sampling_steps}.")
        given = (self.tokenizer, self.dynamics, self.agent)
        if self.world is not None and any(given):
            raise UserError(
                "play: --world has models of its own; leave out --tokenizer, --dynamics and --agent."
            )
        if self.world is None and (self.tokenizer is None or not any(given[1:])):
            raise UserError(
                "play: needs --world, or --tokenizer and --dynamics or --agent; `reverie worlds` lists worlds."
            )
        if self.dynamics is not None and self.agent is not None:
            raise UserError("play: --agent has a world model of its own; leave out --dynamics.")
        if self.checklist is not None and self.out is None:
            raise UserError("checklist: marks are kept in a folder; give --out.")


def play(config: PlayConfig) -> None:
    """Serves until it is stopped, then says what was recorded. Raises `UserError` when models and data do not fit."""
    from reverie.pipelines.interactive.serving import serve  # imports models

    serve(config)
