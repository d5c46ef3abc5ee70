"""What becomes of the sources of a corpus: looked into, converted one by one, and dealt to the splits."""

import errno
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from reverie.data.errors import UserError
from reverie.data.files.durable import write_atomic
from reverie.data.shards.writer import sealed
from reverie.data.sources.clips import Storage
from reverie.data.sources.corpus import inspect
from reverie.data.sources.source import Corpus, Source
from reverie.data.sources.staging import key_prefix, stage
from reverie.data.video.survey import Survey
from reverie.pipelines.datasets.choices import choose_storage, drop_refused, without_folder
from reverie.pipelines.datasets.engines import Result, Work, map_on_ray, map_on_threads
from reverie.pipelines.datasets.joining import find_joins
from reverie.pipelines.datasets.prepare_config import PrepareConfig
from reverie.pipelines.runs.progress import Meter, meter

STAGING = ".staging"
PLAN = "plan.json"


class NothingUsable(UserError):
    """No source of a corpus can be used."""


def usable_sources(config: PrepareConfig, corpus: Corpus, skipped: dict[str, str]) -> dict[Source, Survey]:
    """What the sources hold; why others cannot be used goes to `skipped`. Raises `UserError` where a choice is missing."""
    found = drop_refused(config, corpus, dict(_inspect_all(config, corpus, skipped)), skipped)
    skipped |= corpus.passed_over
    _require_some(corpus, found, skipped)
    choose_storage(config, corpus, found)
    return found


def make_plan(
    config: PrepareConfig, corpus: Corpus, inspected: dict[Source, Survey], skipped: dict[str, str]
) -> dict[str, Any]:
    """Stages all usable sources and decides the splits.

    The plan holds `pieces` ({folder, clips, split, join} in the order of the shards) and `header` for the index.
    """
    storage = choose_storage(config, corpus, inspected)
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
    write_atomic(staging / PLAN, sealed(plan))
    return plan


def _inspect_all(
    config: PrepareConfig, corpus: Corpus, skipped: dict[str, str]
) -> Iterator[tuple[Source, Survey]]:
    work = partial(_inspect, corpus=replace(corpus, sources=()))
    with meter("inspect", len(corpus.sources)) as shown:
        for source, result in zip(corpus.sources, _work(config, work, corpus.sources), strict=True):
            if isinstance(result, UserError):
                skipped[source.name] = without_folder(result, corpus)
            else:
                yield source, result
            shown.update()


def _inspect(source: Source, corpus: Corpus) -> Survey | UserError | OSError:
    try:
        return inspect(source, corpus).video
    except Exception as error:
        return _told(source, error)


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
        skipped[source.name] = without_folder(result, corpus)
    else:
        staged[source] = result
    shown.update(note=source.name)


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


def _work(
    config: PrepareConfig, work: Work[Source, Result], sources: Sequence[Source]
) -> Iterator[Result | UserError]:
    if config.ray is not None:
        return map_on_ray(work, sources, config.ray)
    return map_on_threads(work, sources, _num_workers(config))


def _num_workers(config: PrepareConfig) -> int:
    return config.workers or os.cpu_count() or 1


def _require_some(corpus: Corpus, usable: object, skipped: dict[str, str]) -> None:
    if not usable:
        videos = {name: reason for name, reason in skipped.items() if name not in corpus.passed_over}
        raise NothingUsable(
            f"{corpus.folder}: none of its {len(videos)} videos can be used, the first because: "
            f"{videos[min(videos)]}"
        )


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
