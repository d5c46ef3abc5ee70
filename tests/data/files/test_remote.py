"""Shards behind URLs: the same batches as from a folder, whatever the network, other processes and the disk do."""

import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import fsspec
import pytest

from reverie.data.errors import UserError
from reverie.data.files.location import Url
from reverie.data.loading.loader import Loader, LoaderConfig
from reverie.data.shards.cache import CacheSettings, ShardCache
from reverie.data.shards.checking import all_samples
from reverie.data.shards.index import Sample, ShardIndex
from reverie.data.shards.local import MOST_HANGING
from reverie.data.shards.reader import BrokenSample, ShardReader
from reverie.data.shards.store import RemoteShards, fetch_bytes
from tests.data.loading.test_loader import assert_equal, take
from tests.data.server import ShardServer, serve
from tests.data.shards.test_shards import largest_file

CONFIG = LoaderConfig(batch_size=6, length=16)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REVERIE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("REVERIE_TIMEOUT", "20")
    return tmp_path / "cache" / "shards"


@pytest.fixture
def server(shards: ShardIndex, cache: Path) -> Iterator[ShardServer]:
    assert isinstance(shards.folder, Path)
    with serve(shards.folder) as server:
        yield server


def names(index: ShardIndex) -> list[str]:
    return [record["name"] for record in index.content["shards"]]


def cached(cache: Path) -> set[str]:
    """Checksums of the whole shards in the cache, which holds no others."""
    assert not [path for path in cache.iterdir() if path.name.startswith(".partial-")]
    return {path.stem for path in cache.glob("*.tar")}


def checksums(index: ShardIndex) -> dict[str, str]:
    return {record["name"]: record["sha256"] for record in index.content["shards"]}


def first_in(index: ShardIndex, shard: str) -> Sample:
    return next(sample for split in index.splits for sample in index.samples(split) if sample.shard == shard)


def test_batches_are_those_of_the_folder(shards: ShardIndex, server: ShardServer, cache: Path) -> None:
    index = ShardIndex.load(server.url)
    assert (index.hash(), index.content) == (shards.hash(), shards.content)
    local = take(Loader(shards, CONFIG), 12)
    for workers in (0, 2):  # workers are forked from a process that has used the network
        for a, b in zip(local, take(Loader(index, replace(CONFIG, num_workers=workers)), 12), strict=True):
            assert_equal(a, b)
    train = {name for name in names(shards) if name.startswith("train")}
    assert cached(cache) == {checksums(shards)[name] for name in train}
    assert {name: server.requests[name] for name in train} == dict.fromkeys(train, 1)


def test_workers_share_what_one_of_them_fetches(shards: ShardIndex, server: ShardServer, cache: Path) -> None:
    config = replace(CONFIG, num_workers=2)
    for a, b in zip(
        take(Loader(shards, CONFIG), 12), take(Loader(ShardIndex.load(server.url), config), 12), strict=True
    ):
        assert_equal(a, b)
    assert {server.requests[name] for name in names(shards) if name.startswith("train")} == {1}


@pytest.mark.parametrize("scheme", ["memory", "file"])
def test_other_stores(scheme: str, shards: ShardIndex, cache: Path) -> None:
    url = f"file://{shards.folder}"
    if scheme == "memory":
        url = "memory://corpus"
        fsspec.filesystem("memory").put(f"{shards.folder}/", "/corpus/", recursive=True)
    for a, b in zip(
        take(Loader(shards, CONFIG), 6), take(Loader(ShardIndex.load(url), CONFIG), 6), strict=True
    ):
        assert_equal(a, b)
    assert cached(cache)


def test_a_run_moves_between_folder_and_server(shards: ShardIndex, server: ShardServer, cache: Path) -> None:
    remote = ShardIndex.load(server.url)
    whole = take(Loader(shards, CONFIG), 10)
    for before, after in ((shards, remote), (remote, shards)):
        first = Loader(before, CONFIG)
        take(first, 4)
        second = Loader(after, CONFIG)
        second.load_state_dict(first.state_dict())
        for a, b in zip(whole[4:], take(second, 6), strict=True):
            assert_equal(a, b)


@pytest.mark.parametrize("fault", ["cut", "wrong"])
def test_a_bad_transfer_is_done_again(
    fault: str, shards: ShardIndex, server: ShardServer, cache: Path
) -> None:
    server.once = set(names(shards))
    server.faults = dict.fromkeys(server.once, fault)  # type: ignore[arg-type]
    loader = Loader(ShardIndex.load(server.url), CONFIG)
    for a, b in zip(take(Loader(shards, CONFIG), 6), take(loader, 6), strict=True):
        assert_equal(a, b)
    assert not loader.skipped and max(server.requests[name] for name in names(shards)) == 2


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("missing", "there is no such file"),
        ("cut", "cannot be fetched"),
        ("wrong", "what came has sha256"),
        ("hang", "no answer for 2 seconds"),
    ],
)
def test_a_shard_out_of_reach_is_skipped_and_tried_again(
    fault: str,
    words: str,
    shards: ShardIndex,
    server: ShardServer,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sick = names(shards)[1]
    server.faults = {sick: fault}  # type: ignore[dict-item]
    index = ShardIndex.load(server.url)
    monkeypatch.setenv("REVERIE_TIMEOUT", "2")
    loader = Loader(index, CONFIG)
    began = time.monotonic()
    batches = take(loader, 30)
    assert time.monotonic() - began < 20, "asked for many times, waited for once"
    assert len(batches) == 30 and len(loader.skipped) == 1
    assert f"{server.url}/{sick}" in loader.skipped[0] and words in loader.skipped[0]
    assert checksums(shards)[sick] not in cached_or_coming(cache)

    server.faults.clear()
    server.released.set()
    sample, reader = first_in(index, sick), loader._batches._uniform.rings[0].rows._reader
    wait_until_readable(reader, sample)
    assert reader.member(sample, "clip.mp4") == ShardReader(shards).member(sample, "clip.mp4")
    assert checksums(shards)[sick] in cached(cache)


def test_a_store_that_is_gone_stops_the_run(
    shards: ShardIndex, server: ShardServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REVERIE_TIMEOUT", "0.3")
    index = ShardIndex.load(server.url)
    assert len([name for name in names(shards) if name.startswith("train")]) > MOST_HANGING
    server.faults = dict.fromkeys(names(shards), "cut")
    with pytest.raises(UserError, match=f"^{server.url}: {MOST_HANGING + 1} shards cannot be fetched"):
        take(Loader(index, CONFIG), 1)
    server.faults = dict.fromkeys(names(shards), "missing")
    with pytest.raises(UserError, match="windows in a row could not be read.*there is no such file"):
        take(Loader(index, CONFIG), 1)


def cached_or_coming(cache: Path) -> set[str]:
    return {path.stem for path in cache.glob("*.tar")}


def wait_until_readable(reader: ShardReader, sample: Sample) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            reader.member(sample, "clip.mp4")
            return
        except BrokenSample:
            time.sleep(0.05)
    raise AssertionError("the shard did not come")


def test_a_slow_shard_is_waited_for(
    shards: ShardIndex, server: ShardServer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reverie.data.files.remote._SLOWEST", 1000)  # bytes a second; the shards are tiny
    name = names(shards)[0]
    server.faults = {name: "slow"}
    index = ShardIndex.load(server.url)
    monkeypatch.setenv("REVERIE_TIMEOUT", "1")
    reader = ShardReader(index)
    began = time.monotonic()
    assert reader.member(first_in(shards, name), "meta.json")
    assert time.monotonic() - began > 1.5  # longer than the timeout


def read_all(url: str, result: Path) -> None:
    index = ShardIndex.load(url)
    reader = ShardReader(index)
    result.write_text(str(sum(len(reader.member(sample, "clip.mp4")) for sample in all_samples(index))))


def test_processes_fetch_each_shard_once_and_take_over_from_a_killed_one(
    shards: ShardIndex, server: ShardServer, cache: Path, tmp_path: Path
) -> None:
    first, results = names(shards)[0], [tmp_path / f"result-{number}" for number in range(3)]
    server.faults, server.once = {first: "hang"}, {first}
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=read_all, args=(server.url, result)) for result in results]
    for process in processes:
        process.start()
    lock = cache / f"{checksums(shards)[first]}.lock"
    while not server.requests[first] or not all(has_open(process.pid, lock) for process in processes):
        time.sleep(0.01)
    assert server.requests[first] == 1, "the others wait for the one that fetches"
    killed = next(process for process in processes if has_open(process.pid, lock, locked=True))
    killed.kill()
    for process in processes:
        process.join(60)
    expected = str(sum(sample.members["clip.mp4"][1] for sample in all_samples(shards)))
    assert [result.read_text() for result in results if result.exists()] == [expected] * 2
    assert cached(cache) == set(checksums(shards).values())
    assert server.requests[first] == 2 and {server.requests[name] for name in names(shards)[1:]} == {1}


def has_open(pid: int | None, path: Path, locked: bool = False) -> bool:
    """By what the kernel says about a process' open files; a line begins with `lock:` in the one that has the lock."""
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            info = Path(f"/proc/{pid}/fdinfo/{descriptor.name}").read_text()
            if descriptor.resolve() == path.resolve() and ("lock:" in info or not locked):
                return True
        except OSError:
            continue
    return False


def test_the_least_recently_read_shards_make_room(
    shards: ShardIndex, server: ShardServer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {record["name"]: record["bytes"] for record in shards.content["shards"]}
    limit = sum(sorted(sizes.values())[-2:]) + 1
    monkeypatch.setenv("REVERIE_CACHE_BYTES", str(limit))
    index = ShardIndex.load(server.url)
    reader, order = ShardReader(index), names(shards)[:2]
    for name in order:
        reader.member(first_in(index, name), "meta.json")
    reader.member(first_in(index, order[0]), "meta.json")
    reader.member(first_in(index, names(shards)[2]), "meta.json")
    assert checksums(shards)[order[0]] in cached(cache) and checksums(shards)[order[1]] not in cached(cache)
    for a, b in zip(take(Loader(shards, CONFIG), 6), take(Loader(index, CONFIG), 6), strict=True):
        assert_equal(a, b)
        assert sum(path.stat().st_size for path in cache.glob("*.tar")) <= limit


def test_a_shard_in_use_stays(shards: ShardIndex, server: ShardServer, cache: Path) -> None:
    settings = CacheSettings(folder=cache, max_bytes=1, timeout=5)
    records = shards.content["shards"]
    remote, other = (RemoteShards(Url(server.url), records, settings) for _ in range(2))
    with remote.held(records[0]["name"]) as path:
        for record in records[1:3]:
            other.read(record["name"], 0, 1)
        assert path.is_file() and cached(cache) == {records[0]["sha256"], records[2]["sha256"]}
    other.read(records[1]["name"], 0, 1)
    assert cached(cache) == {records[1]["sha256"]}


def test_a_cut_off_file_in_the_cache_is_fetched_again(
    shards: ShardIndex, server: ShardServer, cache: Path
) -> None:
    reader, sample = ShardReader(ShardIndex.load(server.url)), shards.samples("train")[0]
    content = reader.member(sample, "clip.mp4")
    path = cache / f"{checksums(shards)[sample.shard]}.tar"
    os.truncate(path, 1000)
    assert reader.member(sample, "clip.mp4") == content
    assert server.requests[sample.shard] == 2


def test_leftovers_of_killed_processes_are_deleted(
    shards: ShardIndex, server: ShardServer, cache: Path
) -> None:
    cache.mkdir(parents=True)
    leftover = cache / f".partial-{'0' * 64}.1000"
    leftover.write_bytes(bytes(10))
    ShardReader(ShardIndex.load(server.url)).member(shards.samples("train")[0], "meta.json")
    assert not leftover.exists()


def test_a_full_disk_stops_with_one_sentence(shards: ShardIndex, server: ShardServer, cache: Path) -> None:
    index = ShardIndex.load(server.url)
    with largest_file(1000), pytest.raises(UserError, match="the disk is full"):
        take(Loader(index, CONFIG), 1)
    assert not cached(cache)


def test_mistakes_are_one_sentence(
    shards: ShardIndex, server: ShardServer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("s3fs", "gcsfs", "huggingface_hub"):
        monkeypatch.setitem(sys.modules, package, None)
    for url, words in [
        (f"{server.url}/elsewhere", "holds no index.json; give the URL of a folder of shards"),
        ("http://127.0.0.1:1/shards", "index.json: cannot be fetched .*; see that it can be reached"),
        ("s3://bucket/shards", r"needs the package s3fs; run `pip install 'reverie\[remote\]'`"),
        ("gs://bucket/shards", r"needs the package gcsfs; run `pip install 'reverie\[remote\]'`"),
        ("hf://datasets/a/b", r"needs the package huggingface_hub; run `pip install 'reverie\[remote\]'`"),
        ("nonsense://shards", "cannot be opened .* use s3, gs, hf, https or file"),
    ]:
        with pytest.raises(UserError, match=words):
            ShardIndex.load(url)
    monkeypatch.setenv("REVERIE_CACHE_BYTES", "much")
    with pytest.raises(UserError, match="REVERIE_CACHE_BYTES: must be a positive number, got 'much'"):
        ShardIndex.load(server.url)


class Endless(BaseHTTPRequestHandler):
    """Answers with zeros for as long as somebody listens."""

    most = 0

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        with suppress(OSError):
            for sent in range(0, 1 << 30, 1 << 20):
                self.wfile.write(bytes(1 << 20))
                Endless.most = max(Endless.most, sent)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


def test_a_file_without_end_is_given_up(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVERIE_TIMEOUT", "2")
    with ThreadingHTTPServer(("127.0.0.1", 0), Endless) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(
            UserError, match="index.json: cannot be fetched .it has more than 1,000,000 bytes"
        ):
            fetch_bytes(Url(f"http://127.0.0.1:{server.server_port}/index.json"), 1_000_000)
        server.shutdown()
    assert Endless.most < 100 << 20


def test_an_index_cannot_name_files_outside_the_cache(shards: ShardIndex, cache: Path) -> None:
    record = {**shards.content["shards"][0], "sha256": "../../outside"}
    remote = RemoteShards(Url("http://127.0.0.1:1"), [record], CacheSettings(folder=cache))
    with pytest.raises(UserError, match="index.json tells no checksum"):
        remote.read(record["name"], 0, 1)
    assert not ShardCache(CacheSettings(folder=cache)).path("x").parent.exists()
