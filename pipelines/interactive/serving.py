"""From the configuration of `reverie play` to a server, and its life."""

import contextlib
import sys
import webbrowser
from collections.abc import Iterator
from dataclasses import asdict
from hashlib import sha256

from rich.console import Console

from reverie.agent.dreams import Dreams
from reverie.data.errors import UserError
from reverie.data.files.lock import sole_writer
from reverie.data.shards.index import ShardIndex
from reverie.data.sources.episodes import EpisodeWriter
from reverie.dynamics.generation import use_fast
from reverie.nn.precision import in_bfloat16, round_weights
from reverie.pipelines.interactive.checklist import Checklist, ChecklistTask, load_tasks
from reverie.pipelines.interactive.contexts import Contexts
from reverie.pipelines.interactive.controls import Controls
from reverie.pipelines.interactive.engine import Engine
from reverie.pipelines.interactive.play import PlayConfig
from reverie.pipelines.interactive.recorder import Shelf
from reverie.pipelines.interactive.server import PlayServer
from reverie.pipelines.interactive.tape import StartAt
from reverie.pipelines.interactive.visitor import House
from reverie.pipelines.interactive.world import PlayWorld
from reverie.pipelines.runs.run import open_run
from reverie.pipelines.runs.stops import StopRequest
from reverie.pipelines.scoring.models import require_actions, require_frames, require_kind, require_tokenizer
from reverie.pipelines.stages.encode import pick_device
from reverie.pipelines.training.checkpoints import load_agent, load_dynamics, load_tokenizer, weights_sha256

_FPS = 10.0
"""Of a world without recordings that say better."""


def serve(config: PlayConfig) -> None:
    """Serves until it is stopped, then says what was recorded. Raises `UserError` when models and data do not fit."""
    require_models(config)
    alone = contextlib.nullcontext() if config.out is None else sole_writer(config.out)
    with alone, opened(config) as server:
        stop = StopRequest()
        try:
            _announce(server, config)
            server.serve(lambda: stop.requested)
        finally:
            stop.restore()
    if server.house.checklist is not None:
        Console(highlight=False, soft_wrap=True).print(server.house.checklist.table())
    if config.out is not None:
        print(f"recorded: {config.out}")


@contextlib.contextmanager
def opened(config: PlayConfig) -> Iterator[PlayServer]:
    """A server that is ready to serve."""
    house = open_house(config)
    try:
        yield PlayServer(
            house,
            config.host,
            config.port,
            visitors=1 if house.checklist is not None else config.visitors,
            idle=60 * config.idle_minutes,
            hosts=config.hosts,
            secret=config.secret,
        )
    finally:
        house.engine.close()


def open_house(config: PlayConfig) -> House:
    """Loads models, contexts and checklist."""
    world = open_world(config)
    tasks = () if config.checklist is None else load_tasks(config.checklist)
    if config.clip is not None or tasks:
        _require_clips(config, world, tasks)
    if world.env is not None:
        world.context(StartAt(kind="game", number=config.seed))[1].close()  # type: ignore[union-attr]
    if not world.space.components:
        print("this world model knows no actions: frames go on by themselves.", file=sys.stderr)
    return House(
        world=world,
        engine=Engine(world.dreams),
        controls=Controls.of(world.space),
        shelf=_shelf(config, world, tasks),
        checklist=Checklist(tasks, config.out) if tasks and config.out is not None else None,
    )


def open_world(config: PlayConfig) -> PlayWorld:
    """The models and where dreams in them begin."""
    index = None if config.data is None else ShardIndex.load(config.data)
    dreams = _dreams(config)
    length = dreams.dynamics.config.context_length
    contexts = None
    if index is not None:
        contexts = Contexts(index, config.split, config.context, length, config.seed)
    return PlayWorld(
        name=_name(config),
        key=sha256(repr(sorted(_inputs(config).items())).encode()).hexdigest()[:16],
        dreams=dreams,
        fps=_FPS if index is None else index.fps,
        contexts=contexts,
        sampling_steps=config.sampling_steps,
        context_length=config.context or length,
        seed=config.seed,
        clip=config.clip,
        frame=config.frame,
        env=config.env,
        options=config.options,
        max_steps=config.max_steps,
    )


def require_models(config: PlayConfig) -> None:
    """Raises `UserError` where models and data do not fit each other."""
    assert config.tokenizer is not None
    model = config.agent or config.dynamics
    assert model is not None
    require_kind("tokenizer", config.tokenizer)
    require_kind("agent" if config.agent else "dynamics", model)
    require_tokenizer(config.tokenizer, model)
    if config.data is None:
        return
    index = ShardIndex.load(config.data)
    if index.latent_shape is not None:
        raise UserError(f"{config.data}: holds latents; give the folder of video shards that `prepare` made.")
    require_frames(config.tokenizer, index)
    require_actions(model, index)


def _dreams(config: PlayConfig) -> Dreams:
    require_models(config)
    assert config.tokenizer is not None
    device = pick_device(config.device)
    tokenizer = load_tokenizer(config.tokenizer, device).eval()
    agent = None if config.agent is None else load_agent(config.agent, device).eval()
    if agent is not None:
        dynamics = agent.dynamics
    else:
        assert config.dynamics is not None
        dynamics = load_dynamics(config.dynamics, device).eval()
    half = in_bfloat16(config.precision, device)
    if half:
        round_weights(dynamics)
    fast = use_fast(config.compile, device, None)
    return Dreams(tokenizer, dynamics, agent, history=config.history, half=half, fast=fast)


def _require_clips(config: PlayConfig, world: PlayWorld, tasks: tuple[ChecklistTask, ...]) -> None:
    """Before anybody has begun: what is named must be there."""
    if world.contexts is None:
        raise UserError("play: --clip and --checklist begin in held-out clips; give --data.")
    if config.clip is not None:
        world.contexts.named(config.clip, config.frame)
    for task in tasks:
        if task.clip is not None:
            world.contexts.named(task.clip, task.frame)


def _shelf(config: PlayConfig, world: PlayWorld, tasks: tuple[ChecklistTask, ...]) -> Shelf | None:
    if config.out is None:
        return None
    inputs = _inputs(config)
    identity = {"sampling_steps": config.sampling_steps, "tasks": [asdict(task) for task in tasks]}
    open_run(config.out, kind="play", config=config, model=identity, inputs=inputs)
    writer = EpisodeWriter(
        config.out,
        env="dream",
        fps=world.fps,
        frame_size=world.frame_size,
        action_space=world.space,
        players={"kind": "human", **inputs},
    )
    return Shelf(writer, config.player, config.history)


def _inputs(config: PlayConfig) -> dict[str, str]:
    assert config.tokenizer is not None
    inputs = {"tokenizer": weights_sha256(config.tokenizer)}
    for name in ("dynamics", "agent"):
        if (folder := getattr(config, name)) is not None:
            inputs[name] = weights_sha256(folder)
    return inputs if config.data is None else {"data": ShardIndex.load(config.data).hash(), **inputs}


def _name(config: PlayConfig) -> str:
    """What people call the world: the game, or the folder of the runs."""
    model = config.agent or config.dynamics
    assert model is not None
    return config.env or model.resolve().parent.name


def _announce(server: PlayServer, config: PlayConfig) -> None:
    print(f"open {server.address}", flush=True)
    port = server.port
    if server.is_local:
        print(f"  from another machine: ssh -L {port}:127.0.0.1:{port} this-machine")
    print("  Ctrl-C ends the session", flush=True)
    if config.open:
        webbrowser.open(server.address)
