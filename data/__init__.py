"""Videos, logs and games to `Batch`, the one interface of all models.

Its own files import nothing; its rooms import those before them: files, video, shards, sources, loading. Knows no models.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reverie.data.loading.config import LoaderConfig
    from reverie.data.loading.loader import Loader
    from reverie.data.shards.index import ShardIndex
    from reverie.data.sources.episodes import EpisodeWriter

__all__ = ["EpisodeWriter", "Loader", "LoaderConfig", "ShardIndex"]

_ROOMS = {
    "EpisodeWriter": "sources.episodes",
    "Loader": "loading.loader",
    "LoaderConfig": "loading.config",
    "ShardIndex": "shards.index",
}


def __getattr__(name: str) -> object:
    # Not at once: they bring torch along, which the command line does without until it needs it.
    if name in _ROOMS:
        return getattr(import_module(f"reverie.data.{_ROOMS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
