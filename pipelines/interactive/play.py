"""`reverie play`: a person acts with keyboard and mouse inside the world model, in a browser, and is recorded."""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from reverie.agent.dream import Dream
from reverie.data.errors import UserError
from reverie.data.files.location import Location
from reverie.data.files.lock import sole_writer
from reverie.data.shards.index import ShardIndex
from reverie.data.sources.episodes import EpisodeWriter
from reverie.dynamics.fast_frame import use_fast
from reverie.dynamics.model import Dynamics
from reverie.nn.compilation import Compile
from reverie.nn.precision import in_bfloat16, round_weights
from reverie.pipelines.interactive.checklist import Checklist, ChecklistTask, load_tasks
from reverie.pipelines.interactive.contexts import Context, Contexts
from reverie.pipelines.interactive.controls import Controls
from reverie.pipelines.interactive.server import PlayServer
from reverie.pipelines.interactive.session import MakeDream, PlaySession, Start
from reverie.pipelines.runs.run import open_run
from reverie.pipelines.runs.stops import StopRequest
from reverie.pipelines.scoring.models import require_actions, require_frames, require_kind, require_tokenizer
from reverie.pipelines.training.checkpoints import load_dynamics, load_tokenizer, weights_sha256
from reverie.pipelines.training.devices import pick_device
from reverie.pipelines.worlds.places import take_worlds
from reverie.tokenizer.model import Tokenizer


@dataclass(frozen=True, kw_only=True)
class PlayConfig:
    """Serves a page on which one person plays inside a world model; Ctrl-C ends it."""

    data: Location
    """Folder of video shards, or the URL of one; dreams begin in its clips."""
    tokenizer: Path
    """Run folder of the tokenizer."""
    dynamics: Path
    """Run folder of the dynamics model."""
    out: Path
    """Folder of the recorded episodes, films and marks; the same command again adds to it."""
    clip: str | None = None
    """Name of the clip or episode to begin in; null draws contexts."""
    frame: int = 0
    """First frame of the context within --clip."""
    context: int | None = None
    """True frames given; null for the context length of the dynamics, or as many as the recordings have."""
    split: str = "validation"
    """Split of the contexts."""
    checklist: Path | None = None
    """YAML file of tasks to go through one by one, or `minecraft` for the shipped list; null for free play."""
    player: str = "human"
    """Who plays, for the records."""
    sampling_steps: int = 4
    """Denoising steps K for a frame, a power of two."""
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    """Arithmetic; auto is bfloat16 on GPUs that multiply it in hardware, float32 elsewhere."""
    host: str = "127.0.0.1"
    """Address to listen on; from elsewhere, come through ssh -L."""
    port: int = 8137
    """Port to listen on; 0 for any that is free."""
    seed: int = 0
    """Seed of the contexts and of the noise."""
    device: str = "auto"
    """Device: auto, cpu, cuda or cuda:N."""
    compile: Compile = "auto"
    """Compile what makes a frame: auto does on GPUs; on a CPU it takes minutes once, and frames then come about twice as fast."""

    def __post_init__(self) -> None:
        take_worlds(self, tokenizer="tokenizer", dynamics="dynamics")
        for name in ("frame", "seed"):
            if getattr(self, name) < 0:
                raise UserError(f"{name}: must be at least 0, got {getattr(self, name)}.")
        if self.context is not None and self.context < 1:
            raise UserError(f"context: must be at least 1, got {self.context}.")
        if self.sampling_steps < 1 or self.sampling_steps & (self.sampling_steps - 1):
            raise UserError(f"sampling_steps: must be a power of two, got {self.sampling_steps}.")


def play(config: PlayConfig) -> None:
    """Serves until it is stopped, then says what was recorded. Raises `UserError` when models and data do not fit."""
    _require_models(config, ShardIndex.load(config.data))
    with sole_writer(config.out):
        _play(config)
    print(f"recorded: {config.out}")


def _play(config: PlayConfig) -> None:
    session = open_session(config)
    server = PlayServer(session, config.host, config.port)
    print(f"open {server.address}", flush=True)
    print(
        f"  from another machine: ssh -L {server.server_address[1]}:127.0.0.1:{server.server_address[1]} this-machine"
    )
    print("  Ctrl-C ends the session", flush=True)
    try:
        serve(server)
    finally:
        server.server_close()
        session.close()
    if session.checklist is not None:
        Console(highlight=False, soft_wrap=True).print(session.checklist.table())


def serve(server: PlayServer) -> None:
    """Answers until Ctrl-C or SIGTERM; a request under way is finished."""
    stop = StopRequest()
    server.timeout = 0.2
    try:
        while not stop.requested:
            server.handle_request()
    finally:
        stop.restore()


def open_session(config: PlayConfig) -> PlaySession:
    """Loads models, contexts and checklist, and begins the first dream."""
    index = ShardIndex.load(config.data)
    tasks = () if config.checklist is None else load_tasks(config.checklist)
    tokenizer, dynamics = _load_models(config, index)
    contexts = Contexts(index, config.split, config.context, dynamics.config.context_length, config.seed)
    for task in tasks:
        if task.clip is not None:
            contexts.named(task.clip, task.frame)  # before anybody has begun: it must be there
    if not index.action_space.components:
        print("this world model knows no actions: frames go on by themselves.", file=sys.stderr)
    identity, inputs = _identity(config, tasks), _inputs(config, index)
    open_run(config.out, kind="play", config=config, model=identity, inputs=inputs)
    writer = EpisodeWriter(
        config.out,
        env="dream",
        fps=index.fps,
        frame_size=index.frame_size,
        action_space=index.action_space,
        players={"kind": "human", **inputs},
    )
    return PlaySession(
        _dreams(config, tokenizer, dynamics),
        contexts,
        writer,
        Controls.of(index.action_space),
        Start(clip=config.clip, frame=config.frame, seed=config.seed),
        config.player,
        Checklist(tasks, config.out) if tasks else None,
    )


def _dreams(config: PlayConfig, tokenizer: Tokenizer, dynamics: Dynamics) -> MakeDream:
    device = tokenizer.mask_token.device
    half, fast = in_bfloat16(config.precision, device), use_fast(config.compile, device, None)
    if half:
        round_weights(dynamics)

    def make(context: Context, seed: int) -> Dream:
        return Dream(
            tokenizer,
            dynamics,
            context.frames,
            context.led,
            sampling_steps=config.sampling_steps,
            seed=seed,
            half=half,
            fast=fast,
        )

    return make


def _require_models(config: PlayConfig, index: ShardIndex) -> None:
    """Raises `UserError` where models and data do not fit each other."""
    if index.latent_shape is not None:
        raise UserError(f"{config.data}: holds latents; give the folder of video shards that `prepare` made.")
    require_kind("tokenizer", config.tokenizer)
    require_kind("dynamics", config.dynamics)
    require_frames(config.tokenizer, index)
    require_tokenizer(config.tokenizer, config.dynamics)
    require_actions(config.dynamics, index)


def _load_models(config: PlayConfig, index: ShardIndex) -> tuple[Tokenizer, Dynamics]:
    _require_models(config, index)
    device = pick_device(config.device)
    return load_tokenizer(config.tokenizer, device).eval(), load_dynamics(config.dynamics, device).eval()


def _identity(config: PlayConfig, tasks: tuple[ChecklistTask, ...]) -> dict[str, Any]:
    """What episodes of one folder have in common."""
    return {"sampling_steps": config.sampling_steps, "tasks": [asdict(task) for task in tasks]}


def _inputs(config: PlayConfig, index: ShardIndex) -> dict[str, str]:
    return {
        "data": index.hash(),
        "tokenizer": weights_sha256(config.tokenizer),
        "dynamics": weights_sha256(config.dynamics),
    }
