"""Videos, logs and games to `Batch`: decoding, importers, shards, loader. Knows nothing of models."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reverie.data.episodes import EpisodeWriter

__all__ = ["EpisodeWriter"]


def __getattr__(name: str) -> object:
    # Not at once: it brings torch along, which the command line does without until it needs it.
    if name == "EpisodeWriter":
        from reverie.data.episodes import EpisodeWriter

        return EpisodeWriter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
