"""`index.json`: what a folder of shards holds, enough to plan every window without opening a shard."""

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from math import inf, log10
from pathlib import Path
from typing import Any

from reverie.data.actions import ActionSpace
from reverie.data.errors import UserError
from reverie.data.files.documents import parse_json, printable, read_bounded
from reverie.data.files.durable import fingerprint
from reverie.data.files.location import Location, Url, locate
from reverie.data.shards.schema import check_entry, check_header, sound_entries, sound_records
from reverie.data.shards.store import fetch_bytes
from reverie.data.video.resize import ResizeMode

FORMAT = 1
INDEX = "index.json"
JOURNAL = ".journal"
MOST_BYTES = 1 << 30
_HALVES = re.compile(rb"\\u[dD][89a-fA-F]")
"""How JSON spells halves of characters, which only together can be stored."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One clip: at most `clip_length` consecutive frames of one episode.

    split, shard, key   where it lies: `<shard>` is a tar whose members are named `<key>.<extension>`
    source, episode     the file it came from and the recording it is part of
    start, n            first frame within the episode, number of frames
    members             extension -> (offset, size) in bytes within the shard
    is_first, is_last   the clip holds the first / last recorded frame of its episode
    is_terminal         the last frame of the clip ended the episode for good
    labelled            at least one action is known
    events              (frame within the clip, task) of every accomplished task; None: not logged
    group               which kind of recording, the same for a whole episode; None: not told apart
    """

    split: str
    shard: str
    key: str
    source: str
    episode: str
    start: int
    n: int
    members: Mapping[str, tuple[int, int]]
    is_first: bool
    is_last: bool
    is_terminal: bool
    labelled: bool
    events: tuple[tuple[int, int], ...] | None
    group: str | None = None

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Sample":
        """Inverse of `to_json`. Raises `ValueError` saying which field is wrong."""
        return cls._of_checked(check_entry(data))

    @classmethod
    def _of_checked(cls, data: Mapping[str, Any]) -> "Sample":
        members = {name: (offset, size) for name, (offset, size) in data["members"].items()}
        events = None if data["events"] is None else tuple((f, t) for f, t in data["events"])
        fields: dict[str, Any] = {name: data.get(name) for name in cls.__slots__}
        return cls(**{**fields, "members": members, "events": events})

    def to_json(self) -> dict[str, Any]:
        """One entry of the index."""
        entry: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        entry["members"] = {name: list(place) for name, place in self.members.items()}
        entry["events"] = None if self.events is None else [list(event) for event in self.events]
        return entry


@dataclass(frozen=True)
class Episode:
    """The consecutive clips of one recording within one split."""

    name: str
    samples: tuple[Sample, ...]

    @cached_property
    def starts(self) -> list[int]:
        """Frames before each clip, and in all of them."""
        return list(accumulate((sample.n for sample in self.samples), initial=0))

    @property
    def n(self) -> int:
        """Frames in all clips."""
        return self.starts[-1]

    @property
    def labelled(self) -> bool:
        """At least one action is known."""
        return any(sample.labelled for sample in self.samples)

    @property
    def group(self) -> str | None:
        """Which kind of recording; None where that is not told apart."""
        return self.samples[0].group


@dataclass(frozen=True)
class ShardIndex:
    """A folder of finished shards: `content` is its index.json (keys: see `data.shards.writer.ShardSet.finish`).

    The folder may lie behind a URL; nothing but the reading of shards depends on that, and least of all the hash.
    """

    folder: Location
    content: Mapping[str, Any]

    problems: tuple[str, ...] = ()
    """What is wrong with entries that were left out, a few words each."""

    @classmethod
    def load(cls, folder: Location | str) -> "ShardIndex":
        """Reads index.json. A damaged entry costs its own clip, and is told in `problems` and by a warning.

        Raises `UserError` when the file is missing, unfinished, of another format, or of no use.
        """
        index = cls.read(locate(folder))
        if index.problems:
            count = f"{len(index.problems)} damaged entries are left out"
            _LOG.warning("%s; the first: %s", f"{index.folder / INDEX}: {count}", index.problems[0])
        return index

    @classmethod
    def read(cls, folder: Location) -> "ShardIndex":
        """`load` without the warning."""
        path = folder / INDEX
        content = _content(folder)
        if content.get("format") != FORMAT:
            raise UserError(f"{path}: is not an index of format {FORMAT}; prepare the data again.")
        problems: list[str] = []
        try:
            check_header(content)
            ActionSpace.from_json(content["action_space"], str(path))
        except UserError:
            raise
        except ValueError as error:
            raise UserError(f"{path}: is damaged ({error}); {_REPAIR}.") from None
        content = {**content, "shards": sound_records(content["shards"], problems)}
        content["samples"] = sound_entries(content, problems)
        if problems and not content["samples"]:
            raise UserError(f"{path}: holds no sound entry of a clip ({problems[0]}); {_REPAIR}.")
        return cls(folder, content, tuple(problems))

    @property
    def skipped(self) -> list[str]:
        """A sentence for every entry that was left out."""
        return [f"{self.folder / INDEX}: {problem}; {_REPAIR}." for problem in self.problems]

    def hash(self) -> str:
        """sha256 of the index: of the shards' checksums, so of all data, and of every setting."""
        return fingerprint(self.content)

    @cached_property
    def _samples(self) -> dict[str, list[Sample]]:
        found: dict[str, list[Sample]] = {split: [] for split in self.splits}
        for entry in self.content["samples"]:
            sample = Sample._of_checked(entry)
            found[sample.split].append(sample)
        return found

    @cached_property
    def _clips_per_shard(self) -> Counter[str]:
        return Counter(sample.shard for samples in self._samples.values() for sample in samples)

    def clips_in(self, shard: str) -> int:
        """Number of clips in `shard`."""
        return self._clips_per_shard[shard]

    @property
    def splits(self) -> list[str]:
        """Names of the splits: train, and validation if there is one."""
        return list(self.content["splits"])

    def samples(self, split: str) -> list[Sample]:
        """The clips of `split`, in the order of the shards."""
        if split not in self.splits:
            raise UserError(
                f"{self.folder}: has no split {split!r}, only {', '.join(self.splits)}; prepare more data."
            )
        return self._samples[split]

    def episodes(self, split: str) -> list[Episode]:
        """The clips of `split` grouped by recording, each in order of time; lost clips divide a recording."""
        groups: dict[str, list[Sample]] = {}
        for sample in self.samples(split):
            groups.setdefault(sample.episode, []).append(sample)
        return [
            Episode(name, part)
            for name, group in groups.items()
            for part in unbroken(sorted(group, key=_start))
        ]

    def of_group(self, group: str | None) -> "ShardIndex":
        """The index with the clips of one group alone; None keeps all. Raises `UserError` when it has no such clip."""
        if group is None:
            return self
        kept = [entry for entry in self.content["samples"] if entry.get("group") == group]
        if not kept:
            known = sorted({str(entry["group"]) for entry in self.content["samples"] if entry.get("group")})
            raise UserError(
                f"{self.folder}: has no group {group!r}; its groups are: {', '.join(known) or 'none'}."
            )
        splits = [split for split in self.splits if any(entry["split"] == split for entry in kept)]
        return ShardIndex(self.folder, {**self.content, "samples": kept, "splits": splits}, self.problems)

    @cached_property
    def action_space(self) -> ActionSpace:
        """Components of the logged actions; empty when no video has a log."""
        return ActionSpace.from_json(self.content["action_space"], str(self.folder / INDEX))

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks, in the order of the columns of `events`."""
        return list(self.content["tasks"])

    @property
    def fps(self) -> float:
        """Frames a second."""
        return float(self.content["fps"])

    @property
    def frame_size(self) -> tuple[int, int]:
        """(height, width) of the frames; of the frames the latents stand for, in latent shards."""
        height, width = self.content["frame_size"]
        return height, width

    @property
    def resize_mode(self) -> ResizeMode:
        """How `prepare` fitted frames of other sizes; pad, which changes nothing, where it had nothing to fit."""
        mode: ResizeMode = self.content.get("identity", {}).get("mode", "pad")
        return mode

    @property
    def storage_psnr(self) -> float:
        """PSNR in dB of the stored frames against what was stored; inf when bit-exact."""
        mse = float(self.content["storage_mse"])
        return inf if mse == 0 else 10 * log10(255**2 / mse)

    @property
    def latent_shape(self) -> tuple[int, int] | None:
        """(N_z, D_z) in latent shards, None in video shards."""
        shape = self.content.get("latent_shape")
        return None if shape is None else (shape[0], shape[1])

    @property
    def tokenizer_sha256(self) -> str | None:
        """Which tokenizer made the latents; None in video shards."""
        return self.content.get("tokenizer_sha256")

    @property
    def source_hash(self) -> str | None:
        """`hash()` of the video shards that the latents were made from; None in video shards."""
        return self.content.get("source_hash")


def unbroken(samples: Sequence[Sample]) -> list[tuple[Sample, ...]]:
    """Cuts samples of one episode, in order, wherever frames are missing between two of them."""
    parts: list[list[Sample]] = []
    for sample in samples:
        if parts and parts[-1][-1].start + parts[-1][-1].n == sample.start:
            parts[-1].append(sample)
        else:
            parts.append([sample])
    return [tuple(part) for part in parts]


_REPAIR = "`reverie data check --repair` makes it anew from the shards"


def _content(folder: Location) -> dict[str, Any]:
    """The object in the index. Raises `UserError`."""
    path = folder / INDEX
    if isinstance(folder, Path) and folder.is_file():
        raise UserError(
            f"{folder}: is a file, no folder of shards; a mixture is for training stages and "
            f"`reverie data info`, other commands such as encode take its corpora one by one."
        )
    try:
        found = read_bounded(path, MOST_BYTES) if isinstance(path, Path) else fetch_bytes(path, MOST_BYTES)
        content = parse_json(found)
        if not isinstance(content, dict) or (_HALVES.search(found) and not printable(content)):
            raise ValueError("it is no object of plain text")
    except FileNotFoundError:
        raise UserError(_missing(folder)) from None
    except UserError:
        raise
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: cannot be read ({error}); {_REPAIR}.") from None
    return content


def _start(sample: Sample) -> int:
    return sample.start


def _missing(folder: Location) -> str:
    if isinstance(folder, Url):
        return (
            f"{folder}: holds no {INDEX}; give the URL of a folder of shards, all of whose files were copied."
        )
    if not folder.is_dir():
        return f"{folder}: no such folder; `reverie prepare` makes shards."
    if (folder / JOURNAL).is_dir():
        return f"{folder}: its shards are unfinished; run the command that makes them again, it continues."
    return f"{folder}: holds no {INDEX}, so it is no folder of shards; `reverie prepare` makes one."
