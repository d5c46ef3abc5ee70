"""Videos, logs and games to `Batch`, the one interface of all models.

Its own files import nothing; its rooms import those before them: files, video, shards, sources, loading. Knows no models.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reverie.data.sources.episodes import EpisodeWriter

__all__ = ["EpisodeWriter"]


def __getattr__(name: str) -> object:
    # Not at once: it brings torch along, which the command line does without until it needs it.
    if name == "EpisodeWriter":
        from reverie.data.sources.episodes import EpisodeWriter

        return EpisodeWriter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
