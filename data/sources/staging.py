"""One source video to encoded clips in a folder of its own, all of them or none.

Sources are staged one by one, in parallel and in any order; whatever is killed, a staged source is whole. Only what
could be decoded to its last frame gets this far, so that one damaged video never leaves half an episode in a shard.
"""

import io
import itertools
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from reverie.data.errors import UserError
from reverie.data.files.durable import PARTIAL, canonical_json
from reverie.data.shards.steps import Steps
from reverie.data.shards.writer import sealed, unsealed
from reverie.data.sources.corpus import Corpus, Inspected, Source, inspect, open_source
from reverie.data.sources.vpt.recordings import draw_cursors
from reverie.data.video.codec import GOP, Quality, encode_video, read_frames
from reverie.data.video.decoders import Backend
from reverie.data.video.resize import ResizeMode, fit
from reverie.data.video.source import VideoInfo

_READ_BYTES = 192_000_000
"""Decoded frames held at once by one worker."""
_SUMMARY = "summary.json"
_SAME_RATE = 0.005
"""Rates closer than this, relatively, are one rate (29.97 and 30)."""


@dataclass(frozen=True, kw_only=True)
class Storage:
    """How clips are stored.

    size         (height, width)
    mode         how other sizes are fitted
    fps          frames a second; other rates are converted by timestamps
    clip_length  frames in a clip, the last of an episode may be shorter
    quality      see `data.video.codec`
    decoder      see `data.video.decoders`
    """

    size: tuple[int, int]
    mode: ResizeMode
    fps: float
    clip_length: int
    quality: Quality
    decoder: Backend


def key_prefix(source: Source) -> str:
    """A short ASCII name without dots, unique by a hash of the source's name."""
    slug = re.sub(r"[^A-Za-z0-9]+", "-", Path(source.name).stem).strip("-")[:40]
    return f"{slug or 'video'}-{sha256(source.name.encode()).hexdigest()[:8]}"


def stage(
    source: Source, corpus: Corpus, storage: Storage, folder: Path, cut: float | None = None
) -> dict[str, Any]:
    """Encodes `source` into `folder / key_prefix(source)`, unless it is there, and returns its summary.

    Args:
        cut: let a clip begin at this share of the frames: a lone video is split there into train and validation.

    Returns:
        clips (their first frames), frames, cut (a frame or None), and squared_error and values, whose ratio is the
        mean squared error of storing; digest of the clips; group and edges as in `Inspected`.

    Raises:
        UserError: the video or its log cannot be used; the sentence names the file.
    """
    target = folder / key_prefix(source)
    if not _is_staged(target, cut):
        partial = folder / (PARTIAL + target.name)
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(target, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            summary = _write_source(source, corpus, storage, partial, cut)
            summary["digest"] = _digest(partial)
            (partial / _SUMMARY).write_bytes(sealed(summary))
        except (UserError, OSError):
            shutil.rmtree(partial, ignore_errors=True)
            raise
        partial.rename(target)
    found = unsealed(target / _SUMMARY)
    assert found is not None, "it was whole a moment ago"
    return found


def staged_clip(folder: Path, start: int) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The members of the clip that begins at frame `start` of a staged source, and its entry for the index."""
    stem = _stem(start)
    members = {
        "clip.mp4": (folder / f"{stem}.mp4").read_bytes(),
        "steps.npz": (folder / f"{stem}.npz").read_bytes(),
        "meta.json": (folder / f"{stem}.json").read_bytes(),
    }
    meta = json.loads(members["meta.json"])
    return members, {name: value for name, value in meta.items() if name not in ("fps", "size")}


def delete_staged_clip(folder: Path, start: int) -> None:
    """Makes room once the clip lies in a finished shard."""
    for suffix in (".mp4", ".npz", ".json"):
        (folder / f"{_stem(start)}{suffix}").unlink(missing_ok=True)


def select_frames(info: VideoInfo, fps: float) -> np.ndarray:
    """Indices of the frames on screen at times 0, 1/fps, 2/fps, ..."""
    step, shown = 1 / info.fps, info.timestamps
    regular = np.abs(shown - np.arange(len(shown)) * step).max() < step / 2
    if regular and abs(info.fps / fps - 1) < _SAME_RATE:
        return np.arange(len(shown))
    times = np.arange(max(1, int((shown[-1] + step) * fps + 1e-6))) / fps
    # Containers round timestamps (mkv to 1 ms), so a frame due a moment later counts as shown.
    return np.searchsorted(shown, times + step / 10, side="right") - 1


def _write_source(
    source: Source, corpus: Corpus, storage: Storage, folder: Path, cut: float | None
) -> dict[str, Any]:
    found = inspect(source, corpus)
    if source.log is None:
        indices = select_frames(found.info, storage.fps)
        found = replace(found, steps=Steps.unknown(len(indices), corpus.action_space, len(corpus.tasks)))
    else:
        _require_rate(source.log, found.info.fps, storage.fps)
        indices = np.arange(len(found.info))
    frames = _read(source, found, indices, corpus.frame_size, storage)
    cut_frame = (
        None if cut is None or len(indices) < 2 else min(max(round(cut * len(indices)), 1), len(indices) - 1)
    )
    bounds = _bounds(len(indices), storage.clip_length, cut_frame)
    error = np.zeros(2)
    for start, stop in bounds:
        clip = list(itertools.islice(frames, stop - start))
        is_last = stop in (len(indices), cut_frame)
        meta = _meta(source, found, storage, start, stop, is_last)
        (folder / f"{_stem(start)}.json").write_bytes(canonical_json(meta))
        (folder / f"{_stem(start)}.npz").write_bytes(found.steps.cut(start, stop).to_npz())
        error += _write_video(folder / f"{_stem(start)}.mp4", clip, storage)
    return {
        "clips": [start for start, _ in bounds],
        "frames": len(indices),
        "cut": cut_frame,
        "squared_error": float(error[0]),
        "values": int(error[1]),
        "group": found.group,
        "edges": None if found.edges is None else found.edges.to_json(),
    }


def _require_rate(log: Path, fps: float, wanted: float) -> None:
    """The rows of a log belong to its frames, so none may be left out or repeated."""
    if abs(fps / wanted - 1) >= _SAME_RATE:
        raise UserError(
            f"{log}: logs frames at {fps:g} Hz, which cannot be converted to {wanted:g} Hz; "
            f"prepare logged videos at their own rate."
        )


def _read(
    source: Source, found: Inspected, indices: np.ndarray, crop: tuple[int, int] | None, storage: Storage
) -> Iterator[np.ndarray]:
    """The chosen frames, fitted to the stored size, decoded a bounded number at a time."""
    count = max(1, _READ_BYTES // (found.info.height * found.info.width * 3))
    decoder = open_source(source, found, storage.decoder)
    try:
        for start in range(0, len(indices), count):
            chosen = indices[start : start + count]
            frames = decoder.read(chosen.tolist())
            if found.cursor is not None:
                frames = draw_cursors(frames, found.cursor[chosen])
            if crop is not None:
                frames = frames[:, : crop[0], : crop[1]]
            yield from fit(frames, storage.size, storage.mode)
    finally:
        decoder.close()


def _bounds(n: int, clip_length: int, cut: int | None) -> list[tuple[int, int]]:
    """(first frame, end) of the clips of `n` frames; one begins at `cut`."""
    parts = [(0, n)] if cut is None else [(0, cut), (cut, n)]
    return [(s, min(s + clip_length, stop)) for start, stop in parts for s in range(start, stop, clip_length)]


def _meta(
    source: Source, found: Inspected, storage: Storage, start: int, stop: int, is_last: bool
) -> dict[str, Any]:
    steps = found.steps.cut(start, stop)
    events = np.argwhere(steps.events).tolist() if found.has_events else None
    return {
        "source": source.name,
        "episode": source.episode,
        "start": start,
        "n": stop - start,
        "fps": storage.fps,
        "size": list(storage.size),
        "is_first": start == 0,
        "is_last": is_last,
        "is_terminal": found.is_terminal and stop == len(found.steps),
        "labelled": bool(steps.action_mask.any() or steps.action_mask_before),
        "events": events,
        "group": found.group,
    }


def _write_video(path: Path, frames: list[np.ndarray], storage: Storage) -> np.ndarray:
    """Writes a clip and reads its first frames back; returns (squared error, number of values) of those."""
    target = io.BytesIO()
    encode_video(target, frames, storage.fps, quality=storage.quality)
    path.write_bytes(target.getvalue())
    there = np.stack(frames[:GOP]).astype(np.float64)
    back = read_frames(target.getvalue(), range(len(there)), storage.size, storage.decoder)
    return np.array([np.square(back - there).sum(), there.size])


def _stem(start: int) -> str:
    return f"{start:08d}"


def _is_staged(target: Path, cut: float | None) -> bool:
    """Whole, and with a clip boundary at the cut if and only if one is asked for."""
    summary = unsealed(target / _SUMMARY)
    if summary is None:
        return False
    return (summary["cut"] is None) == (cut is None) and summary["digest"] == _digest(target)


def _digest(folder: Path) -> str:
    """sha256 of the clips. Staged files are not flushed one by one, so a power cut may have emptied some."""
    digest = sha256()
    for path in sorted(folder.iterdir()):
        if path.name != _SUMMARY:
            digest.update(path.read_bytes())
    return digest.hexdigest()
