"""Where shards lie: in a folder of this machine, or at a URL in an object store or on a web server."""

import re
from pathlib import Path

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://.+")


class Url(str):
    """The URL of a folder or a file, joined with `/` as a `Path` is."""

    def __new__(cls, text: str) -> "Url":
        """Raises `ValueError` for any other text."""
        if not _URL.fullmatch(text):
            raise ValueError(f"{text!r} is no URL such as https://host/folder or s3://bucket/folder")
        return super().__new__(cls, text)

    def __truediv__(self, name: str) -> "Url":
        return Url(f"{self.rstrip('/')}/{name}")

    @property
    def scheme(self) -> str:
        """The part before `://`."""
        return self.partition("://")[0].lower()

    @property
    def name(self) -> str:
        """The part after the last `/`."""
        return self.rstrip("/").rpartition("/")[2]


Location = Url | Path
"""A folder, wherever it is."""


def locate(place: Location | str) -> Location:
    """`place` as a URL if it has a scheme, else as a path."""
    if isinstance(place, Url | Path):
        return place
    return Url(place) if _URL.fullmatch(place) else Path(place)
