"""Files over HTTP, continued after a cut connection or a kill, and never glued together from two versions.

    FILE.part       what has arrived
    FILE.part.json  of which version: address, size, ETag or Last-Modified, checksum where the server gives one

A continued download asks for the rest of the same version (Range with If-Range) and starts anew when the server
has another one or gives whole files only. FILE appears when all of it is there.
"""

import base64
import binascii
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from threading import Event
from typing import TypeVar
from urllib import request
from urllib.error import HTTPError

from reverie.data.files.documents import parse_json, read_bounded
from reverie.data.files.durable import sync_folder, write_atomic

T = TypeVar("T")
_BLOCK = 1 << 18
_LONGEST_WAIT = 60.0
_LARGEST_NOTE = 1 << 20
_WORTH_A_RETRY = (408, 425, 429, 500, 502, 503, 504)
_NO_HEAD = (403, 405, 501)
_HEADERS = {"User-Agent": "reverie", "Accept-Encoding": "identity"}


class TransferError(Exception):
    """Why a file cannot be had, a few words without the address."""


class _Temporary(Exception):
    """Something that another attempt may mend."""


@dataclass(frozen=True, kw_only=True)
class Http:
    """How to ask, and how patiently.

    attempts  in a row without a new byte before a file is given up
    wait      seconds before the second attempt; doubled each time, up to a minute
    timeout   seconds of silence after which a connection counts as cut
    stopped   set from outside to end everything soon
    """

    attempts: int = 5
    wait: float = 1.0
    timeout: float = 30.0
    stopped: Event = field(default_factory=Event)

    def download(self, url: str, target: Path, received: Callable[[int], object] = lambda _: None) -> None:
        """Makes `target` the file at `url`, unless it is there; `received` is told of bytes as they arrive.

        Raises `TransferError`; what has arrived stays for the next call. Raises `OSError` when it cannot be written.
        """
        part = _Part(target, url)
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            self._retry(lambda: self._complete(part, received), lambda: part.size)
        part.forget()

    def size(self, url: str) -> int | None:
        """Bytes of the file at `url`; None where there is none. Raises `TransferError`."""
        return self._retry(lambda: self._ask_size(url), lambda: 0)

    def read(self, url: str, most: int) -> bytes:
        """The file at `url`, of at most `most` bytes. Raises `TransferError`."""
        return self._retry(lambda: self._read(url, most), lambda: 0)

    def _retry(self, attempt: Callable[[], T], progress: Callable[[], int]) -> T:
        """The result of `attempt`, repeated while that may help; `progress` may only be beaten by new bytes."""
        most, failures = progress(), 0
        while True:
            try:
                return attempt()
            except _Temporary as error:
                failures = 1 if progress() > most else failures + 1
                most = max(most, progress())
                if failures >= self.attempts:
                    raise TransferError(f"{error} ({failures} attempts in a row)") from None
            if self.stopped.wait(min(self.wait * 2 ** (failures - 1), _LONGEST_WAIT)):
                raise TransferError("interrupted")

    def _complete(self, part: "_Part", received: Callable[[int], object]) -> None:
        if not part.is_complete:
            self._receive(part, received)
        part.finish()

    def _receive(self, part: "_Part", received: Callable[[int], object]) -> None:
        """Everything that is missing, or as much as arrives."""
        wanted = part.range_headers()
        try:
            response = self._open(part.url, wanted)
        except _Unsatisfiable:
            part.discard()
            raise _Temporary("the server has less than what arrived before") from None
        with response:
            part.begin(_Version.of(response, part.url), _first_byte(response))
            with part.path.open("ab", buffering=0) as file:
                for block in _blocks(response):
                    if self.stopped.is_set():
                        raise TransferError("interrupted")
                    _write(file.fileno(), block)
                    received(len(block))
        part.check_end()

    def _ask_size(self, url: str) -> int | None:
        for method in ("HEAD", "GET"):
            try:
                with self._open(url, {}, method) as response:
                    size = _Version.of(response, url).size
            except _Refused as refused:
                if refused.code in (404, 410):
                    return None
                if method == "GET" or refused.code not in _NO_HEAD:
                    raise
                continue
            if size is not None:
                return size
        raise TransferError("the server does not say how long it is")

    def _read(self, url: str, most: int) -> bytes:
        content = bytearray()
        with self._open(url, {}) as response:
            size = _Version.of(response, url).size
            for block in _blocks(response):
                content += block
                if len(content) > most:
                    raise TransferError(f"has more than {most:,} bytes")
        if size is not None and len(content) != size:
            raise _Temporary(f"the connection was cut after {len(content):,} of {size:,} bytes")
        return bytes(content)

    def _open(self, url: str, headers: dict[str, str], method: str = "GET") -> HTTPResponse:
        try:
            asked = request.Request(url, headers=_HEADERS | headers, method=method)
            response: HTTPResponse = _OPENER.open(asked, timeout=self.timeout)
        except HTTPError as error:
            error.close()
            if error.code == 416:
                raise _Unsatisfiable from None
            answer = f"the server answered {error.code} {_words(error.reason)}".rstrip()
            if error.code in _WORTH_A_RETRY:
                raise _Temporary(answer) from None
            raise _Refused(error.code, answer) from None
        except (OSError, HTTPException, ValueError) as error:  # ValueError: a host that cannot exist
            raise _Temporary(_words(getattr(error, "reason", error))) from None
        return response


class _Refused(TransferError):
    """The server's lasting no, with its code."""

    def __init__(self, code: int, answer: str) -> None:
        super().__init__(answer)
        self.code = code


class _Unsatisfiable(Exception):
    """416: there is nothing at the byte from which to continue."""


@dataclass(frozen=True, kw_only=True)
class _Version:
    """What tells one version of a file from another; empty or None where the server does not say."""

    url: str
    size: int | None
    etag: str
    modified: str
    md5: str

    @classmethod
    def of(cls, response: HTTPResponse, url: str) -> "_Version":
        """What a response says about the whole file, of which it may hold a part."""
        headers, is_part = response.headers, response.status == 206
        if headers.get("Content-Encoding", "identity") != "identity":
            raise TransferError("the server sends it compressed, though asked not to")
        if is_part:
            size = re.fullmatch(r"bytes \d+-\d+/(\d+)", headers.get("Content-Range", ""))
            length = size[1] if size else ""
        else:
            length = headers.get("Content-Length", "")
        if not length.isdecimal() and (is_part or headers.get("Transfer-Encoding", "").lower() != "chunked"):
            raise TransferError("the server does not say how long it is")
        # Azure repeats the whole file's checksum under its own name, also in parts.
        md5 = headers.get("x-ms-blob-content-md5", "" if is_part else headers.get("Content-MD5", ""))
        return cls(
            url=url,
            size=int(length) if length.isdecimal() else None,
            etag=headers.get("ETag", ""),
            modified=headers.get("Last-Modified", ""),
            md5=md5,
        )

    @property
    def validator(self) -> str:
        """What If-Range may carry: a strong ETag, or the date."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified

    def is_same(self, other: "_Version") -> bool:
        """Both speak of the same bytes; some servers send parts of another version in spite of If-Range."""
        return (self.size, self.etag, self.modified) == (other.size, other.etag, other.modified)


class _Part:
    """The unfinished file beside `target`."""

    def __init__(self, target: Path, url: str) -> None:
        self.target, self.url = target, url
        self.path = target.with_name(f"{target.name}.part")
        self._note = target.with_name(f"{target.name}.part.json")
        self._version = self._noted()

    @property
    def size(self) -> int:
        """Bytes that can be continued."""
        return self.path.stat().st_size if self._version is not None and self.path.exists() else 0

    @property
    def is_complete(self) -> bool:
        """All bytes have arrived, but were not yet renamed."""
        return self._version is not None and self.path.exists() and self.size == self._version.size

    def range_headers(self) -> dict[str, str]:
        """The question for the rest; empty where there is nothing to continue, or no way to know what."""
        if not self.size or self._version is None or not self._version.validator:
            return {}
        return {"Range": f"bytes={self.size}-", "If-Range": self._version.validator}

    def begin(self, version: _Version, first_byte: int) -> None:
        """Makes room for the bytes from `first_byte` on; raises `_Temporary` if they do not continue this file."""
        if first_byte == 0:
            self.discard()
            self.path.touch()
            self._set(version)
        elif self._version is None or first_byte != self.size or not version.is_same(self._version):
            self.discard()
            raise _Temporary("the file changed on the server")

    def check_end(self) -> None:
        """After the last byte of a response. Raises `_Temporary` unless it was the last byte of the file."""
        assert self._version is not None
        size, wanted = self.path.stat().st_size, self._version.size
        if wanted is None:  # chunked, which ends with a mark of its own
            self._set(replace(self._version, size=size))
        elif size > wanted:
            self.discard()
            raise _Temporary(f"{size:,} bytes arrived instead of {wanted:,}")
        elif size < wanted:
            raise _Temporary(f"the connection was cut after {size:,} of {wanted:,} bytes")

    def finish(self) -> None:
        """Gives the file its name. Raises `_Temporary` when its checksum is not the server's."""
        assert self._version is not None
        with self.path.open("rb") as file:
            if not _has_md5(hashlib.file_digest(file, "md5").digest(), self._version.md5):
                self.discard()
                raise _Temporary("its bytes do not have the server's checksum")
            os.fsync(file.fileno())
        self.path.rename(self.target)
        sync_folder(self.target.parent)

    def discard(self) -> None:
        """Starts anew."""
        self.path.unlink(missing_ok=True)
        self.forget()

    def forget(self) -> None:
        """Deletes the note, which a finished file does not need."""
        self._version = None
        self._note.unlink(missing_ok=True)

    def _set(self, version: _Version) -> None:
        write_atomic(self._note, json.dumps(asdict(version)).encode())
        self._version = version

    def _noted(self) -> _Version | None:
        """Of the same address; a damaged note says nothing."""
        try:
            version = _Version(**parse_json(read_bounded(self._note, _LARGEST_NOTE)))
        except (OSError, ValueError, TypeError):
            return None
        is_text = all(isinstance(value, str) for value in (version.etag, version.modified, version.md5))
        is_whole = is_text and (version.size is None or isinstance(version.size, int))
        return version if is_whole and version.url == self.url else None


def _opener() -> request.OpenerDirector:
    """http and https, proxies and redirects; unlike urllib's own it opens neither files nor ftp."""
    opener = request.OpenerDirector()
    for handler in (
        *(request.ProxyHandler, request.HTTPHandler, request.HTTPSHandler, request.UnknownHandler),
        *(request.HTTPDefaultErrorHandler, request.HTTPRedirectHandler, request.HTTPErrorProcessor),
    ):
        opener.add_handler(handler())
    return opener


_OPENER = _opener()


def _first_byte(response: HTTPResponse) -> int:
    """Where in the file the response begins."""
    if response.status == 206:
        return int(response.headers["Content-Range"].removeprefix("bytes ").partition("-")[0])
    if response.status == 200:
        return 0
    raise TransferError(f"the server answered {response.status} {_words(response.reason)}")


def _blocks(response: HTTPResponse) -> Iterator[bytes]:
    """What arrives, as it arrives. A connection that is cut may simply end."""
    while True:
        try:
            block = response.read1(_BLOCK)
        except (OSError, HTTPException, ValueError) as error:
            raise _Temporary(f"the connection was cut ({_words(error)})") from None
        if not block:
            return
        yield block


def _write(descriptor: int, block: bytes) -> None:
    """All of it: a disk that fills up may take a part."""
    view = memoryview(block)
    while view:
        view = view[os.write(descriptor, view) :]


def _has_md5(digest: bytes, wanted: str) -> bool:
    """True also where the server gave none, or none that can be read."""
    with suppress(binascii.Error, ValueError):
        if wanted:
            return base64.b64decode(wanted, validate=True) == digest
    return True


def _words(reason: object) -> str:
    """One short line."""
    return " ".join(str(reason).split())[:200] or type(reason).__name__
