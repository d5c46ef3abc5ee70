"""Data of any size without a download: films of noise that drifts, their shards, and latents of no tokenizer."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from reverie.data.shards.index import ShardIndex
from reverie.data.shards.latents import LatentWriter
from reverie.data.video.codec import encode_video
from reverie.pipelines.datasets.prepare import PrepareConfig, prepare
from reverie.pipelines.datasets.record import RecordConfig, record

FPS = 20


def video_shards(root: Path, size: tuple[int, int], clips: int, frames: int) -> Path:
    """Shards of `clips` films of `frames` frames, without actions; made once."""
    out = root / f"video-{size[0]}x{size[1]}-{clips}x{frames}"
    if not (out / "index.json").is_file():
        source = root / f"films-{out.name}"
        source.mkdir(parents=True, exist_ok=True)
        for number in range(clips):
            encode_video(source / f"{number}.mp4", _film(number, size, frames), FPS, quality="high")
        prepare(PrepareConfig(source=source, out=out, clip_length=frames, workers=4))
    return out


def latent_shards(root: Path, shape: tuple[int, int], clips: int, frames: int) -> Path:
    """Latents (N_z, D_z) = `shape` of small films."""
    out = root / f"latents-{shape[0]}x{shape[1]}-{clips}x{frames}"
    if not (out / "index.json").is_file():
        index, rng = ShardIndex.load(video_shards(root, (32, 32), clips, frames)), np.random.default_rng(0)
        with LatentWriter(out, index, tokenizer_sha256="none", latent_shape=shape) as writer:
            for split in index.splits:
                for sample in index.samples(split):
                    if not writer.has(sample):
                        writer.add(sample, rng.uniform(-1, 1, (sample.n, *shape)))
            writer.finish()
    return out


def game_shards(root: Path, episodes: int, size: tuple[int, int] | None = None) -> Path:
    """Recorded play with actions and tasks."""
    out = root / f"game-{episodes}-{'own' if size is None else f'{size[0]}x{size[1]}'}"
    if not (out / "index.json").is_file():
        source = root / f"episodes-{episodes}"
        record(RecordConfig(out=source, env="minigrid-doorkey", episodes=episodes, seed=1))
        prepare(PrepareConfig(source=source, out=out, size=size, workers=4))
    return out


def _film(number: int, size: tuple[int, int], frames: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 256, (-(-size[0] // 8), -(-size[1] // 8), 3), np.uint8)
    picture = np.kron(coarse, np.ones((8, 8, 1), np.uint8))[: size[0], : size[1]]
    return (np.roll(picture, 3 * i, 1) for i in range(frames))
