"""Copying files from object stores and web servers through fsspec, in the background, so that none can stall a run."""

import errno
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reverie.data.errors import UserError
from reverie.data.files.location import Url

_ATTEMPTS = 3
_SLOWEST = 10_000
"""Bytes a second: a transfer that is slower counts as hanging."""
_POLL = 0.1
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "hf": "huggingface_hub"}
_FINAL = (FileNotFoundError, PermissionError, UserError)
"""What another attempt a moment later does not mend."""


class Job(threading.Thread):
    """`work` in a thread that does not keep the process alive, done again after a pause when it fails.

    Args:
        work: may raise anything.
        pause: seconds before the second attempt, twice as long before the third and last.
    """

    def __init__(self, work: Callable[[], None], pause: float):
        super().__init__(daemon=True)
        self._work, self._pause = work, pause
        self.error: Exception | None = None

    def run(self) -> None:
        """Called by `start`."""
        for attempt in range(_ATTEMPTS):
            self.error = self._attempt()
            if self.error is None or isinstance(self.error, _FINAL):
                return
            if attempt < _ATTEMPTS - 1:
                time.sleep(self._pause * 2**attempt)

    def wait(self, size: Callable[[], int], timeout: float) -> None:
        """Returns when the work is done; waits as long as `size` changes by 10 kB a second.

        Raises the error of the last attempt, or `TimeoutError` while the job goes on in the background.
        """
        seen, since = size(), time.monotonic()
        while self.is_alive():
            self.join(_POLL)
            if abs(size() - seen) >= _SLOWEST * timeout:
                seen, since = size(), time.monotonic()
            elif self.is_alive() and time.monotonic() - since > timeout:
                raise TimeoutError(f"no answer for {timeout:g} seconds")
        if self.error is not None:
            raise self.error

    def _attempt(self) -> Exception | None:
        try:
            self._work()
        except Exception as error:  # each store has its own kinds
            return error
        return None


def require_store(url: Url) -> None:
    """Imports what reads `url`, which may take seconds that are not the store's. Raises `UserError` where it is missing."""
    from fsspec import get_filesystem_class  # here: most runs do without

    try:
        get_filesystem_class(url.scheme)
    except ImportError as error:
        raise UserError(_missing_package(url, error)) from None
    except ValueError as error:
        raise UserError(
            f"{url}: cannot be opened ({reason(error)}); use s3, gs, hf, https or file."
        ) from None


def copy(url: Url, target: Path, timeout: float, most_bytes: int) -> None:
    """Writes the file at `url` to `target`.

    Raises whatever the store raises, and `ValueError` once more than `most_bytes` came, however many are still to come.
    """
    from fsspec.callbacks import Callback
    from fsspec.core import url_to_fs

    class Limit(Callback):
        def call(self, *_: Any, **__: Any) -> None:
            if self.value > most_bytes:
                raise ValueError(f"it has more than {most_bytes:,} bytes")

    options = _http_options(timeout) if url.scheme in ("http", "https") else {}
    store, place = url_to_fs(str(url), **options)
    store.get_file(place, str(target), callback=Limit())
    if not target.is_file():  # a folder of that name
        raise FileNotFoundError(errno.ENOENT, "is no file", str(url))


def reason(error: Exception) -> str:
    """Why a transfer failed, in some words."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if status := getattr(error, "status", None):
        return f"the server answers {status}"
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _http_options(timeout: float) -> dict[str, Any]:
    """Any time for a whole shard, but not for an answer."""
    from aiohttp import ClientTimeout

    limits = ClientTimeout(total=None, sock_connect=timeout, sock_read=timeout)
    return {"client_kwargs": {"timeout": limits, "trust_env": True}}


def _missing_package(url: Url, error: ImportError) -> str:
    package = _PACKAGES.get(url.scheme)
    if package is None:
        return f"{url}: a package for {url.scheme}:// is missing ({reason(error)}); install it."
    return f"{url}: needs the package {package}; run `pip install 'reverie[remote]'`."
