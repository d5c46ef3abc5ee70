"""The size and rate at which a corpus is stored, and which of its videos are of an accepted kind."""

import os

from reverie.data.errors import UserError
from reverie.data.sources.clips import Storage
from reverie.data.sources.source import Corpus, Source
from reverie.data.video.codec import storage_quality
from reverie.data.video.survey import Survey
from reverie.data.video.times import MOST_FPS, SAME_RATE, lossless_rate
from reverie.pipelines.datasets.prepare_config import PrepareConfig


def drop_refused(
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
            skipped[source.name] = without_folder(error, corpus)
    return accepted


def _require_kind(config: PrepareConfig, source: Source, video: Survey) -> None:
    if video.is_interlaced and config.interlaced == "refuse":
        raise UserError(f"{source.video}: is interlaced; deinterlace it, or set --interlaced keep.")
    if video.hdr and config.hdr == "refuse":
        raise UserError(f"{source.video}: is HDR ({video.hdr}); tone-map it, or set --hdr keep.")


def choose_storage(config: PrepareConfig, corpus: Corpus, inspected: dict[Source, Survey]) -> Storage:
    """How clips are stored. Raises one `UserError` that asks for all that must be chosen, size and rate."""
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
            "choose one with --size HEIGHTxWIDTH, both multiples of 8"
        )
    return next(iter(sizes))


def _common_rate(inspected: dict[Source, Survey], missing: list[str]) -> float:
    """The rate of all videos; where they differ, what to choose goes to `missing`."""
    rates = {source.name: _own_rate(source, video) for source, video in inspected.items()}
    slow, fast = min(rates, key=lambda name: rates[name]), max(rates, key=lambda name: rates[name])
    if rates[fast] / rates[slow] - 1 > SAME_RATE:
        missing.append(
            f"fps: the videos differ ({rates[slow]:g} in {slow}, {rates[fast]:g} in {fast}); choose one with --fps"
        )
    return rates[min(rates)]


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


def without_folder(error: UserError, corpus: Corpus) -> str:
    """The sentence with paths relative to the corpus: an index must not depend on where a folder lies."""
    return str(error).replace(f"{corpus.folder}{os.sep}", "")
