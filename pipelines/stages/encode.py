"""Stage `encode`: video shards through the frozen tokenizer into latent shards."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from reverie.data.errors import UserError
from reverie.data.files.location import Location
from reverie.data.shards.index import Sample, ShardIndex
from reverie.data.shards.latents import LatentWriter
from reverie.data.shards.reader import read_clip
from reverie.nn.precision import bfloat16
from reverie.pipelines.runs.progress import meter
from reverie.pipelines.training.checkpoints import load_tokenizer, weights_sha256
from reverie.tokenizer.model import Tokenizer


@dataclass(frozen=True, kw_only=True)
class EncodeConfig:
    """Encodes every clip of video shards."""

    data: Location
    """Folder of video shards, or the URL of one."""
    tokenizer: Path
    """Run folder of the tokenizer."""
    out: Path
    """Folder of the latent shards; the same command again continues."""
    frames_per_pass: int = 256
    """Short clips share a forward pass up to this many frames."""
    shard_mb: float = 256.0
    """Size limit of one shard in MB."""
    device: str = "auto"
    """Device of the tokenizer: auto, cpu, cuda, ..."""
    precision: str = "fp32"
    """Arithmetic: fp32 or bf16."""

    def __post_init__(self) -> None:
        if self.precision not in ("fp32", "bf16"):
            raise UserError(f"precision: must be fp32 or bf16, got {self.precision!r}.")


def encode(config: EncodeConfig) -> None:
    """Runs the stage. Raises `UserError` when the tokenizer is for other frames or `out` holds other latents."""
    index = ShardIndex.load(config.data)
    device = pick_device(config.device)
    tokenizer = load_tokenizer(config.tokenizer, device)
    _check_frames(index, tokenizer, config)
    writer = LatentWriter(
        config.out,
        index,
        tokenizer_sha256=weights_sha256(config.tokenizer),
        latent_shape=tokenizer.config.latent_shape,
        shard_mb=config.shard_mb,
    )
    samples = [sample for split in index.splits for sample in index.samples(split)]
    with writer, meter("encode", sum(s.n for s in samples)) as shown:
        for group in packs(samples, config.frames_per_pass):
            if not all(writer.has(sample) for sample in group):
                _encode_group(index, tokenizer, writer, group, config.precision)
            shown.update(sum(sample.n for sample in group))
        writer.finish()


def packs(samples: Sequence[Sample], frames: int) -> Iterator[list[Sample]]:
    """Consecutive samples in groups of at most `frames` frames (or one longer sample)."""
    group: list[Sample] = []
    for sample in samples:
        if group and sum(s.n for s in group) + sample.n > frames:
            yield group
            group = []
        group.append(sample)
    if group:
        yield group


def pick_device(name: str) -> torch.device:
    """The named device; auto is the first CUDA device, or the CPU. Raises `UserError` for one that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError):
        raise UserError(f"device: {name!r} is not available here; use auto, cpu or cuda.") from None
    return device


@torch.no_grad()
def _encode_group(
    index: ShardIndex, tokenizer: Tokenizer, writer: LatentWriter, group: Sequence[Sample], precision: str
) -> None:
    """One forward pass over clips laid end to end; segments keep them from seeing each other."""
    clips = [read_clip(index, sample).frames for sample in group]
    lengths = [sample.n for sample in group]
    device = tokenizer.mask_token.device
    frames = torch.from_numpy(np.concatenate([clip for clip in clips if clip is not None]))[None].to(device)
    segment = torch.repeat_interleave(torch.arange(len(group)), torch.tensor(lengths))[None].to(device)
    with bfloat16(device, precision == "bf16"):
        latents = tokenizer.encode(frames, segment)[0].cpu()
    for sample, part in zip(group, latents.split(lengths), strict=True):
        writer.add(sample, part.numpy())


def _check_frames(index: ShardIndex, tokenizer: Tokenizer, config: EncodeConfig) -> None:
    if index.latent_shape is not None:
        raise UserError(f"{config.data}: holds latents already; give the folder that `reverie prepare` made.")
    if tuple(tokenizer.config.frame_size) != index.frame_size:
        raise UserError(
            f"{config.tokenizer}: is for frames of {tuple(tokenizer.config.frame_size)}, "
            f"but {config.data} has {index.frame_size}; prepare the data with that frame size."
        )
