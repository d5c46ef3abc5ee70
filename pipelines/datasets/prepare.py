"""`reverie prepare`: a folder of recorded episodes, a LeRobot dataset, or any videos, to shards with an index."""

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from hashlib import sha256
from math import inf
from pathlib import Path
from typing import Any, Literal

from reverie.data.errors import UserError
from reverie.data.files.durable import explain_full_disk, fingerprint, write_atomic
from reverie.data.files.lock import sole_writer
from reverie.data.shards.index import INDEX, JOURNAL, ShardIndex
from reverie.data.shards.writer import ShardSet, sealed, unsealed
from reverie.data.sources.clips import Storage
from reverie.data.sources.corpus import Corpus, Source, find_corpus, inspect
from reverie.data.sources.lerobot.dataset import LeRobotOptions
from reverie.data.sources.staging import delete_staged_clip, key_prefix, stage, staged_clip
from reverie.data.sources.vpt.recordings import VPTOptions
from reverie.data.sources.vpt.segments import Join, joined_clip
from reverie.data.video.codec import Quality, storage_quality
from reverie.data.video.decoders import Backend
from reverie.data.video.resize import ResizeMode
from reverie.data.video.survey import Survey
from reverie.data.video.times import MOST_FPS, SAME_RATE, lossless_rate
from reverie.pipelines.datasets.engines import Result, Work, map_on_ray, map_on_threads
from reverie.pipelines.datasets.joining import find_joins
from reverie.pipelines.runs.progress import Meter, meter, progress

STAGING = ".staging"
_PLAN = "plan.json"


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """Turns recorded episodes, VPT recordings, LeRobot datasets, or videos with or without logs, into shards."""

    source: Path
    """Folder of recorded episodes (`reverie record`), LeRobot dataset, folder of videos, searched at any depth, or a video."""
    out: Path
    """Folder for the shards. The same command again continues an interrupted run."""
    size: tuple[int, int] | None = None
    """Height and width in pixels of the stored frames; default: the size of the videos, if they agree."""
    mode: ResizeMode = "pad"
    """How other sizes are fitted: pad (black bars), crop (cut the overhang) or stretch."""
    fps: float | None = None
    """Frames a second of the stored clips, converted by timestamps; default: the rate of the videos."""
    clip_length: int = 256
    """Frames in a clip, the unit of storage. Windows for training may span the clips of an episode."""
    validation_fraction: float = 0.1
    """Share of the episodes (of VPT: sessions) held out, at least one of two or more; a lone video is split by time."""
    seed: int = 0
    """Decides which episodes are held out."""
    quality: Quality | Literal["auto"] = "auto"
    """lossless, high, standard; auto: lossless for frames up to 128 pixels high, high above."""
    shard_mb: float = 256.0
    """Size limit of one shard file in MB."""
    decoder: Backend = "pyav"
    """Library that reads the stored clips back, to measure what storing cost: pyav or decord. Videos are read by PyAV."""
    interlaced: Literal["keep", "refuse"] = "keep"
    """Videos whose frames hold two moments, line by line: store them so and say it, or skip them."""
    hdr: Literal["keep", "refuse"] = "keep"
    """Videos of high dynamic range: store their colours without tone mapping and say it, or skip them."""
    workers: int = 0
    """Videos converted at a time, each holding one clip in memory; 0: one per CPU core."""
    ray: str | None = None
    """Ray cluster that converts the videos instead: auto, local or HOST:PORT; all its machines must see both folders."""
    vpt: VPTOptions = field(default_factory=VPTOptions)
    """How the quirks of VPT recordings are read."""
    lerobot: LeRobotOptions = field(default_factory=LeRobotOptions)
    """Which parts of a LeRobot dataset are taken."""

    def __post_init__(self) -> None:
        if self.size is not None and min(self.size) < 2:
            raise UserError(f"size: must be at least 2 2 pixels, got {self.size}.")
        if self.fps is not None and self.fps <= 0:
            raise UserError(f"fps: must be above 0, got {self.fps}.")
        if self.clip_length < 2:
            raise UserError(f"clip_length: must be at least 2 frames, got {self.clip_length}.")
        if not 0 <= self.validation_fraction < 1:
            raise UserError(f"validation_fraction: must be in [0, 1), got {self.validation_fraction}.")
        if self.shard_mb <= 0:
            raise UserError(f"shard_mb: must be above 0, got {self.shard_mb}.")


class NothingUsable(UserError):
    """No source of a corpus can be used."""


def prepare(config: PrepareConfig) -> None:
    """Writes the shards and says what they hold and what was skipped.

    Raises `UserError` when no source can be used, when sizes or rates differ and none is chosen, when `out` was made
    from something else, or when the disk is full.
    """
    corpus = find_corpus(config.source, config.vpt, config.lerobot)
    if corpus.inferred:
        print(f"# inferred from the logs; save as actions.yaml in {corpus.folder} to declare it")
        print(corpus.inferred)
    for note in corpus.notes:
        print(f"note: {note}")
    identity, skipped = _identity(config, corpus), dict[str, str]()
    ShardSet.require_same(config.out, identity)
    # Whatever is refused is refused before anything is written, which would bind the folder to these settings.
    begun = unsealed(config.out / STAGING / _PLAN) is not None or (config.out / INDEX).is_file()
    found = {} if begun else _usable(config, corpus, skipped)
    max_bytes = round(config.shard_mb * 1e6)
    with (
        _removed_when_refused(config.out),
        sole_writer(config.out),
        _emptied_when_refused(config.out),
        ShardSet(config.out, identity, max_bytes=max_bytes) as shards,
    ):
        if shards.index is None:
            with explain_full_disk(config.out):
                plan = unsealed(config.out / STAGING / _PLAN) or _make_plan(config, corpus, found, skipped)
                _fill(shards, plan, config.out / STAGING)
                shards.finish(plan["header"])
        shutil.rmtree(config.out / STAGING, ignore_errors=True)
        assert shards.index is not None
        _report(shards.index)


def _usable(config: PrepareConfig, corpus: Corpus, skipped: dict[str, str]) -> dict[Source, Survey]:
    """What the sources hold; why others cannot be used goes to `skipped`. Raises `UserError` where a choice is missing."""
    found = _drop_refused(config, corpus, dict(_inspect_all(config, corpus, skipped)), skipped)
    skipped |= corpus.passed_over
    _require_some(corpus, found, skipped)
    _storage(config, corpus, found)
    return found


@contextmanager
def _removed_when_refused(out: Path) -> Iterator[None]:
    """A folder that this call made goes again, if it is empty, when the call ends in a `UserError`."""
    was_there = out.exists()
    try:
        yield
    except UserError:
        if not was_there:
            with suppress(OSError):
                out.rmdir()
        raise


@contextmanager
def _emptied_when_refused(out: Path) -> Iterator[None]:
    """What a first call has begun goes again when it turns out that nothing can be used."""
    is_first = not (out / JOURNAL).exists() and not (out / INDEX).exists()
    try:
        yield
    except NothingUsable:
        if is_first and not any(out.glob("*.tar")):
            for folder in (out / JOURNAL, out / STAGING):
                shutil.rmtree(folder, ignore_errors=True)
        raise


def _identity(config: PrepareConfig, corpus: Corpus) -> dict[str, Any]:
    """Everything the shards' bytes depend on."""
    fields = ("mode", "fps", "clip_length", "validation_fraction", "seed", "quality", "shard_mb")
    return {
        **{name: getattr(config, name) for name in fields},
        "size": None if config.size is None else list(config.size),
        "sources": fingerprint([[source.name, source.file_bytes] for source in corpus.sources]),
        "labels": fingerprint([corpus.action_space.to_json(), list(corpus.tasks)]),
        **{name: "refuse" for name in ("interlaced", "hdr") if getattr(config, name) == "refuse"},
        **({} if corpus.vpt is None else {"vpt": asdict(corpus.vpt)}),
        **({} if corpus.lerobot is None else {"lerobot": corpus.lerobot.identity}),
    }


def _make_plan(
    config: PrepareConfig, corpus: Corpus, inspected: dict[Source, Survey], skipped: dict[str, str]
) -> dict[str, Any]:
    """Stages all usable sources and decides the splits.

    The plan holds `pieces` ({folder, clips, split, join} in the order of the shards) and `header` for the index.
    """
    storage = _storage(config, corpus, inspected)
    staging = config.out / STAGING
    staging.mkdir(parents=True, exist_ok=True)
    staged = _stage_all(config, corpus, storage, list(inspected), skipped)
    _require_some(corpus, staged, skipped)
    plan = {
        "pieces": _pieces(staged, config),
        "header": {
            "action_space": corpus.action_space.to_json(),
            "tasks": list(corpus.tasks),
            "fps": storage.fps,
            "frame_size": list(storage.size),
            "quality": storage.quality,
            "storage_mse": _mean_squared_error(staged),
            "sources": sorted(source.name for source in staged),
            "skipped": [{"source": name, "reason": skipped[name]} for name in sorted(skipped)],
            **_notes(staged),
        },
    }
    os.sync()  # from now on the staged clips are taken for good
    write_atomic(staging / _PLAN, sealed(plan))
    return plan


def _inspect_all(
    config: PrepareConfig, corpus: Corpus, skipped: dict[str, str]
) -> Iterator[tuple[Source, Survey]]:
    work = partial(_inspect, corpus=replace(corpus, sources=()))
    with meter("inspect", len(corpus.sources)) as shown:
        for source, result in zip(corpus.sources, _work(config, work, corpus.sources), strict=True):
            if isinstance(result, UserError):
                skipped[source.name] = _reason(result, corpus)
            else:
                yield source, result
            shown.update()


def _inspect(source: Source, corpus: Corpus) -> Survey | UserError | OSError:
    try:
        return inspect(source, corpus).video
    except Exception as error:
        return _told(source, error)


def _stage(
    source: Source, corpus: Corpus, storage: Storage, folder: Path, cut: float | None
) -> dict[str, Any] | UserError | OSError:
    try:
        return stage(source, corpus, storage, folder, cut)
    except Exception as error:
        return _told(source, error)


def _told(source: Source, error: Exception) -> UserError | OSError:
    """What one source costs: itself, unless the disk is full or gone. Its damage may raise anything."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, OSError) and error.errno not in _OF_A_SOURCE:
        return error
    if isinstance(error, MemoryError):
        return UserError(
            f"{source.video}: needs more memory than there is; use fewer --workers or re-encode it."
        )
    reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:200] or type(error).__name__
    return UserError(
        f"{source.video}: cannot be read ({reason.rstrip('.')}); remove, replace or re-encode it."
    )


def _work(
    config: PrepareConfig, work: Work[Source, Result], sources: Sequence[Source]
) -> Iterator[Result | UserError]:
    if config.ray is not None:
        return map_on_ray(work, sources, config.ray)
    return map_on_threads(work, sources, _num_workers(config))


def _require_some(corpus: Corpus, usable: object, skipped: dict[str, str]) -> None:
    if not usable:
        videos = {name: reason for name, reason in skipped.items() if name not in corpus.passed_over}
        raise NothingUsable(
            f"{corpus.folder}: none of its {len(videos)} videos can be used, the first because: "
            f"{videos[min(videos)]}"
        )


def _reason(error: UserError, corpus: Corpus) -> str:
    """The sentence with paths relative to the corpus: an index must not depend on where a folder lies."""
    return str(error).replace(f"{corpus.folder}{os.sep}", "")


_OF_A_SOURCE = (
    None,
    errno.ENOENT,
    errno.EACCES,
    errno.EPERM,
    errno.EISDIR,
    errno.EINVAL,
    errno.ESTALE,
    errno.ELOOP,
)
"""What the system says of a file that vanished, or cannot be read; other errors are of the disk."""


def _storage(config: PrepareConfig, corpus: Corpus, inspected: dict[Source, Survey]) -> Storage:
    missing: list[str] = []
    size = config.size or corpus.frame_size or _common_size(inspected, missing)
    fps = config.fps or corpus.fps or _common_rate(inspected, missing)
    if missing:
        raise UserError(f"{' and '.join(missing)}.")
    return Storage(
        size=(size[0], size[1]),
        mode=config.mode,
        fps=fps,
        clip_length=config.clip_length,
        quality=storage_quality(size[0]) if config.quality == "auto" else config.quality,
        decoder=config.decoder,
    )


def _common_size(inspected: dict[Source, Survey], missing: list[str]) -> tuple[int, int]:
    """The size of all videos; where they differ, what to choose goes to `missing`."""
    sizes = {(video.height, video.width): source.name for source, video in inspected.items()}
    if len(sizes) > 1:
        (a, file_a), (b, file_b) = list(sizes.items())[:2]
        missing.append(
            f"size: the videos differ ({a[0]}x{a[1]} in {file_a}, {b[0]}x{b[1]} in {file_b}); "
            f"choose one with --size [HEIGHT,WIDTH]"
        )
    return next(iter(sizes))


def _drop_refused(
    config: PrepareConfig, corpus: Corpus, inspected: dict[Source, Survey], skipped: dict[str, str]
) -> dict[Source, Survey]:
    """Those that are of an accepted kind and, where no rate is chosen, have one; why others are not goes to `skipped`."""
    accepted: dict[Source, Survey] = {}
    for source, video in inspected.items():
        try:
            _require_kind(config, source, video)
            if config.fps is None and corpus.fps is None:
                _own_rate(source, video)
            accepted[source] = video
        except UserError as error:
            skipped[source.name] = _reason(error, corpus)
    return accepted


def _require_kind(config: PrepareConfig, source: Source, video: Survey) -> None:
    if video.is_interlaced and config.interlaced == "refuse":
        raise UserError(f"{source.video}: is interlaced; deinterlace it, or set --interlaced keep.")
    if video.hdr and config.hdr == "refuse":
        raise UserError(f"{source.video}: is HDR ({video.hdr}); tone-map it, or set --hdr keep.")


def _own_rate(source: Source, video: Survey) -> float:
    """The rate at which no frame is lost; of logged videos their own. Raises `UserError` where there is none."""
    if source.log is not None or video.rhythm.is_steady:
        return video.rhythm.fps
    rate = lossless_rate(video.packets, video.rhythm)
    if rate is None:
        raise UserError(
            f"{source.video}: has a variable rate ({video.rhythm.fps:.4g} Hz on average) that only more than "
            f"{MOST_FPS:g} Hz would keep all frames of; choose a rate with --fps."
        )
    return rate


def _common_rate(inspected: dict[Source, Survey], missing: list[str]) -> float:
    """The rate of all videos; where they differ, what to choose goes to `missing`."""
    rates = {source.name: _own_rate(source, video) for source, video in inspected.items()}
    slow, fast = min(rates, key=lambda name: rates[name]), max(rates, key=lambda name: rates[name])
    if rates[fast] / rates[slow] - 1 > SAME_RATE:
        missing.append(
            f"fps: the videos differ ({rates[slow]:g} in {slow}, {rates[fast]:g} in {fast}); choose one with --fps"
        )
    return rates[min(rates)]


def _stage_all(
    config: PrepareConfig, corpus: Corpus, storage: Storage, sources: list[Source], skipped: dict[str, str]
) -> dict[Source, dict[str, Any]]:
    """Source -> summary of everything that could be encoded to its last frame."""
    cut = 1 - config.validation_fraction if config.validation_fraction > 0 else None
    folder = config.out / STAGING
    lone = cut if len(sources) == 1 else None
    staged: dict[Source, dict[str, Any]] = {}
    work = partial(_stage, corpus=replace(corpus, sources=()), storage=storage, folder=folder, cut=lone)
    with meter("convert", len(sources)) as shown:
        for source, result in zip(sources, _work(config, work, sources), strict=True):
            _take(source, result, staged, skipped, corpus, shown)
    if len(staged) == 1 and lone is None and cut is not None:
        source = next(iter(staged))
        staged[source] = stage(source, corpus, storage, folder, cut)
    return staged


def _take(
    source: Source,
    result: dict[str, Any] | UserError,
    staged: dict[Source, dict[str, Any]],
    skipped: dict[str, str],
    corpus: Corpus,
    shown: Meter,
) -> None:
    if isinstance(result, UserError):
        skipped[source.name] = _reason(result, corpus)
    else:
        staged[source] = result
    shown.update(note=source.name)


def _num_workers(config: PrepareConfig) -> int:
    return config.workers or os.cpu_count() or 1


def _pieces(staged: dict[Source, dict[str, Any]], config: PrepareConfig) -> list[dict[str, Any]]:
    """Which clips go to which split, in an order shuffled by source."""
    sessions = sorted(
        {_session(source) for source in staged},
        key=lambda name: sha256(f"{config.seed}:{name}".encode()).digest(),
    )
    count = 0
    if config.validation_fraction > 0 and len(sessions) > 1:
        count = min(max(round(config.validation_fraction * len(sessions)), 1), len(sessions) - 1)
    held_out, place = set(sessions[:count]), {name: number for number, name in enumerate(sessions)}
    pieces, joins = [], find_joins(staged) if config.vpt.join_segments else {}
    for source in sorted(staged, key=lambda s: (place[_session(s)], s.name)):
        summary, split = staged[source], "validation" if _session(source) in held_out else "train"
        cut = summary["cut"] or summary["frames"]
        clips = summary["clips"]
        join = asdict(joins[source]) if source in joins else None
        piece = {"folder": key_prefix(source), "join": join}
        pieces.append({**piece, "split": split, "clips": [c for c in clips if c < cut]})
        if tail := [c for c in clips if c >= cut]:
            pieces.append({**piece, "split": "validation", "clips": tail})
    return pieces


def _session(source: Source) -> str:
    return source.session or source.name


def _fill(shards: ShardSet, plan: dict[str, Any], staging: Path) -> None:
    """Copies the staged clips into shards, deleting what lies in finished ones."""
    clips = [(p["split"], p["folder"], start) for p in plan["pieces"] for start in p["clips"]]
    joins = {p["folder"]: Join(**p["join"]) for p in plan["pieces"] if p["join"] is not None}
    pending: list[tuple[str, str, int]] = []
    for split, source, start in progress(clips, "write shards"):
        pending.append((split, source, start))
        if shards.has(split, _key(source, start)):
            continue
        members, entry = _staged_clip(staging / source, start)
        if source in joins:
            members, entry = joined_clip(members, entry, joins[source])
        if shards.add(split, _key(source, start), members, entry):
            pending = _delete_finished(shards, pending, staging)


def _staged_clip(folder: Path, start: int) -> tuple[dict[str, bytes], dict[str, Any]]:
    try:
        return staged_clip(folder, start)
    except (FileNotFoundError, ValueError) as error:
        out = folder.parent.parent
        raise UserError(
            f"{folder}: lacks what an earlier call had put there ({type(error).__name__}); delete {out} and run the "
            f"same command again."
        ) from None


def _delete_finished(
    shards: ShardSet, pending: list[tuple[str, str, int]], staging: Path
) -> list[tuple[str, str, int]]:
    """Deletes the staged clips that lie in finished shards; returns the others."""
    finished = [clip for clip in pending if shards.has(clip[0], _key(*clip[1:]))]
    for _, source, start in finished:
        delete_staged_clip(staging / source, start)
    return [clip for clip in pending if clip not in set(finished)]


def _key(source: str, start: int) -> str:
    return f"{source}_{start:08d}"


def _notes(staged: dict[Source, dict[str, Any]]) -> dict[str, Any]:
    """What was left out of the videos that were stored, and how their times were read; {} if there is nothing to say."""
    notes = [
        {"source": source.name, "note": "; ".join(summary["notes"])}
        for source, summary in staged.items()
        if summary["notes"]
    ]
    return {"notes": sorted(notes, key=lambda entry: entry["source"])} if notes else {}


def _mean_squared_error(staged: dict[Source, dict[str, Any]]) -> float:
    return sum(s["squared_error"] for s in staged.values()) / sum(s["values"] for s in staged.values())


def _report(index: ShardIndex) -> None:
    height, width = index.frame_size
    for split in index.splits:
        episodes = index.episodes(split)
        labelled = sum(episode.labelled for episode in episodes)
        frames = sum(episode.n for episode in episodes)
        print(f"{split}: {len(episodes)} episodes ({labelled} with actions), {frames} frames")
    psnr = index.storage_psnr
    quality = "bit-exact" if psnr == inf else f"PSNR {psnr:.1f} dB"
    print(f"stored at {height}x{width}, {index.fps:g} fps, {quality}: {index.folder}")
    if psnr < 40:
        print("storage loses detail (below 40 dB); --quality lossless keeps every pixel, in larger files")
    if "validation" not in index.splits:
        print("no validation split: there is nothing to hold out")
    for entry in index.content.get("notes", []):
        print(f"note {entry['source']}: {entry['note']}")
    for entry in index.content["skipped"]:
        print(f"skipped {entry['source']}: {entry['reason']}")
    if index.content["skipped"]:
        print(f"skipped {len(index.content['skipped'])} of {_num_sources(index)} sources")


def _num_sources(index: ShardIndex) -> int:
    return len(index.content["sources"]) + len(index.content["skipped"])
