"""From the configuration of `reverie play` to a server, and its life."""

import contextlib
import sys
import webbrowser
from collections.abc import Iterator
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from reverie.agent.dreams import Dreams
from reverie.data.errors import UserError
from reverie.data.files.lock import sole_writer
from reverie.data.shards.index import ShardIndex
from reverie.data.sources.episodes import EpisodeWriter
from reverie.dynamics.fast_frame import use_fast
from reverie.environments.make import make_env, with_limit
from reverie.nn.precision import in_bfloat16, round_weights
from reverie.pipelines.interactive.checklist import Checklist, ChecklistTask, load_tasks
from reverie.pipelines.interactive.contexts import AnyContexts, Contexts, ShippedContexts
from reverie.pipelines.interactive.controls import Controls
from reverie.pipelines.interactive.engine import Engine
from reverie.pipelines.interactive.house import House
from reverie.pipelines.interactive.play import PlayConfig
from reverie.pipelines.interactive.recorder import Shelf
from reverie.pipelines.interactive.server import PlayServer
from reverie.pipelines.interactive.tape import StartAt
from reverie.pipelines.interactive.world import PlayWorld
from reverie.pipelines.runs.clock import seconds_since_start
from reverie.pipelines.runs.run import open_run
from reverie.pipelines.runs.stops import StopRequest
from reverie.pipelines.scoring.models import require_actions, require_frames, require_kind, require_tokenizer
from reverie.pipelines.training.checkpoints import load_agent, load_dynamics, load_tokenizer, weights_sha256
from reverie.pipelines.training.devices import pick_device
from reverie.pipelines.worlds.places import SHIPPED
from reverie.pipelines.worlds.world import World, load_world

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
            server.serve(_Watch(server, stop))
        finally:
            stop.restore()
    if server.house.checklist is not None:
        Console(highlight=False, soft_wrap=True).print(server.house.checklist.table())
    if config.out is not None:
        print(f"recorded: {config.out}")


class _Watch:
    """Says whether to stop; and once, how long it took until somebody saw a frame move."""

    def __init__(self, server: PlayServer, stop: StopRequest) -> None:
        self._engine, self._stop = server.house.engine, stop
        self._told = False

    def __call__(self) -> bool:
        if self._engine.dreamed and not self._told:
            self._told = True
            print(f"first frame after {seconds_since_start():.1f} s", flush=True)
        return self._stop.requested


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
    shipped = None if config.world is None else load_world(config.world, config.device)
    world = open_world(config, shipped)
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
        shelf=_shelf(config, world, tasks, _inputs(config, shipped)),
        checklist=Checklist(tasks, config.out) if tasks and config.out is not None else None,
    )


def open_world(config: PlayConfig, world: World | None) -> PlayWorld:
    """The models, where dreams in them begin, and the real game."""
    index = None if config.data is None else ShardIndex.load(config.data)
    dreams = _dreams(config, world)
    contexts = _contexts(config, dreams, index, world)
    env, options, max_steps = real_game(config, world)
    return PlayWorld(
        name=_name(config, world),
        key=_key(config, world),
        dreams=dreams,
        fps=index.fps if index is not None else world.fps if world is not None else _FPS,
        contexts=contexts,
        sampling_steps=config.sampling_steps,
        context_length=config.context or dreams.dynamics.config.context_length,
        seed=config.seed,
        clip=config.clip,
        frame=config.frame,
        env=env,
        options=options,
        max_steps=max_steps,
    )


def _contexts(
    config: PlayConfig, dreams: Dreams, index: ShardIndex | None, world: World | None
) -> AnyContexts | None:
    length = dreams.dynamics.config.context_length
    if index is not None:
        return Contexts(index, config.split, config.context, length, config.seed)
    if world is not None and world.starts:
        return ShippedContexts(world.starts, config.context or length)
    return None


def real_game(config: PlayConfig, world: World | None) -> tuple[str | None, dict[str, Any], int | None]:
    """Name, options and longest episode of the game that is asked for, else of that in which a world that ships was recorded.

    A world from elsewhere is only told of: its game may be any module that is installed here, with options of its choice.
    """
    if config.env is not None:
        return config.env, config.options, config.max_steps
    manifest = None if world is None else world.manifest
    if manifest is None or manifest.env is None:
        return None, {}, None
    assert world is not None
    if world.path.resolve().parent != SHIPPED.resolve():
        print(
            f"{world.path}: was recorded in {manifest.env!r}; add --env to play that game beside it.",
            file=sys.stderr,
        )
        return None, {}, None
    options = {**manifest.options, **config.options}
    max_steps = manifest.max_steps if config.max_steps is None else config.max_steps
    try:
        make_env(manifest.env, seed=config.seed, **with_limit(options, max_steps)).close()
    except (UserError, OSError) as error:
        print(f"the real game is not played beside the dream: {error}", file=sys.stderr)
        return None, {}, None
    return manifest.env, options, max_steps


def require_models(config: PlayConfig) -> None:
    """Raises `UserError` where models and data do not fit each other."""
    index = None if config.data is None else ShardIndex.load(config.data)
    if index is not None and index.latent_shape is not None:
        raise UserError(f"{config.data}: holds latents; give the folder of video shards that `prepare` made.")
    tokenizer, model = config.tokenizer, config.agent or config.dynamics
    if tokenizer is None or model is None:
        return
    require_kind("tokenizer", tokenizer)
    require_kind("agent" if config.agent else "dynamics", model)
    require_tokenizer(tokenizer, model)
    if index is not None:
        require_frames(tokenizer, index)
        require_actions(model, index)


def _dreams(config: PlayConfig, world: World | None) -> Dreams:
    device = pick_device(config.device)
    if world is not None:
        tokenizer, agent = world.require_tokenizer(), world.policy
        dynamics = world.require_dynamics() if agent is None else agent.dynamics
    else:
        require_models(config)
        assert config.tokenizer is not None
        tokenizer = load_tokenizer(config.tokenizer, device)
        agent = None if config.agent is None else load_agent(config.agent, device)
        dynamics = agent.dynamics if agent is not None else load_dynamics(config.dynamics or Path(), device)
    half = in_bfloat16(config.precision, device)
    if half:
        round_weights(dynamics)
    fast = use_fast(config.compile, device, None)
    agent = None if agent is None else agent.eval()
    return Dreams(tokenizer.eval(), dynamics.eval(), agent, history=config.history, half=half, fast=fast)


def _require_clips(config: PlayConfig, world: PlayWorld, tasks: tuple[ChecklistTask, ...]) -> None:
    """Before anybody has begun: what is named must be there."""
    if world.contexts is None:
        raise UserError("play: --clip and --checklist begin in held-out clips; give --data.")
    if config.clip is not None:
        world.contexts.named(config.clip, config.frame)
    for task in tasks:
        if task.clip is not None:
            world.contexts.named(task.clip, task.frame)


def _shelf(
    config: PlayConfig, world: PlayWorld, tasks: tuple[ChecklistTask, ...], inputs: dict[str, str]
) -> Shelf | None:
    if config.out is None:
        return None
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


def _key(config: PlayConfig, world: World | None) -> str:
    """What a session must find again to be the same: models, data, and which clip has which number."""
    clips = config.seed, config.split, config.context, config.clip, config.frame
    known = sorted(_inputs(config, world).items()), clips if config.data is not None else config.context
    return sha256(repr(known).encode()).hexdigest()[:16]


def _inputs(config: PlayConfig, world: World | None) -> dict[str, str]:
    """What is played in: name -> hash."""
    parts = {name: getattr(config, name) for name in ("tokenizer", "dynamics", "agent")}
    inputs = {name: weights_sha256(folder) for name, folder in parts.items() if folder is not None}
    if world is not None:
        inputs["world"] = _world_sha256(world)
    return inputs if config.data is None else {"data": ShardIndex.load(config.data).hash(), **inputs}


def _world_sha256(world: World) -> str:
    """Of all its files where it is packed, of its weights where it is the runs of several stages."""
    digest = sha256()
    if world.manifest is not None:
        digest.update(
            repr(sorted((name, file.sha256) for name, file in world.manifest.files.items())).encode()
        )
        return digest.hexdigest()
    for module in (world.tokenizer, world.policy or world.dynamics):
        for name, weights in sorted((module or torch.nn.Module()).state_dict().items()):
            digest.update(name.encode() + weights.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _name(config: PlayConfig, world: World | None) -> str:
    """What people call the world: its name, the game, or the folder of the runs."""
    if world is not None:
        return world.name
    model = config.agent or config.dynamics
    assert model is not None
    return config.env or model.resolve().parent.name


def _announce(server: PlayServer, config: PlayConfig) -> None:
    print(f"open {server.address}", flush=True)
    print(f"  ready after {seconds_since_start():.1f} s")
    port = server.port
    if server.is_local:
        print(f"  from another machine: ssh -L {port}:127.0.0.1:{port} this-machine")
    print("  Ctrl-C ends the session", flush=True)
    if config.open:
        webbrowser.open(server.address)
