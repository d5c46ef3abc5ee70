"""The tables of `reverie data export`, all from the index alone, and which clips become one video or log."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

from reverie.data.shards.index import Episode, Sample, ShardIndex, unbroken
from reverie.data.shards.log_writer import csv_bytes

NOT_LOGGED = "not logged"
_LONGEST_NAME = 200


@dataclass(frozen=True)
class Stretch:
    """Unbroken frames of one episode, in order, from all splits: what becomes one video and one log.

    name  of their files, without suffix, relative to the folder of episodes
    """

    name: str
    samples: tuple[Sample, ...]

    @property
    def n(self) -> int:
        """Frames."""
        return sum(sample.n for sample in self.samples)


def stretches(index: ShardIndex) -> list[Stretch]:
    """All clips as stretches. An episode is one, unless clips in its middle are gone."""
    groups: dict[str, list[Sample]] = {}
    for split in index.splits:
        for sample in index.samples(split):
            groups.setdefault(sample.episode, []).append(sample)
    found: dict[str, Stretch] = {}
    for episode in sorted(groups):
        parts = unbroken(sorted(groups[episode], key=lambda sample: sample.start))
        for part in parts:
            name = file_name(episode) + (f"_{part[0].start:08d}" if len(parts) > 1 else "")
            name = name if name not in found else f"{name}-{_short_hash(episode)}"
            found[name] = Stretch(name, part)
    return list(found.values())


def file_name(episode: str) -> str:
    """The episode's own name where files may be called so, with folders; else a plain one made from it."""
    if all(_is_plain(part) for part in episode.split("/")):
        return episode
    slug = re.sub(r"[^A-Za-z0-9]+", "-", episode).strip("-")[:40]
    return f"{slug or 'episode'}-{_short_hash(episode)}"


def episodes_csv(index: ShardIndex) -> bytes:
    """A row an episode and split."""
    header = [
        "episode",
        "split",
        "source",
        "frames",
        "seconds",
        "labelled",
        "terminal",
        "tasks_accomplished",
        "shards",
    ]
    return csv_bytes(header, (_episode_row(index, split, episode) for split, episode in _all_episodes(index)))


def clips_csv(index: ShardIndex) -> bytes:
    """A row a clip, in the order of the shards; events as frame of the clip:task."""
    flags = ["is_first", "is_last", "is_terminal", "labelled"]
    header = ["key", "split", "episode", "source", "start", "frames", *flags, "events", "shard", "bytes"]
    return csv_bytes(header, (_clip_row(index, sample, flags) for sample in _all_samples(index)))


def tasks_csv(index: ShardIndex) -> bytes:
    """A row a task: events and episodes with at least one, in all and in each split."""
    header = ["task", "events", "episodes"]
    header += [f"{what}_{split}" for split in index.splits for what in ("events", "episodes")]
    return csv_bytes(header, task_rows(index))


def task_rows(index: ShardIndex) -> Iterator[list[str | int]]:
    """The rows of `tasks_csv`."""
    for number, task in enumerate(index.tasks):
        counts = [_count_events(index.episodes(split), number) for split in index.splits]
        yield [task, *map(sum, zip(*counts)), *(count for pair in counts for count in pair)]


def skipped_csv(index: ShardIndex, export_problems: Iterable[tuple[str, str]]) -> bytes:
    """A row for everything that was left out, by `prepare` or, (episode, reason), by the export."""
    rows = [("prepare", entry["source"], entry["reason"]) for entry in index.content.get("skipped", [])]
    rows += [("export", episode, reason) for episode, reason in export_problems]
    return csv_bytes(["stage", "source", "reason"], rows)


def _episode_row(index: ShardIndex, split: str, episode: Episode) -> list[str | int]:
    return [
        episode.name,
        split,
        episode.samples[0].source,
        episode.n,
        f"{episode.n / index.fps:.3f}",
        int(episode.labelled),
        int(episode.samples[-1].is_terminal),
        _accomplished(index, episode),
        " ".join(dict.fromkeys(sample.shard for sample in episode.samples)),
    ]


def _accomplished(index: ShardIndex, episode: Episode) -> str:
    """The tasks in the order in which they were first accomplished."""
    if any(sample.events is None for sample in episode.samples):
        return NOT_LOGGED
    tasks = [task for sample in episode.samples for _, task in sorted(sample.events or ())]
    return "; ".join(index.tasks[task] for task in dict.fromkeys(tasks))


def _clip_row(index: ShardIndex, sample: Sample, flags: Sequence[str]) -> list[str | int]:
    events = NOT_LOGGED
    if sample.events is not None:
        events = "; ".join(f"{frame}:{index.tasks[task]}" for frame, task in sample.events)
    return [
        *(sample.key, sample.split, sample.episode, sample.source, sample.start, sample.n),
        *(int(getattr(sample, flag)) for flag in flags),
        *(events, sample.shard, sum(size for _, size in sample.members.values())),
    ]


def _count_events(episodes: Iterable[Episode], task: int) -> tuple[int, int]:
    """How often a task was accomplished, and in how many of the episodes."""
    per_episode = [
        sum(of == task for sample in episode.samples for _, of in sample.events or ()) for episode in episodes
    ]
    return sum(per_episode), sum(count > 0 for count in per_episode)


def _all_episodes(index: ShardIndex) -> Iterator[tuple[str, Episode]]:
    for split in index.splits:
        for episode in sorted(index.episodes(split), key=lambda episode: episode.name):
            yield split, episode


def _all_samples(index: ShardIndex) -> Iterator[Sample]:
    for split in index.splits:
        yield from index.samples(split)


def _is_plain(part: str) -> bool:
    """A name that any file may have, and that `prepare` does not ignore."""
    is_short = len(part.encode("utf-8", "replace")) <= _LONGEST_NAME
    return bool(part) and is_short and part.isprintable() and not part.startswith(".") and "\\" not in part


def _short_hash(text: str) -> str:
    return sha256(text.encode("utf-8", "replace")).hexdigest()[:8]
