"""Do shards hold what their index says? Every byte and every clip.

Nothing is changed here; `data.shards.rebuild` makes an index from shards, `data.shards.alignment` compares actions with pictures.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from reverie.data.errors import UserError
from reverie.data.files.documents import parse_json
from reverie.data.files.durable import file_sha256
from reverie.data.shards.index import Sample, ShardIndex
from reverie.data.shards.local import ShardUnavailable
from reverie.data.shards.members import Listing, is_plain, list_members
from reverie.data.shards.reader import ShardReader
from reverie.data.shards.schema import check_meta
from reverie.data.shards.steps import Steps
from reverie.data.shards.store import Shards

_NOT_IN_META = ("split", "shard", "key", "members")
_UNREADABLE = (
    *(
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        OverflowError,
        OSError,
        EOFError,
        NotImplementedError,
    ),
    *(zlib.error, struct.error, av.FFmpegError),
)
"""What the readers of mp4, npz, npy and json raise on damaged bytes."""


@dataclass(frozen=True)
class Problem:
    """Something wrong: the shard or clip, and what is wrong with it."""

    place: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


def check_shard(shards: Shards, record: dict[str, Any], samples: list[Sample]) -> Iterator[Problem]:
    """Size, checksum and members of one shard against its record in the index and its samples there."""
    name = record["name"]
    if not is_plain(name):
        yield Problem(name, "is no plain file name")
        return
    try:
        with shards.held(name) as path:
            yield from _check_file(path, record, samples)
    except ShardUnavailable as error:
        yield Problem(name, str(error).removeprefix(f"{shards.folder / name}: "))


def _check_file(path: Path, record: dict[str, Any], samples: list[Sample]) -> Iterator[Problem]:
    name = record["name"]
    size, digest = path.stat().st_size, file_sha256(path)
    if size != record["bytes"]:
        yield Problem(name, f"has {size:,} bytes, the index says {record['bytes']:,}")
    if digest != record["sha256"]:
        yield Problem(name, f"has sha256 {digest[:12]}..., the index says {record['sha256'][:12]}...")
    listing = list_members(path)
    yield from foreign_members(name, listing)
    yield from _check_places(name, listing, samples)


def foreign_members(shard: str, listing: Listing) -> Iterator[Problem]:
    """Members whose names could write outside a folder, or that are no regular files."""
    for name in listing.foreign:
        yield Problem(
            shard, f"holds {name!r}, which is no plain file; do not unpack it, prepare the data again"
        )


def check_clip(reader: ShardReader, sample: Sample) -> tuple[np.ndarray, Steps]:
    """Frames (n, H, W, 3), or latents (n, N_z, D_z), and log of a clip that is as the index says.

    Raises `UserError` saying what is wrong with it.
    """
    index = reader.index
    place = f"{sample.shard}: {sample.key}"
    if not is_plain(sample.shard):
        raise UserError(f"{place}: its shard is no plain file name")
    try:
        _check_meta(reader, sample)
        steps = Steps.from_npz(reader.member(sample, "steps.npz"))
        steps = steps.checked(sample.n, index.action_space, len(index.tasks))
        if index.latent_shape is not None:
            return reader.latents(sample, 0, sample.n), steps
        return strict_frames(reader.member(sample, "clip.mp4"), sample.n, index.frame_size), steps
    except _UNREADABLE as error:
        raise UserError(f"{place}: {_reason(error)}") from None


def strict_frames(content: bytes, n: int, size: tuple[int, int]) -> np.ndarray:
    """(n, H, W, 3) uint8 of an mp4; raises on damage that players, and the loader, would smooth over."""
    with av.open(io.BytesIO(content)) as container:
        stream = container.streams.video[0]
        stream.codec_context.options = {"err_detect": "explode"}
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    if len(frames) != n:
        raise UserError(f"its video has {len(frames)} frames, not {n}")
    if frames[0].shape[0] < size[0] or frames[0].shape[1] < size[1]:
        raise UserError(f"its video has frames of {frames[0].shape[:2]}, smaller than {size}")
    return np.stack([frame[: size[0], : size[1]] for frame in frames])


def all_samples(index: ShardIndex) -> list[Sample]:
    """The clips of all splits."""
    return [sample for split in index.splits for sample in index.samples(split)]


def _check_places(shard: str, listing: Listing, samples: list[Sample]) -> Iterator[Problem]:
    there = listing.places()
    for sample in samples:
        for extension, place in sample.members.items():
            found = there.get(f"{sample.key}.{extension}")
            if found is None:
                yield Problem(f"{shard}: {sample.key}", f"the tar holds no whole {extension}")
            elif found != place:
                yield Problem(
                    f"{shard}: {sample.key}", f"{extension} lies at {found}, the index says {place}"
                )


def _check_meta(reader: ShardReader, sample: Sample) -> None:
    index, meta = reader.index, parse_json(reader.member(sample, "meta.json"))
    check_meta(meta)
    said = {name: value for name, value in sample.to_json().items() if name not in _NOT_IN_META}
    said |= {"fps": index.fps, "size": list(index.frame_size)}
    for name in sorted(said.keys() | meta.keys()):
        if said.get(name) != meta.get(name):
            raise UserError(f"meta.json has {name} = {meta.get(name)}, the index says {said.get(name)}")


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()).rstrip(".")
    return text if isinstance(error, UserError) else f"cannot be read ({text or type(error).__name__})"
