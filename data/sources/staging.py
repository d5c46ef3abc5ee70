"""One source video to encoded clips in a folder of its own, all of them or none.

Sources are staged one by one, in parallel and in any order; whatever is killed, a staged source is whole. Each video is
decoded once: its frames go straight into clips, and their number is known at the end.
"""

import json
import re
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from reverie.data.errors import UserError
from reverie.data.files.durable import PARTIAL, canonical_json
from reverie.data.shards.steps import Steps
from reverie.data.shards.writer import sealed, unsealed
from reverie.data.sources.clips import ClipWriter, Storage, StoredClip, stem
from reverie.data.sources.corpus import frames_of, inspect
from reverie.data.sources.pictures import Pictures
from reverie.data.sources.source import Corpus, Inspected, Log, Source
from reverie.data.sources.stretches import EpisodePart, Tally, episode_parts
from reverie.data.video.resize import fitting_note
from reverie.data.video.times import SAME_RATE, as_shown, on_screen, parts

_SUMMARY = "summary.json"


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
        mean squared error of storing; digest of the clips; group and edges as in `Inspected` and `Log`; notes for the
        user.

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
    members = {
        "clip.mp4": (folder / f"{stem(start)}.mp4").read_bytes(),
        "steps.npz": (folder / f"{stem(start)}.npz").read_bytes(),
        "meta.json": (folder / f"{stem(start)}.json").read_bytes(),
    }
    meta = json.loads(members["meta.json"])
    return members, {name: value for name, value in meta.items() if name not in ("fps", "size")}


def delete_staged_clip(folder: Path, start: int) -> None:
    """Makes room once the clip lies in a finished shard."""
    for suffix in (".mp4", ".npz", ".json"):
        (folder / f"{stem(start)}{suffix}").unlink(missing_ok=True)


def _write_source(
    source: Source, corpus: Corpus, storage: Storage, folder: Path, cut: float | None
) -> dict[str, Any]:
    """Clips first, in one pass over the video; their logs after it, when the number of frames is known."""
    found = inspect(source, corpus)
    if source.log is not None:
        _require_rate(source.log, found.video.rhythm.fps, storage.fps)
    tally, writer, cut_frame = _write_clips(source, corpus, found, storage, folder, cut)
    log = found.log(tally.total if source.log is not None else writer.total)
    parts = episode_parts(source, writer.clips, tally.total, has_log=source.log is not None)
    for clip in writer.clips:
        part = parts[clip.part]
        steps = part.steps(log.steps, corpus.action_space).cut(clip.offset, clip.offset + clip.n)
        meta = _meta(source, storage, clip, part, steps, log, found.group, cut_frame)
        (folder / f"{stem(clip.start)}.json").write_bytes(canonical_json(meta))
        (folder / f"{stem(clip.start)}.npz").write_bytes(steps.to_npz())
    return {
        "clips": [clip.start for clip in writer.clips],
        "frames": writer.total,
        "cut": cut_frame,
        "squared_error": writer.squared_error,
        "values": writer.values,
        "group": found.group,
        "edges": log.edges.to_json() if log.edges is not None and parts[0].n == len(log.steps) else None,
        "notes": [
            *found.video.notes(),
            *([note] if (note := _fitting(found, corpus, storage)) else []),
            *tally.notes(found.video.rhythm, storage.fps, source.log is not None),
        ],
    }


def _fitting(found: Inspected, corpus: Corpus, storage: Storage) -> str:
    """What the size of storage costs the picture, which recorded episodes hold in a corner of padded frames."""
    displayed = corpus.frame_size or (found.video.height, found.video.width)
    return fitting_note(displayed, storage.size, storage.mode)


def _write_clips(
    source: Source, corpus: Corpus, found: Inspected, storage: Storage, folder: Path, cut: float | None
) -> tuple[Tally, ClipWriter, int | None]:
    """Writes the clips; a lone video is cut where the times of its packets say, and once more if that was wrong."""
    expected = _expected(source, found, storage)
    while True:
        for clip in folder.iterdir():
            clip.unlink()
        cut_frame = _cut_frame(cut, expected)
        tally = Tally(source.video)
        moments = tally.moments(frames_of(source, found), found.video.rhythm, _rate(source, storage))
        pictures = Pictures(source.video, found, corpus.frame_size, storage)
        with ClipWriter(folder, storage, cut_frame) as writer:
            for part, place, frame in pictures.fitted(moments):
                writer.add(part, place, frame)
        tally.require_some()
        if cut_frame is None or cut_frame < writer.total:
            return tally, writer, cut_frame
        expected = writer.total


def _rate(source: Source, storage: Storage) -> float | None:
    """The rate to convert to; None where each frame is stored once, for a row of the log belongs to it."""
    return storage.fps if source.log is None else None


def _expected(source: Source, found: Inspected, storage: Storage) -> int:
    """Frames that will be stored, by the times of the packets."""
    if found.pts is not None:
        return len(found.pts)
    if source.log is not None:
        return len(found.video.packets)
    rhythm = found.video.rhythm
    return sum(1 for _ in on_screen(parts(as_shown(found.video.packets), rhythm), rhythm, storage.fps))


def _cut_frame(cut: float | None, n: int) -> int | None:
    return None if cut is None or n < 2 else min(max(round(cut * n), 1), n - 1)


def _require_rate(log: Path, fps: float, wanted: float) -> None:
    """The rows of a log belong to its frames, so none may be left out or repeated."""
    if abs(fps / wanted - 1) >= SAME_RATE:
        raise UserError(
            f"{log}: logs frames at {fps:g} Hz, which cannot be converted to {wanted:g} Hz; "
            f"prepare logged videos at their own rate."
        )


def _meta(
    source: Source,
    storage: Storage,
    clip: StoredClip,
    part: EpisodePart,
    steps: Steps,
    log: Log,
    group: str | None,
    cut: int | None,
) -> dict[str, Any]:
    is_end = clip.offset + clip.n == part.n
    return {
        "source": source.name,
        "episode": part.name,
        "start": clip.offset,
        "n": clip.n,
        "fps": storage.fps,
        "size": list(storage.size),
        "is_first": clip.offset == 0,
        "is_last": is_end or clip.start + clip.n == cut,
        "is_terminal": log.is_terminal and is_end and part.ends_source,
        "labelled": bool(steps.action_mask.any() or steps.action_mask_before),
        "events": np.argwhere(steps.events).tolist() if log.has_events else None,
        "group": group,
    }


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
