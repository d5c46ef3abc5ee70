"""The documented name of the loader, which stands in `data.loading.loader`."""

from reverie.data.loading.config import LoaderConfig
from reverie.data.loading.loader import Loader

__all__ = ["Loader", "LoaderConfig"]
