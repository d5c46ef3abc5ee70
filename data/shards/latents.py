"""Latent shards: the tokenizer's output in place of the video, with the logs of the video shards.

with LatentWriter(out, index, tokenizer_sha256=..., latent_shape=(N_z, D_z), past_frames=...) as writer:
    for split in index.splits:
        for sample in index.samples(split):
            if not writer.has(sample):      # finished before an interruption
                writer.add(sample, latents) # (n, N_z, D_z), functions of the clip and `past_frames` frames before it
    latent_index = writer.finish()
"""

import io
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from reverie.data.errors import UserError
from reverie.data.shards.index import Sample, ShardIndex
from reverie.data.shards.reader import ShardReader
from reverie.data.shards.writer import ShardSet

_KEPT = ("action_space", "tasks", "fps", "frame_size", "quality", "storage_mse", "sources", "skipped")


class LatentWriter:
    """Writes latent shards for `index`, continuing after an interruption (see `data.shards.writer`).

    Args:
        folder: created when missing; refused when it holds latents of another tokenizer or other data.
        index: the video shards.
        tokenizer_sha256: identifies the tokenizer's weights.
        latent_shape: (N_z, D_z).
        past_frames: of its episode that a frame's latents depend on, beside itself.
        shard_mb: size limit of one shard in MB.
    """

    def __init__(
        self,
        folder: Path,
        index: ShardIndex,
        *,
        tokenizer_sha256: str,
        latent_shape: tuple[int, int],
        past_frames: int = 0,
        shard_mb: float = 256.0,
    ):
        self.past_frames = past_frames
        self._index, self._reader, self._shape = index, ShardReader(index), latent_shape
        self._identity: dict[str, Any] = {
            "source_hash": index.hash(),
            "tokenizer_sha256": tokenizer_sha256,
            "latent_shape": list(latent_shape),
            "past_frames": past_frames,
            "shard_mb": shard_mb,
        }
        self._shards = ShardSet(folder, self._identity, max_bytes=round(shard_mb * 1e6))

    def has(self, sample: Sample) -> bool:
        """The latents of this video sample are stored for good."""
        return self._shards.has(sample.split, sample.key)

    def add(self, sample: Sample, latents: np.ndarray) -> None:
        """Stores the latents of a video sample as float16, unless `has` it. Raises `UserError` on a wrong shape."""
        if self.has(sample):
            return
        if latents.shape != (sample.n, *self._shape):
            raise UserError(
                f"{sample.key}: latents have shape {latents.shape}, expected {(sample.n, *self._shape)}; "
                f"give one row a frame."
            )
        members = {
            "latents.npy": _to_npy(latents.astype(np.float16)),
            "steps.npz": self._reader.member(sample, "steps.npz"),
            "meta.json": self._reader.member(sample, "meta.json"),
        }
        self._shards.add(sample.split, sample.key, members, _entry(sample))

    def require_readable(self, sample: Sample) -> None:
        """Raises `BrokenSample` where the log or the description of a video sample cannot be read."""
        self._reader.steps(sample)
        self._reader.meta(sample)

    def finish(self, skipped: Mapping[str, str] | None = None) -> ShardIndex:
        """Writes the index; the latent shards are complete. `skipped`: key -> reason of clips that were left out."""
        header = {name: self._index.content[name] for name in _KEPT if name in self._index.content}
        lost = [{"source": key, "reason": self._relative(why)} for key, why in (skipped or {}).items()]
        header["skipped"] = [*header.get("skipped", []), *lost]
        return self._shards.finish({**header, **self._identity})

    def _relative(self, reason: str) -> str:
        """Without the place of the shards, on which an index must not depend."""
        return reason.replace(f"{self._index.folder}/", "")

    def __enter__(self) -> "LatentWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._shards.__exit__(kind, error, trace)
        self._reader.close()


def _to_npy(array: np.ndarray) -> bytes:
    target = io.BytesIO()
    np.lib.format.write_array(target, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return target.getvalue()


def _entry(sample: Sample) -> Mapping[str, Any]:
    where = ("split", "shard", "key", "members")
    return {name: value for name, value in sample.to_json().items() if name not in where}
