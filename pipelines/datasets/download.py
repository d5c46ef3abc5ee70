"""`reverie data download`: recordings named by VPT index files, into a folder that `reverie prepare` reads."""

import errno
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Event, Lock
from time import monotonic

from reverie.data.errors import UserError
from reverie.data.files.durable import explain_full_disk
from reverie.data.files.lock import sole_writer
from reverie.data.files.transfer import Http, TransferError
from reverie.data.sources.vpt.index_files import (
    ENDINGS,
    Member,
    RemoteRecording,
    VPTIndex,
    is_web_address,
    join_indexes,
    parse_index,
)
from reverie.pipelines.datasets.download_size import format_bytes, print_estimate
from reverie.pipelines.runs.atomic import write_json
from reverie.pipelines.runs.progress import Meter, meter

MANIFEST = "download.json"
_MOST_INDEX_BYTES = 1 << 28
_MOST_FAILURES_IN_A_ROW = 50
"""Recordings of which nothing could be had, one after the other, after which the server counts as gone."""
_MOST_LINES = 20
_OF_ONE_FILE = (errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)
"""Reasons why a file cannot be written that say nothing about the others."""


@dataclass(frozen=True, kw_only=True)
class DownloadConfig:
    """Downloads VPT recordings; the same command again continues, and tries again what failed."""

    index: tuple[str, ...] | str
    """Index files of the VPT data, each a path or an http(s) address; several as "[A, B]"."""
    out: Path
    """Folder of the recordings, which `reverie prepare --source` reads."""
    members: tuple[Member, ...] = ("jsonl", "mp4")
    """Files of each recording: jsonl (the log), mp4 (the video), options (of the game), zip (the world)."""
    limit: int | None = None
    """Recordings at most; whole sessions in a fixed order, so that a larger limit adds to what a smaller one gave."""
    limit_gb: float | None = None
    """Begin no further recording once the chosen ones take this many GB; null for no such limit."""
    workers: int = 8
    """Recordings downloaded at a time."""
    attempts: int = 5
    """Attempts in a row without a new byte before a file is given up."""
    wait: float = 1.0
    """Seconds before the second attempt, doubled each time, up to a minute."""
    timeout: float = 30.0
    """Seconds of silence after which a connection counts as cut."""
    dry_run: bool = False
    """Download nothing: estimate the size, and compare it with the free disk space."""
    sample: int = 100
    """Files of each kind whose size a dry run asks for."""

    def __post_init__(self) -> None:
        for name in ("limit", "workers", "attempts", "sample"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name}: must be at least 1, got {value}.")
        for name in ("limit_gb", "wait", "timeout"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UserError(f"{name}: must be above 0, got {value}.")
        if not self.members:
            raise UserError(f"members: is empty; name some of {', '.join(ENDINGS)}.")


@dataclass(frozen=True)
class Failure:
    """A file that could not be had: its name in the folder, its address, and why."""

    file: str
    url: str
    reason: str


@dataclass
class _Traffic:
    """Bytes that arrived in this call, over all workers."""

    received: int = 0
    began: float = field(default_factory=monotonic)
    _lock: Lock = field(default_factory=Lock)

    def add(self, count: int) -> None:
        with self._lock:
            self.received += count

    def note(self) -> str:
        rate = self.received / max(monotonic() - self.began, 1e-9)
        return f"{format_bytes(self.received)}, {format_bytes(rate)}/s"


def data_download(config: DownloadConfig) -> None:
    """Downloads what is missing and lists what could not be had.

    Raises `UserError` when an index cannot be read, the disk is full, the server is gone, or a file is missing in the end.
    """
    http = Http(attempts=config.attempts, wait=config.wait, timeout=config.timeout, stopped=Event())
    index = join_indexes([_load_index(place, http) for place in _places(config)])
    chosen = index.recordings[: config.limit]
    if not chosen:
        raise UserError(f"{', '.join(_places(config))}: names no recording that can be downloaded.")
    print(f"{len(index.recordings):,} recordings in the index, {len(chosen):,} chosen")
    if config.dry_run:
        print_estimate(_missing_by_member(chosen, config), config.out, http, config.sample, config.workers)
        return
    with sole_writer(config.out), explain_full_disk(config.out):
        failures = _download_all(chosen, config, http)
        failures += [Failure(entry, "", reason) for entry, reason in index.refused.items()]
        _report(chosen, failures, config)


def member_files(recording: RemoteRecording, config: DownloadConfig) -> Iterator[tuple[Member, Path, str]]:
    """(member, where it goes, where it comes from) of each wanted file, the log before the video."""
    for member, ending in ENDINGS.items():
        if member in config.members:
            yield member, config.out / f"{recording.name}{ending}", f"{recording.url}{ending}"


def _places(config: DownloadConfig) -> tuple[str, ...]:
    return (config.index,) if isinstance(config.index, str) else config.index


def _load_index(place: str, http: Http) -> VPTIndex:
    if not is_web_address(place):
        return parse_index(_read_file(Path(place)), place)
    try:
        return parse_index(http.read(place, _MOST_INDEX_BYTES), place)
    except TransferError as error:
        raise UserError(
            f"{place}: cannot be downloaded ({error}); check the address and the network."
        ) from None


def _read_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_INDEX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read ({reason}); give a VPT index file or its address.") from None
    if len(content) > _MOST_INDEX_BYTES:
        raise UserError(f"{path}: has more than {_MOST_INDEX_BYTES:,} bytes, so it is no index file.")
    return content


def _missing_by_member(
    chosen: tuple[RemoteRecording, ...], config: DownloadConfig
) -> dict[str, list[tuple[Path, str]]]:
    missing: dict[str, list[tuple[Path, str]]] = {m: [] for m in ENDINGS if m in config.members}
    for recording in chosen:
        for member, path, url in member_files(recording, config):
            if not path.is_file():
                missing[member].append((path, url))
    return missing


def _bytes_there(recording: RemoteRecording, config: DownloadConfig) -> int:
    return sum(path.stat().st_size for _, path, _ in member_files(recording, config) if path.is_file())


def _is_complete(recording: RemoteRecording, config: DownloadConfig) -> bool:
    return all(path.is_file() for _, path, _ in member_files(recording, config))


def _download_all(chosen: tuple[RemoteRecording, ...], config: DownloadConfig, http: Http) -> list[Failure]:
    """Downloads what is missing; returns what could not be had."""
    todo = [recording for recording in chosen if not _is_complete(recording, config)]
    total, traffic = sum(_bytes_there(recording, config) for recording in chosen), _Traffic()
    limit = None if config.limit_gb is None else round(config.limit_gb * 1e9)

    def fetch(recording: RemoteRecording) -> list[Failure]:
        return _download(recording, config, http, traffic.add)

    def wanted() -> Iterator[RemoteRecording]:
        return itertools.takewhile(lambda _: limit is None or total + traffic.received < limit, todo)

    failures: list[Failure] = []
    in_a_row = 0
    pool = ThreadPoolExecutor(config.workers)
    try:
        with meter("download", len(chosen), start=len(chosen) - len(todo)) as shown:
            for recording, failed in _completed(pool, wanted(), fetch, config.workers, shown, traffic):
                failures += failed
                in_a_row = in_a_row + 1 if len(failed) == len(config.members) else 0
                if in_a_row >= _MOST_FAILURES_IN_A_ROW:
                    raise UserError(
                        f"{recording.url}: nothing of {in_a_row} recordings in a row could be downloaded "
                        f"({failed[-1].reason}); check the network and run this again, it continues."
                    )
    finally:
        http.stopped.set()
        pool.shutdown(cancel_futures=True)
    return failures


def _completed(
    pool: ThreadPoolExecutor,
    items: Iterator[RemoteRecording],
    fetch: Callable[[RemoteRecording], list[Failure]],
    workers: int,
    shown: Meter,
    traffic: _Traffic,
) -> Iterator[tuple[RemoteRecording, list[Failure]]]:
    """Items with their results as they finish, never more than `workers` of them begun."""
    running: dict[Future[list[Failure]], RemoteRecording] = {}
    while True:
        for item in itertools.islice(items, workers - len(running)):
            running[pool.submit(fetch, item)] = item
        if not running:
            return
        done, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
        shown.update(len(done), note=traffic.note())
        for future in done:
            yield running.pop(future), future.result()


def _download(
    recording: RemoteRecording, config: DownloadConfig, http: Http, received: Callable[[int], object]
) -> list[Failure]:
    failures = []
    for _, path, url in member_files(recording, config):
        try:
            http.download(url, path, received)
        except TransferError as error:
            failures.append(Failure(str(path.relative_to(config.out)), url, str(error)))
        except OSError as error:
            if error.errno not in _OF_ONE_FILE:
                raise
            reason = f"cannot be written ({error.strerror})"
            failures.append(Failure(str(path.relative_to(config.out)), url, reason))
    return failures


def _report(chosen: tuple[RemoteRecording, ...], failures: list[Failure], config: DownloadConfig) -> None:
    complete = sum(_is_complete(recording, config) for recording in chosen)
    size = sum(_bytes_there(recording, config) for recording in chosen)
    failures = sorted(failures, key=lambda failure: failure.file)
    manifest = {
        "format": 1,
        "index": list(_places(config)),
        "members": [member for member in ENDINGS if member in config.members],
        "recordings": len(chosen),
        "complete": complete,
        "bytes": size,
        "failed": [asdict(failure) for failure in failures],
    }
    write_json(config.out / MANIFEST, manifest)
    print(f"{complete:,} of {len(chosen):,} recordings complete, {format_bytes(size)}: {config.out}")
    for failure in failures[:_MOST_LINES]:
        print(f"failed {failure.file}: {failure.reason}")
    if failures:
        raise UserError(
            f"{config.out}: {len(failures):,} files are missing, listed with the reasons in {MANIFEST}; "
            f"the same command tries them again."
        )
