"""`reverie fvd`: the Frechet video distance between a world model's own videos and held-out ones."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from reverie.agent.dream import Dream
from reverie.agent.model import Agent
from reverie.agent.player import Player
from reverie.data.errors import UserError
from reverie.data.files.durable import explain_full_disk, new_file
from reverie.data.files.location import Location
from reverie.data.files.lock import sole_writer
from reverie.data.shards.index import ShardIndex
from reverie.data.shards.reader import ShardReader
from reverie.dynamics.fast_frame import use_fast
from reverie.dynamics.frame import Step
from reverie.dynamics.model import Dynamics
from reverie.evaluation.fvd import FVD, MIN_CHUNKS, Actor, act_as_recorded, act_by, dream_chunks, score
from reverie.evaluation.i3d import FEATURES, MIN_FRAMES, SHA256, VideoFeatures, find_i3d, load_i3d
from reverie.evaluation.windows import Actions, Stretch, load_windows, read_stretch, select
from reverie.nn.compilation import Compile
from reverie.nn.precision import in_bfloat16, round_weights
from reverie.pipelines.runs.atomic import write_json
from reverie.pipelines.runs.progress import meter
from reverie.pipelines.runs.run import open_run
from reverie.pipelines.scoring.models import require_actions, require_frames, require_kind, require_tokenizer
from reverie.pipelines.training.checkpoints import load_agent, load_dynamics, load_tokenizer, weights_sha256
from reverie.pipelines.training.devices import pick_device
from reverie.pipelines.worlds.places import take_worlds
from reverie.tokenizer.model import Tokenizer

SPLIT = "validation"
_REAL = 64
"""Held-out chunks whose features share a file."""


@dataclass(frozen=True, kw_only=True)
class FvdConfig:
    """Frechet video distance (FVD) of a world model; the defaults are the paper's protocol."""

    data: Location
    """Folder of video shards, or the URL of one; its validation split is what is held out."""
    tokenizer: Path
    """Run folder of the tokenizer."""
    dynamics: Path
    """Run folder of the dynamics model."""
    out: Path
    """Folder of features and report; the same command again continues."""
    policy: Path | None = None
    """Run folder of `clone`: who acts in the videos, the same for all models compared; null for the actions of recordings."""
    task: str | None = None
    """Task that the policy is asked for; null for none."""
    i3d: Path | None = None
    """The feature network i3d_torchscript.pt; null for the one in the cache folder."""
    i3d_sha256: str = SHA256
    """Checksum of that file; give another one only for a file you trust to run as a program."""
    videos: int = 1024
    """Generated videos."""
    frames: int = 384
    """Frames of each, all generated."""
    chunk: int = 16
    """Frames of a chunk, at least 10."""
    real_chunks: int | None = None
    """Held-out chunks, at most; null for as many as are generated."""
    group: str | None = None
    """Recordings of this group only (VPT: overworld or nether_end); null for all."""
    sampling_steps: int = 4
    """Denoising steps K for a frame, a power of two."""
    batch_size: int = 16
    """Videos generated at once."""
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    """Arithmetic of the world model; auto is bfloat16 on GPUs that multiply it in hardware, float32 elsewhere."""
    seed: int = 0
    """Seed of noise, policy and choice of recordings."""
    device: str = "auto"
    """Device: auto, cpu, cuda or cuda:N."""
    compile: Compile = "auto"
    """Compile what makes a frame: auto does on GPUs, and on CPUs where it pays."""

    def __post_init__(self) -> None:
        take_worlds(self, tokenizer="tokenizer", dynamics="dynamics", policy="agent")
        for name in ("videos", "batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}: must be at least 1, got {getattr(self, name)}.")
        if self.seed < 0:
            raise UserError(f"seed: must be at least 0, got {self.seed}.")
        if self.task is not None and self.policy is None:
            raise UserError("task: is what a policy is asked for; give --policy, or leave it out.")
        if self.chunk < MIN_FRAMES:
            raise UserError(f"chunk: must be at least {MIN_FRAMES} frames, got {self.chunk}.")
        if self.sampling_steps < 1 or self.sampling_steps & (self.sampling_steps - 1):
            raise UserError(f"sampling_steps: must be a power of two, got {self.sampling_steps}.")
        if self.num_chunks < MIN_CHUNKS:
            raise UserError(
                f"videos: {self.videos} of {self.frames} frames give {self.num_chunks} chunks of {self.chunk}, but the "
                f"covariance of 400 features needs {MIN_CHUNKS}; raise --videos or --frames."
            )

    @property
    def chunks_per_video(self) -> int:
        """Whole chunks in a generated video."""
        return self.frames // self.chunk

    @property
    def num_chunks(self) -> int:
        """Generated chunks."""
        return self.videos * self.chunks_per_video


@dataclass(frozen=True)
class _Models:
    tokenizer: Tokenizer
    dynamics: Dynamics
    policy: Agent | None
    features: VideoFeatures


def _use_fast(config: FvdConfig, models: _Models) -> bool:
    frames = -(-config.videos // config.batch_size) * config.frames
    return use_fast(config.compile, models.tokenizer.mask_token.device, frames)


def fvd(config: FvdConfig) -> FVD:
    """Generates, reads, measures, prints, and writes report.json. Raises `UserError` when something does not fit."""
    index = ShardIndex.load(config.data)
    network = find_i3d(config.i3d, config.i3d_sha256)
    models = _load_models(config, index, network)
    chosen = index.of_group(config.group)
    wanted = config.num_chunks if config.real_chunks is None else config.real_chunks
    places = select(chosen, config.chunk, wanted, config.seed, SPLIT, lower="--chunk").places
    if len(places) < MIN_CHUNKS:
        raise UserError(
            f"{config.data}: {len(places)} held-out chunks of {config.chunk} frames are used, but the covariance of 400 "
            f"features needs {MIN_CHUNKS}; prepare more data, or raise --real_chunks."
        )
    recorded = None if config.policy is not None else _recorded_actions(config, chosen)
    with sole_writer(config.out):
        return _measure(config, models, chosen, places, recorded, _inputs(config, index))


def _measure(
    config: FvdConfig,
    models: _Models,
    index: ShardIndex,
    places: list[tuple[Stretch, int]],
    recorded: Actions | None,
    inputs: dict[str, str],
) -> FVD:
    folder = config.out / "features"
    open_run(config.out, kind="fvd", config=config, model=_identity(config), inputs=inputs)
    with explain_full_disk(folder):
        folder.mkdir(exist_ok=True)
        generated = _generated_features(config, models, index, recorded, folder)
        real = _real_features(config, models.features, index, places, folder)
    found = score(generated, real, config.seed)
    report = {"format": 1, **found.to_json(), **_identity(config), "inputs": inputs}
    write_json(config.out / "report.json", report)
    print(describe(found, config))
    return found


def describe(found: FVD, config: FvdConfig) -> str:
    """The figure and what it rests on, in two lines."""
    half = "-" if found.half is None else f"{found.half:.1f}"
    floor = "-" if found.floor is None else f"{found.floor:.1f}"
    return (
        f"FVD {found.value:.1f}: {found.generated} chunks of {config.chunk} frames from {config.videos} generated videos "
        f"against {found.real} held-out chunks\n"
        f"  with half of each {half}; half of the held-out chunks against the other half {floor}. "
        f"FVD falls with the number of chunks: compare equal numbers only."
    )


def _load_models(config: FvdConfig, index: ShardIndex, network: Path) -> _Models:
    if index.latent_shape is not None:
        raise UserError(f"{config.data}: holds latents; give the folder of video shards that `prepare` made.")
    require_kind("tokenizer", config.tokenizer)
    require_kind("dynamics", config.dynamics)
    require_kind("agent", config.policy)
    device = pick_device(config.device)
    require_frames(config.tokenizer, index)
    for path in (config.dynamics, config.policy):
        if path is not None:
            require_tokenizer(config.tokenizer, path)
            require_actions(path, index)
    dynamics = load_dynamics(config.dynamics, device).eval()
    if in_bfloat16(config.precision, device):
        round_weights(dynamics)
    return _Models(
        tokenizer=load_tokenizer(config.tokenizer, device).eval(),
        dynamics=dynamics,
        policy=None if config.policy is None else load_agent(config.policy, device),
        features=load_i3d(network, device),
    )


def _recorded_actions(config: FvdConfig, index: ShardIndex) -> Actions:
    """What led to the frames of held-out windows, one for each video, taken again where there are too few."""
    places = select(index, config.frames, config.videos, config.seed, SPLIT, lower="--frames").places
    actions = load_windows(index, places, config.frames).actions
    return actions.rows(torch.arange(config.videos) % len(places))


def _identity(config: FvdConfig) -> dict[str, object]:
    """The settings on which features depend; `videos` may be raised later."""
    names = ("frames", "chunk", "group", "task", "sampling_steps", "batch_size", "precision", "seed")
    return {name: getattr(config, name) for name in names}


def _inputs(config: FvdConfig, index: ShardIndex) -> dict[str, str]:
    runs = {name: getattr(config, name) for name in ("tokenizer", "dynamics", "policy")}
    hashes = {name: weights_sha256(run) for name, run in runs.items() if run is not None}
    return {"data": index.hash(), "i3d": config.i3d_sha256, **hashes}


def _generated_features(
    config: FvdConfig, models: _Models, index: ShardIndex, recorded: Actions | None, folder: Path
) -> np.ndarray:
    """(videos, chunks, 400); finished batches lie in files."""
    found = []
    with meter("generate videos", config.videos) as shown:
        for start in range(0, config.videos, config.batch_size):
            rows = torch.arange(start, min(start + config.batch_size, config.videos))
            path = folder / f"generated-{start:06d}-{len(rows)}.npy"
            features = read_features(path, (len(rows), config.chunks_per_video, FEATURES))
            if features is None:
                actor = _actor(config, models, index, recorded, rows)
                features = np.stack(list(_batch(config, models, index, actor, rows)), axis=1)
                _save(path, features)
            found.append(features)
            shown.update(len(rows))
    return np.concatenate(found)


def _batch(
    config: FvdConfig, models: _Models, index: ShardIndex, actor: Actor, rows: Tensor
) -> Iterator[np.ndarray]:
    """(N, 400) features of each chunk of N videos."""
    nothing = torch.zeros(len(rows), 0, *index.frame_size, 3, dtype=torch.uint8)
    led = Step(index.action_space.null(len(rows), 0), torch.zeros(len(rows), 0, dtype=torch.bool))
    dream = Dream(
        models.tokenizer,
        models.dynamics,
        nothing,
        led,
        sampling_steps=config.sampling_steps,
        seed=config.seed + int(rows[0]),
        half=in_bfloat16(config.precision, models.tokenizer.mask_token.device),
        fast=_use_fast(config, models),
    )
    for chunk in dream_chunks(dream, actor, config.chunks_per_video, config.chunk):
        yield models.features(chunk).numpy()


def _actor(
    config: FvdConfig, models: _Models, index: ShardIndex, recorded: Actions | None, rows: Tensor
) -> Actor:
    if recorded is not None:
        return act_as_recorded(recorded.rows(rows))
    policy = models.policy
    assert policy is not None
    task = -1 if config.task is None else policy.task_index(config.task)
    seed = config.seed + int(rows[0])
    fast = _use_fast(config, models)
    player = Player(models.tokenizer, policy, len(rows), task=task, seed=seed, fast=fast)
    return act_by(player, index.action_space, len(rows))


def _real_features(
    config: FvdConfig,
    features: VideoFeatures,
    index: ShardIndex,
    places: list[tuple[Stretch, int]],
    folder: Path,
) -> np.ndarray:
    """(chunks, 400)."""
    reader, found = ShardReader(index), []
    with meter("read held-out chunks", len(places)) as shown:
        for start in range(0, len(places), _REAL):
            group = places[start : start + _REAL]
            path = folder / f"real-{start:06d}-{len(group)}.npy"
            known = read_features(path, (len(group), FEATURES))
            if known is None:
                parts = [group[i : i + config.batch_size] for i in range(0, len(group), config.batch_size)]
                known = np.concatenate([_read_chunks(config, features, reader, part) for part in parts])
                _save(path, known)
            found.append(known)
            shown.update(len(group))
    reader.close()
    return np.concatenate(found)


def _read_chunks(
    config: FvdConfig, features: VideoFeatures, reader: ShardReader, places: list[tuple[Stretch, int]]
) -> np.ndarray:
    frames = [read_stretch(reader, stretch, start, start + config.chunk) for stretch, start in places]
    return features(torch.from_numpy(np.stack(frames))).numpy()


def read_features(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """The features of an earlier launch; None where there are none, or, with a note, where they are damaged."""
    if not path.exists():
        return None
    try:
        found = np.load(path, allow_pickle=False)
        if (
            isinstance(found, np.ndarray)
            and found.shape == shape
            and found.dtype == np.float32
            and np.isfinite(found).all()
        ):
            return found
    except Exception:  # a damaged header raises anything: SyntaxError, TokenError, MemoryError, ...
        pass
    print(f"{path}: is damaged; its features are computed again.", file=sys.stderr)
    return None


def _save(path: Path, features: np.ndarray) -> None:
    with new_file(path) as partial, partial.open("wb") as file:
        np.save(file, features, allow_pickle=False)
