"""`reverie prepare`: a folder of recorded episodes, a LeRobot dataset, or any videos, to shards with an index."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import inf
from pathlib import Path
from typing import Any

from reverie.data.errors import UserError
from reverie.data.files.durable import explain_full_disk, fingerprint
from reverie.data.files.lock import sole_writer
from reverie.data.shards.index import INDEX, JOURNAL, ShardIndex
from reverie.data.shards.writer import ShardSet, unsealed
from reverie.data.sources.corpus import find_corpus
from reverie.data.sources.source import Corpus
from reverie.data.sources.staging import delete_staged_clip, staged_clip
from reverie.data.sources.vpt.segments import Join, joined_clip
from reverie.pipelines.datasets.appending import append
from reverie.pipelines.datasets.lagging import shifted_actions
from reverie.pipelines.datasets.planning import PLAN, STAGING, NothingUsable, make_plan, usable_sources
from reverie.pipelines.datasets.prepare_config import PrepareConfig
from reverie.pipelines.runs.progress import progress


def prepare(config: PrepareConfig) -> None:
    """Writes the shards and says what they hold and what was skipped.

    Raises `UserError` when no source can be used, when sizes or rates differ and none is chosen, when `out` was made
    from something else, or when the disk is full.
    """
    corpus = find_corpus(config.source, config.vpt, config.lerobot, config.layout, config.fps)
    print(f"# {config.source} is taken for {corpus.kind}")
    if corpus.inferred:
        print(f"# inferred from the logs; save as actions.yaml in {corpus.folder} to declare it")
        print(corpus.inferred)
    for note in corpus.notes:
        print(f"note: {note}")
    index = _prepare(config, corpus) if config.base is None else append(config, corpus, _prepare)
    _report(index)


def _prepare(config: PrepareConfig, corpus: Corpus) -> ShardIndex:
    """The shards of a corpus."""
    identity, skipped = _identity(config, corpus), dict[str, str]()
    ShardSet.require_same(config.out, identity)
    # Whatever is refused is refused before anything is written, which would bind the folder to these settings.
    begun = unsealed(config.out / STAGING / PLAN) is not None or (config.out / INDEX).is_file()
    found = {} if begun else usable_sources(config, corpus, skipped)
    max_bytes = round(config.shard_mb * 1e6)
    with (
        _removed_when_refused(config.out),
        sole_writer(config.out),
        _emptied_when_refused(config.out),
        ShardSet(config.out, identity, max_bytes=max_bytes) as shards,
    ):
        if shards.index is None:
            with explain_full_disk(config.out):
                plan = unsealed(config.out / STAGING / PLAN) or make_plan(config, corpus, found, skipped)
                _fill(shards, plan, config.out / STAGING)
                shards.finish(plan["header"])
        shutil.rmtree(config.out / STAGING, ignore_errors=True)
        assert shards.index is not None
        return shards.index


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
        **corpus.identity,
    }


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
    if sentence := shifted_actions(index):
        print(sentence)
    if "validation" not in index.splits:
        print("no validation split: there is nothing to hold out")
    for line in _note_lines(index.content.get("notes", [])):
        print(line)
    for entry in index.content["skipped"]:
        print(f"skipped {entry['source']}: {entry['reason']}")
    if index.content["skipped"]:
        print(f"skipped {len(index.content['skipped'])} of {_num_sources(index)} sources")


def _note_lines(notes: list[dict[str, str]]) -> Iterator[str]:
    """A line for each source, or one for all of which the same is to be said."""
    alike: dict[str, list[str]] = {}
    for entry in notes:
        alike.setdefault(entry["note"], []).append(entry["source"])
    for note, sources in alike.items():
        more = f" and {len(sources) - 1} more" if len(sources) > 1 else ""
        yield f"note {sources[0]}{more}: {note}"


def _num_sources(index: ShardIndex) -> int:
    return len(index.content["sources"]) + len(index.content["skipped"])
