"""Reading clips out of shards by byte range: no tar is ever scanned."""

from collections import OrderedDict
from dataclasses import dataclass
from math import inf, prod
from typing import Any

import numpy as np

from reverie.data.errors import UserError
from reverie.data.files.documents import parse_json
from reverie.data.shards.index import Sample, ShardIndex
from reverie.data.shards.local import PATIENCE, ShardUnavailable
from reverie.data.shards.npz import MOST_BYTES, npy_layout
from reverie.data.shards.schema import MOST_META_BYTES, check_meta
from reverie.data.shards.steps import Steps
from reverie.data.shards.store import open_shards
from reverie.data.video.codec import read_frames
from reverie.data.video.decoders import Backend

_MOST_STEPS = 50_000
"""Steps whose logs are kept parsed: some megabytes, of hundreds of clips at least."""
_NPY_HEADER_LIMIT = 1024
_MOST_BYTES = {"meta.json": MOST_META_BYTES, "steps.npz": MOST_BYTES}
_LONGEST = 300
"""Characters of a library's reason that are shown."""


class BrokenSample(UserError):
    """A clip whose bytes cannot be had, or read as what they should be; names the shard, and the key of a damaged clip."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One whole sample. Exactly one of `frames` and `latents` is given.

    frames   (n, H, W, 3) uint8
    latents  (n, N_z, D_z) float16
    steps    the log of the n frames
    meta     meta.json: source, episode, start, n, fps, size, is_first, is_last, is_terminal, labelled
    """

    frames: np.ndarray | None
    latents: np.ndarray | None
    steps: Steps
    meta: dict[str, Any]


class ShardReader:
    """Reads parts of samples. May be copied to worker processes, each of which opens its own files.

    Args:
        index: of video or latent shards.
        cache_bytes: decoded clips or latents kept in memory, if all of them fit; 0 to keep none.
        decoder: see `data.video.decoders.open_video`.
        patience: seconds after which a shard in a folder that does not answer is broken.
    """

    def __init__(
        self,
        index: ShardIndex,
        *,
        cache_bytes: int = 0,
        decoder: Backend = "pyav",
        patience: float = PATIENCE,
    ):
        self.index, self._decoder = index, decoder
        total = sum(record["frames"] for record in index.content["shards"]) * _frame_bytes(index)
        self._keep_clips = total <= cache_bytes
        self._clips: dict[str, np.ndarray] = {}
        self._offsets: dict[str, int] = {}
        self._steps: OrderedDict[str, Steps] = OrderedDict()
        self._kept_steps = 0
        self._shards = open_shards(index.folder, index.content["shards"], patience)

    def frames(self, sample: Sample, start: int, stop: int) -> np.ndarray:
        """(stop - start, H, W, 3) uint8. Raises `BrokenSample`."""
        if not self._keep_clips:
            return self._decode(sample, start, stop)
        if sample.key not in self._clips:
            self._clips[sample.key] = self._decode(sample, 0, sample.n)
        return self._clips[sample.key][start:stop]

    def latents(self, sample: Sample, start: int, stop: int) -> np.ndarray:
        """(stop - start, N_z, D_z) float16; reads only these rows, or keeps all. Raises `BrokenSample`."""
        if not self._keep_clips:
            latents = self._latent_rows(sample, start, stop)
        else:
            if sample.key not in self._clips:
                self._clips[sample.key] = self._latent_rows(sample, 0, sample.n)
            latents = self._clips[sample.key][start:stop]
        if not np.isfinite(latents).all():
            raise self._broken(sample, ValueError("latents.npy holds values that are not finite"))
        return latents

    def steps(self, sample: Sample) -> Steps:
        """The log of the whole sample. Raises `BrokenSample`."""
        if sample.key not in self._steps:
            self._steps[sample.key] = self._parse_steps(sample)
            self._kept_steps += sample.n
            while self._kept_steps > _MOST_STEPS and len(self._steps) > 1:
                _, dropped = self._steps.popitem(last=False)
                self._kept_steps -= len(dropped.reward)
        return self._steps[sample.key]

    def member(self, sample: Sample, name: str) -> bytes:
        """The bytes of one member, e.g. "clip.mp4". Raises `BrokenSample`."""
        if name not in sample.members:
            raise self._broken(sample, ValueError(f"it has no {name}"))
        size, most = sample.members[name][1], _MOST_BYTES.get(name, inf)
        if size > most:
            raise self._broken(sample, ValueError(f"{name} has {size:,} bytes, more than {most:,}"))
        return self._read(sample, *sample.members[name])

    def meta(self, sample: Sample) -> dict[str, Any]:
        """The checked content of meta.json. Raises `BrokenSample`."""
        try:
            return check_meta(parse_json(self.member(sample, "meta.json")))
        except BrokenSample:
            raise
        except ValueError as error:
            raise self._broken(sample, ValueError(f"meta.json: {error}")) from None

    def close(self) -> None:
        """Closes the shards."""
        self._shards.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_clips": {}, "_steps": OrderedDict(), "_kept_steps": 0}

    def _decode(self, sample: Sample, start: int, stop: int) -> np.ndarray:
        content, size = self.member(sample, "clip.mp4"), self.index.frame_size
        try:
            frames = read_frames(content, range(start, stop), size, self._decoder)
        except Exception as error:  # a damaged video raises anything
            raise self._broken(sample, error) from None
        if frames.shape != (stop - start, *size, 3):
            raise self._broken(sample, ValueError(f"its frames are {frames.shape[1:3]}, not {size}"))
        return frames

    def _latent_rows(self, sample: Sample, start: int, stop: int) -> np.ndarray:
        shape = self.index.latent_shape
        assert shape is not None, "video shards hold no latents"
        if sample.key not in self._offsets:
            self._offsets[sample.key] = self._latents_offset(sample, shape)
        row = _frame_bytes(self.index)
        content = self._read(sample, self._offsets[sample.key] + start * row, (stop - start) * row)
        return np.frombuffer(content, np.float16).reshape(stop - start, *shape)

    def _latents_offset(self, sample: Sample, shape: tuple[int, int]) -> int:
        """Where in the shard the first row of latents.npy begins."""
        if "latents.npy" not in sample.members:
            raise self._broken(sample, ValueError("it has no latents.npy"))
        offset, size = sample.members["latents.npy"]
        head = self._read(sample, offset, min(size, _NPY_HEADER_LIMIT))
        try:
            begin, dtype, there = npy_layout(head)
        except ValueError as error:
            raise self._broken(sample, error) from None
        if dtype != np.float16 or there != (sample.n, *shape):
            wrong = f"latents.npy is {dtype} {there}, not float16 {(sample.n, *shape)}"
            raise self._broken(sample, ValueError(wrong))
        if begin + dtype.itemsize * prod(there) != size:
            raise self._broken(sample, ValueError(f"latents.npy has {size} bytes, which do not fit {there}"))
        return offset + begin

    def _parse_steps(self, sample: Sample) -> Steps:
        content, index = self.member(sample, "steps.npz"), self.index
        try:
            return Steps.from_npz(content).checked(sample.n, index.action_space, len(index.tasks))
        except Exception as error:  # a damaged archive raises anything
            raise self._broken(sample, error) from None

    def _read(self, sample: Sample, offset: int, size: int) -> bytes:
        try:
            content = self._shards.read(sample.shard, offset, size)
        except ShardUnavailable as error:
            raise BrokenSample(error.losing(self.index.clips_in(sample.shard))) from None
        except OSError as error:
            raise self._broken(sample, error) from None
        if len(content) != size:
            raise self._broken(sample, OSError(f"the shard ends after {offset + len(content)} bytes"))
        return content

    def _broken(self, sample: Sample, error: Exception) -> BrokenSample:
        place = self.index.folder / sample.shard
        reason = " ".join(str(error).split())[:_LONGEST].rstrip(".") or type(error).__name__
        return BrokenSample(f"{place}: clip {sample.key} is damaged ({reason}); prepare the data again.")


def _frame_bytes(index: ShardIndex) -> int:
    """Of one frame in memory, decoded or as latents."""
    if index.latent_shape is not None:
        return np.dtype(np.float16).itemsize * prod(index.latent_shape)
    return prod(index.frame_size) * 3


def read_clip(index: ShardIndex, sample: Sample) -> Clip:
    """The whole sample, of video or latent shards. Raises `BrokenSample`."""
    reader = ShardReader(index)
    try:
        is_video = index.latent_shape is None
        return Clip(
            frames=reader.frames(sample, 0, sample.n) if is_video else None,
            latents=None if is_video else reader.latents(sample, 0, sample.n),
            steps=reader.steps(sample),
            meta=reader.meta(sample),
        )
    finally:
        reader.close()
