"""`reverie data show`: one page with pictures and films of some clips of each split."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reverie.data.errors import UserError
from reverie.data.files.durable import explain_full_disk, write_atomic
from reverie.data.files.location import Location
from reverie.data.files.lock import sole_writer
from reverie.data.shards.index import Sample, ShardIndex
from reverie.data.shards.reader import ShardReader
from reverie.evaluation.clips import ShownClip, clip_film, clips_page, contact_sheet
from reverie.evaluation.pictures import png
from reverie.evaluation.report import Media
from reverie.pipelines.runs.progress import meter


@dataclass(frozen=True, kw_only=True)
class ShowConfig:
    """Writes one HTML page with pictures and films of some clips, their actions, rewards and events drawn in."""

    path: Location
    """Folder of video shards, or the URL of one; may stand without --path."""
    out: Path | None = None
    """The page; default: show.html in the folder of the shards, or here if that is a URL."""
    clips: int = 6
    """Clips of each split, chosen by the seed."""
    seed: int = 0
    """Decides which clips are shown."""

    def __post_init__(self) -> None:
        if self.clips < 1:
            raise UserError(f"clips: must be at least 1, got {self.clips}.")
        if self.seed < 0:
            raise UserError(f"seed: must be at least 0, got {self.seed}.")


def show(config: ShowConfig) -> None:
    """Writes the page. Raises `UserError` for latent shards and for damaged clips."""
    index = ShardIndex.load(config.path)
    if index.latent_shape is not None:
        raise UserError(
            f"{config.path}: holds latents, not pictures; give the video shards they were made from."
        )
    folder = config.path if isinstance(config.path, Path) else Path()
    page = config.out or folder / "show.html"
    with sole_writer(page.parent), explain_full_disk(page.parent):
        write_atomic(page, _page(config, index))
    print(page)


def _page(config: ShowConfig, index: ShardIndex) -> bytes:
    chosen = {split: choose(index.samples(split), config.clips, config.seed) for split in index.splits}
    sections: dict[str, tuple[Media, list[Media]]] = {}
    reader = ShardReader(index)
    with meter("draw clips", sum(map(len, chosen.values()))) as shown:
        for split, samples in chosen.items():
            clips, films = [], []
            for sample in samples:
                clip = ShownClip(sample, reader.frames(sample, 0, sample.n), reader.steps(sample))
                films.append(_film(clip, index))
                clips.append(clip)
                shown.update(note=sample.key)
            sections[split] = (_sheet(split, clips), films)
    reader.close()
    return clips_page(_title(config.path), sections, index.fps).encode()


def _title(place: Location) -> str:
    return place.resolve().name if isinstance(place, Path) else place


def choose(samples: list[Sample], count: int, seed: int) -> list[Sample]:
    """At most `count` samples, the same ones for one seed, in their own order."""
    chosen = np.random.default_rng(seed).permutation(len(samples))[:count]
    return [samples[i] for i in sorted(chosen)]


def _sheet(split: str, clips: list[ShownClip]) -> Media:
    caption = "First, middle and last frame of each clip, numbered within the episode"
    return Media(f"{split}.png", caption, png(contact_sheet(clips)))


def _film(clip: ShownClip, index: ShardIndex) -> Media:
    sample = clip.sample
    last = sample.start + sample.n - 1
    return Media(
        f"{sample.key}.mp4",
        f"{sample.key}: {sample.episode}, frames {sample.start} to {last}",
        clip_film(clip, index.action_space, index.tasks, index.fps),
    )
