"""`reverie data export`: what shards hold as tables, logs and videos for people; `prepare` reads them back."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from reverie.data.errors import UserError
from reverie.data.files.documents import read_json
from reverie.data.files.durable import PARTIAL, canonical_json, explain_full_disk, new_file, write_atomic
from reverie.data.files.location import Location
from reverie.data.files.lock import LOCK, sole_writer
from reverie.data.shards.card import card
from reverie.data.shards.index import Sample, ShardIndex
from reverie.data.shards.log_writer import log_table, require_writable, to_csv, to_jsonl
from reverie.data.shards.reader import ShardReader
from reverie.data.shards.tables import Stretch, clips_csv, episodes_csv, skipped_csv, stretches, tasks_csv
from reverie.data.sources.declaration import Declaration
from reverie.data.video.codec import Quality, encode_video
from reverie.pipelines.datasets.vpt_export import export_vpt
from reverie.pipelines.runs.progress import meter

RECORD = "export.json"
EPISODES = "episodes"


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Writes what shards hold as tables that people read, and on request logs and videos of every episode."""

    path: Location
    """Folder of video or latent shards, or the URL of one; of recorded episodes for --steps vpt. May stand without --path."""
    out: Path
    """New folder for the export. The same command again continues an interrupted one."""
    steps: Literal["jsonl", "csv", "vpt"] | None = None
    """Write a log of every episode, a row a frame, in this form; `prepare` reads it. vpt: episodes that `record` played with
    Minecraft's actions, as recordings of OpenAI's VPT, with their videos."""
    videos: Quality | None = None
    """Write a video of every episode: standard or high, which every player shows, or lossless, which is bit-exact."""


def export(config: ExportConfig) -> None:
    """Writes the folder; README.md comes last. An episode that cannot be read is listed in skipped.csv.

    Raises `UserError` when the folder holds something else, or when the shards cannot give what was asked for.
    """
    if config.steps == "vpt":
        if config.videos is not None:
            raise UserError("--videos: recordings in VPT's form have the recorded videos; leave it out.")
        export_vpt(config.path, config.out)
        return
    index = ShardIndex.load(config.path)
    _require_possible(config, index)
    problems: list[tuple[str, str]] = []
    with sole_writer(config.out), explain_full_disk(config.out):
        _begin(config, index)
        if config.steps is not None or config.videos is not None:
            problems = _write_episodes(config, index)
        for name, content in _tables(config, index, problems).items():
            write_atomic(config.out / name, content)
    for episode, reason in problems:
        print(f"skipped {episode}: {reason}")
    print(config.out / "README.md")


def _require_possible(config: ExportConfig, index: ShardIndex) -> None:
    if config.videos is not None and index.latent_shape is not None:
        raise UserError(
            f"{config.path}: holds latents, not pictures; leave --videos out or give the video shards."
        )
    if config.steps is not None:
        require_writable(index.action_space, index.tasks, str(config.path))


def _begin(config: ExportConfig, index: ShardIndex) -> None:
    """Makes the folder, or finds in it the export that is to be continued."""
    record = {"format": 1, "index": index.hash(), "steps": config.steps, "videos": config.videos}
    path = config.out / RECORD
    config.out.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        if any(item.name != LOCK and not item.name.startswith(PARTIAL) for item in config.out.iterdir()):
            raise UserError(f"{config.out}: holds something else already; choose a new folder.")
        write_atomic(path, canonical_json(record))
    try:
        present = read_json(path, "choose a new folder")
    except UserError:
        present = None
    if present != record:
        raise UserError(
            f"{path}: is of an export of other shards or with other settings; choose a new folder."
        )


def _tables(config: ExportConfig, index: ShardIndex, problems: Sequence[tuple[str, str]]) -> dict[str, bytes]:
    """Name -> content of all files but those of single episodes."""
    declaration = Declaration(action_space=index.action_space, tasks=tuple(index.tasks))
    title = (config.path.resolve() if isinstance(config.path, Path) else config.path).name
    return {
        "episodes.csv": episodes_csv(index),
        "clips.csv": clips_csv(index),
        "tasks.csv": tasks_csv(index),
        "skipped.csv": skipped_csv(index, problems),
        "actions.yaml": declaration.to_yaml().encode(),
        "README.md": card(index, title, config.steps, config.videos).encode(),
    }


def _write_episodes(config: ExportConfig, index: ShardIndex) -> list[tuple[str, str]]:
    """Writes logs and videos; returns (episode, reason) of those that cannot be read."""
    problems, reader, planned = [], ShardReader(index), stretches(index)
    try:
        with meter("export frames", sum(stretch.n for stretch in planned)) as shown:
            for stretch in planned:
                try:
                    _write_stretch(config, reader, stretch)
                except UserError as error:
                    reason = str(error).replace(f"{index.folder}/", "")
                    problems.append((stretch.samples[0].episode, reason))
                shown.update(stretch.n, note=stretch.name)
    finally:
        reader.close()
    return problems


def _write_stretch(config: ExportConfig, reader: ShardReader, stretch: Stretch) -> None:
    """The log before the video, so that nothing is written of an episode whose logs are damaged."""
    stem = config.out / EPISODES / stretch.name
    stem.parent.mkdir(parents=True, exist_ok=True)
    log, video = (stem.with_name(f"{stem.name}.{suffix}") for suffix in (config.steps, "mp4"))
    content = b"" if config.steps is None or log.exists() else _log(config.steps, reader, stretch)
    if config.videos is not None and not video.exists():
        with new_file(video) as partial:
            frames = _frames(reader, stretch.samples)
            size = (1, 1) if config.videos == "lossless" else (2, 2)
            encode_video(partial, frames, reader.index.fps, quality=config.videos, multiple=size)
    if content:
        write_atomic(log, content)


def _log(form: str, reader: ShardReader, stretch: Stretch) -> bytes:
    """The content of a log, empty where nothing is known about the frames."""
    index = reader.index
    clips = [(sample, reader.steps(sample)) for sample in stretch.samples]
    table = log_table(clips, index.action_space, index.tasks)
    if not table:
        return b""
    return to_jsonl(table) if form == "jsonl" else to_csv(table, index.action_space)


def _frames(reader: ShardReader, samples: Sequence[Sample]) -> Iterator[np.ndarray[Any, Any]]:
    for sample in samples:
        yield from reader.frames(sample, 0, sample.n)
