"""Stage `encode`: video shards through the frozen tokenizer into latent shards."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from reverie.data.errors import UserError
from reverie.data.files.location import Location
from reverie.data.files.lock import sole_writer
from reverie.data.shards.index import Sample, ShardIndex
from reverie.data.shards.latents import LatentWriter
from reverie.data.shards.reader import BrokenSample, ShardReader
from reverie.nn.precision import bfloat16
from reverie.pipelines.runs.progress import meter
from reverie.pipelines.training.checkpoints import load_tokenizer, weights_sha256
from reverie.pipelines.training.devices import pick_device
from reverie.pipelines.worlds.places import take_worlds
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
    """Short clips share a forward pass up to this many frames, those of their past included."""
    shard_mb: float = 256.0
    """Size limit of one shard in MB."""
    device: str = "auto"
    """Device of the tokenizer: auto, cpu, cuda, ..."""
    precision: str = "fp32"
    """Arithmetic: fp32 or bf16."""

    def __post_init__(self) -> None:
        if self.precision not in ("fp32", "bf16"):
            raise UserError(f"precision: must be fp32 or bf16, got {self.precision!r}.")
        take_worlds(self, tokenizer="tokenizer")


def encode(config: EncodeConfig) -> None:
    """Runs the stage; a clip that cannot be read is left out and listed.

    Latents are those of one causal pass over each whole episode: what a clip's first frames see of the clips before it
    is decoded again, so that every clip is a function of the video shards alone, and a continued run gives the same bytes.

    Raises `UserError` when the tokenizer is for other frames, `out` holds other latents, or nothing can be read.
    """
    index = ShardIndex.load(config.data)
    device = pick_device(config.device)
    tokenizer = load_tokenizer(config.tokenizer, device)
    _check_frames(index, tokenizer, config)
    with sole_writer(config.out):
        _encode_all(index, tokenizer, config)


def _encode_all(index: ShardIndex, tokenizer: Tokenizer, config: EncodeConfig) -> None:
    writer = LatentWriter(
        config.out,
        index,
        tokenizer_sha256=weights_sha256(config.tokenizer),
        latent_shape=tokenizer.config.latent_shape,
        past_frames=tokenizer.encoder.config.reach - 1,
        shard_mb=config.shard_mb,
    )
    samples = [sample for split in index.splits for sample in index.samples(split)]
    planned = plan(samples, writer.past_frames)
    reader, skipped = ShardReader(index), dict[str, str]()
    with writer, meter("encode", sum(s.n for s in samples)) as shown:
        for group in packs(planned, config.frames_per_pass):
            if not all(writer.has(clip.sample) for clip in group):
                skipped |= _encode_group(reader, tokenizer, writer, group, config.precision)
            shown.update(sum(clip.sample.n for clip in group))
        _require_some(config, samples, skipped)
        writer.finish(skipped)
    reader.close()
    for reason in skipped.values():
        print(f"skipped {reason}")
    if skipped:
        print(f"skipped {len(skipped)} of {len(samples)} clips")


@dataclass(frozen=True)
class PlannedClip:
    """A clip, and the frames of its episode that its first frames see: (sample, first frame, end), in order of time."""

    sample: Sample
    past: tuple[tuple[Sample, int, int], ...]

    @property
    def num_past(self) -> int:
        """Frames of the past."""
        return sum(stop - start for _, start, stop in self.past)


def plan(samples: Sequence[Sample], past_frames: int) -> list[PlannedClip]:
    """Every clip with up to `past_frames` frames before it, as far back as its episode has no gap."""
    ends = {(sample.episode, sample.start + sample.n): sample for sample in samples}
    return [PlannedClip(sample, tuple(_past(sample, past_frames, ends))) for sample in samples]


def _past(
    sample: Sample, missing: int, ends: Mapping[tuple[str, int], Sample]
) -> list[tuple[Sample, int, int]]:
    parts: list[tuple[Sample, int, int]] = []
    before = ends.get((sample.episode, sample.start))
    while missing > 0 and before is not None:
        taken = min(before.n, missing)
        parts.insert(0, (before, before.n - taken, before.n))
        missing -= taken
        before = ends.get((before.episode, before.start))
    return parts


def packs(clips: Sequence[PlannedClip], frames: int) -> Iterator[list[PlannedClip]]:
    """Consecutive clips in groups of at most `frames` frames with their past (or one longer clip)."""
    group: list[PlannedClip] = []
    for clip in clips:
        if group and sum(c.sample.n + c.num_past for c in [*group, clip]) > frames:
            yield group
            group = []
        group.append(clip)
    if group:
        yield group


def _encode_group(
    reader: ShardReader,
    tokenizer: Tokenizer,
    writer: LatentWriter,
    group: Sequence[PlannedClip],
    precision: str,
) -> dict[str, str]:
    """Encodes and stores clips; returns key -> reason of those that cannot be read."""
    skipped: dict[str, str] = {}
    clips: list[tuple[Sample, np.ndarray, np.ndarray]] = []
    for clip in group:
        try:
            frames = reader.frames(clip.sample, 0, clip.sample.n)
            writer.require_readable(clip.sample)
        except BrokenSample as error:
            skipped[clip.sample.key] = str(error)
            continue
        clips.append((clip.sample, _past_frames(reader, clip, frames), frames))
    latents = _latents(tokenizer, [np.concatenate(parts) for _, *parts in clips], precision) if clips else []
    for (sample, past, _), whole in zip(clips, latents, strict=True):
        writer.add(sample, whole[len(past) :])
    return skipped


def _past_frames(reader: ShardReader, clip: PlannedClip, frames: np.ndarray) -> np.ndarray:
    """(num_past, H, W, 3), fewer where a clip before cannot be read: there the episode begins anew."""
    parts: list[np.ndarray] = []
    for sample, start, stop in reversed(clip.past):
        try:
            parts.insert(0, reader.frames(sample, start, stop))
        except BrokenSample:
            break
    return np.concatenate([*parts, frames[:0]])


@torch.no_grad()
def _latents(tokenizer: Tokenizer, stretches: Sequence[np.ndarray], precision: str) -> list[np.ndarray]:
    """Of (n, H, W, 3) stretches, in one forward pass over all laid end to end; segments keep them from seeing each other."""
    device, lengths = tokenizer.mask_token.device, [len(stretch) for stretch in stretches]
    frames = torch.from_numpy(np.concatenate(stretches))[None].to(device)
    segment = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))[None].to(device)
    with bfloat16(device, precision == "bf16"):
        latents = tokenizer.encode(frames, segment)[0].cpu()
    return [part.numpy() for part in latents.split(lengths)]


def _require_some(config: EncodeConfig, samples: Sequence[Sample], skipped: Mapping[str, str]) -> None:
    if len(skipped) == len(samples):
        first = next(iter(skipped.values()), "it is empty")
        raise UserError(
            f"{config.data}: none of its {len(samples)} clips can be read, the first because: {first}"
        )


def _check_frames(index: ShardIndex, tokenizer: Tokenizer, config: EncodeConfig) -> None:
    if index.latent_shape is not None:
        raise UserError(f"{config.data}: holds latents already; give the folder that `reverie prepare` made.")
    if tuple(tokenizer.config.frame_size) != index.frame_size:
        raise UserError(
            f"{config.tokenizer}: is for frames of {tuple(tokenizer.config.frame_size)}, "
            f"but {config.data} has {index.frame_size}; prepare the data with that frame size."
        )
