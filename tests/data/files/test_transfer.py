"""Downloads against a real server that cuts, lies, changes files, and refuses."""

import base64
import hashlib
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reverie.data.files.transfer import Http, TransferError
from tests.data.web_site import Answer, Site, serve

CONTENT = random.Random(0).randbytes(100_000)
OTHER = random.Random(1).randbytes(100_000)
HTTP = Http(attempts=3, wait=0.001, timeout=5)
CUT = Answer(cut=30_000)


@pytest.fixture
def site() -> Iterator[Site]:
    with serve() as running:
        running.files["/a b.mp4"] = running.files["/f"] = CONTENT
        yield running


def fetch(site: Site, folder: Path, http: Http = HTTP, path: str = "/f") -> bytes:
    http.download(site.url + path, folder / "deep" / "er" / "f")
    assert [item.name for item in (folder / "deep" / "er").iterdir()] == ["f"], "nothing else is left"
    return (folder / "deep" / "er" / "f").read_bytes()


def test_a_file_is_fetched_once(site: Site, tmp_path: Path) -> None:
    arrived: list[int] = []
    HTTP.download(f"{site.url}/f", tmp_path / "f", arrived.append)
    assert (tmp_path / "f").read_bytes() == CONTENT and sum(arrived) == len(CONTENT)
    HTTP.download(f"{site.url}/f", tmp_path / "f")
    assert len(site.requests) == 1


def test_cut_connections_are_continued(site: Site, tmp_path: Path) -> None:
    site.answers["/f"] = [CUT] * 3  # more than the attempts, but each brings new bytes
    assert fetch(site, tmp_path) == CONTENT
    assert site.ranges("/f") == [None, "bytes=30000-", "bytes=60000-", "bytes=90000-"]


def test_a_later_call_continues(site: Site, tmp_path: Path) -> None:
    site.answers["/f"] = [CUT]
    with pytest.raises(TransferError, match="the connection was cut after 30,000 of 100,000 bytes"):
        fetch(site, tmp_path, replace(HTTP, attempts=1))
    assert (tmp_path / "deep" / "er" / "f.part").stat().st_size == 30_000
    assert fetch(site, tmp_path) == CONTENT and site.ranges("/f") == [None, "bytes=30000-"]


@pytest.mark.parametrize("note", ["", "{", "[1]", '{"url": 1}', "null"])
def test_without_a_readable_note_it_starts_anew(site: Site, tmp_path: Path, note: str) -> None:
    site.answers["/f"] = [CUT]
    with pytest.raises(TransferError):
        fetch(site, tmp_path, replace(HTTP, attempts=1))
    (tmp_path / "deep" / "er" / "f.part.json").write_text(note)
    assert fetch(site, tmp_path) == CONTENT and site.ranges("/f") == [None, None]


def test_a_complete_part_is_only_renamed(site: Site, tmp_path: Path) -> None:
    site.answers["/f"] = [CUT]
    with pytest.raises(TransferError):
        fetch(site, tmp_path, replace(HTTP, attempts=1))
    (tmp_path / "deep" / "er" / "f.part").write_bytes(CONTENT)  # as if killed before the rename
    assert fetch(site, tmp_path) == CONTENT and len(site.requests) == 1


def test_servers_without_ranges_send_all_again(site: Site, tmp_path: Path) -> None:
    whole = Answer(ranges=False)
    site.usual, site.answers["/f"] = whole, [replace(whole, cut=30_000), replace(whole, cut=60_000)]
    assert fetch(site, tmp_path) == CONTENT
    site.usual = replace(whole, cut=30_000)
    with pytest.raises(TransferError, match=r"cut after 30,000 of 100,000 bytes \(3 attempts in a row\)"):
        HTTP.download(f"{site.url}/f", tmp_path / "g")


@pytest.mark.parametrize("size", [100_000, 90_000, 20_000])
@pytest.mark.parametrize("blind", [False, True])
def test_two_versions_are_never_glued(site: Site, tmp_path: Path, size: int, blind: bool) -> None:
    """Whether the server heeds If-Range or not."""
    site.answers["/f"] = [CUT]
    with pytest.raises(TransferError):
        fetch(site, tmp_path, replace(HTTP, attempts=1))
    site.files["/f"] = OTHER[:size]
    site.usual = Answer(blind=blind)
    assert fetch(site, tmp_path) == OTHER[:size]


def test_a_weak_etag_proves_nothing(site: Site, tmp_path: Path) -> None:
    weak = Answer(headers={"ETag": 'W/"1"'})
    site.usual, site.answers["/f"] = weak, [replace(weak, cut=30_000)]
    assert fetch(site, tmp_path) == CONTENT
    assert site.ranges("/f") == [None, "bytes=30000-"], "continued by Last-Modified"
    bare = Answer(headers={"ETag": 'W/"1"', "Last-Modified": ""})
    site.usual, site.answers["/f"] = bare, [replace(bare, cut=30_000)]
    HTTP.download(f"{site.url}/f", tmp_path / "g")
    assert (tmp_path / "g").read_bytes() == CONTENT and site.ranges("/f")[2:] == [None, None]


@pytest.mark.parametrize("header", ["Content-MD5", "x-ms-blob-content-md5"])
def test_checksums_of_the_server(site: Site, tmp_path: Path, header: str) -> None:
    """A length that is too short cannot be told from a whole file without one."""
    checked = Answer(headers={header: base64.b64encode(hashlib.md5(CONTENT).digest()).decode()})
    site.usual, site.answers["/f"] = checked, [replace(checked, length="70000")]
    assert fetch(site, tmp_path) == CONTENT
    site.usual = Answer(headers={header: base64.b64encode(hashlib.md5(OTHER).digest()).decode()})
    with pytest.raises(TransferError, match="do not have the server's checksum"):
        HTTP.download(f"{site.url}/f", tmp_path / "g")
    assert not list(tmp_path.glob("g*"))


def test_a_length_that_is_too_long(site: Site, tmp_path: Path) -> None:
    site.usual = Answer(length="120000", ranges=False)
    with pytest.raises(TransferError, match="cut after 100,000 of 120,000 bytes"):
        fetch(site, tmp_path)


def test_chunks_have_an_end_of_their_own(site: Site, tmp_path: Path) -> None:
    chunked = Answer(chunked=True)
    site.usual, site.answers["/f"] = chunked, [replace(chunked, cut=30_000)]
    assert fetch(site, tmp_path) == CONTENT
    site.usual = Answer(length="")
    with pytest.raises(TransferError, match="does not say how long it is"):
        HTTP.download(f"{site.url}/f", tmp_path / "g")


def test_an_empty_file(site: Site, tmp_path: Path) -> None:
    site.files["/f"] = b""
    assert fetch(site, tmp_path) == b""


@pytest.mark.parametrize("status", [500, 503, 429])
def test_errors_that_pass(site: Site, tmp_path: Path, status: int) -> None:
    site.answers["/f"] = [Answer(status=status)] * 2
    assert fetch(site, tmp_path) == CONTENT and len(site.requests) == 3
    site.usual = Answer(status=status)
    with pytest.raises(TransferError, match=rf"the server answered {status} .* \(3 attempts in a row\)"):
        HTTP.download(f"{site.url}/f", tmp_path / "g")


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_errors_that_last(site: Site, tmp_path: Path, status: int) -> None:
    site.usual = Answer(status=status)
    with pytest.raises(TransferError, match=f"the server answered {status}"):
        fetch(site, tmp_path)
    assert len(site.requests) == 1


def test_nobody_there(tmp_path: Path) -> None:
    with serve() as gone:
        pass
    for url in (gone.url, "http://a..b", "http://127.0.0.1:1", "http://[::1"):
        with pytest.raises(TransferError, match="3 attempts in a row"):
            HTTP.download(f"{url}/f", tmp_path / "f")


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/f", "//[", ""])
def test_redirects_stay_on_the_web(site: Site, tmp_path: Path, target: str) -> None:
    site.usual = Answer(status=302, headers={"Location": target})
    with pytest.raises(TransferError):
        fetch(site, tmp_path)
    site.usual = Answer()
    site.answers["/g"] = [Answer(status=302, headers={"Location": f"{site.url}/f"})]
    assert fetch(site, tmp_path, path="/g") == CONTENT


def test_compressed_answers_are_refused(site: Site, tmp_path: Path) -> None:
    site.usual = Answer(headers={"Content-Encoding": "gzip"})
    with pytest.raises(TransferError, match="sends it compressed"):
        fetch(site, tmp_path)


def test_sizes(site: Site) -> None:
    assert HTTP.size(f"{site.url}/f") == len(CONTENT) and HTTP.size(f"{site.url}/none") is None
    assert {method for method, _, _ in site.requests} == {"HEAD"}
    site.answers["/f"] = [Answer(status=500), Answer(status=405)]
    assert HTTP.size(f"{site.url}/f") == len(CONTENT) and site.requests[-1][0] == "GET"
    site.usual = Answer(length="")
    with pytest.raises(TransferError, match="does not say how long it is"):
        HTTP.size(f"{site.url}/f")


def test_small_files_in_memory(site: Site) -> None:
    site.answers["/f"] = [CUT, Answer(status=500)]
    assert HTTP.read(f"{site.url}/f", 1 << 20) == CONTENT
    with pytest.raises(TransferError, match="more than 50,000 bytes"):
        HTTP.read(f"{site.url}/f", 50_000)


def test_stopping_keeps_what_arrived(site: Site, tmp_path: Path) -> None:
    def stop(_: int) -> None:
        HTTP.stopped.set()

    site.usual = Answer(pause=0.02)
    try:
        with pytest.raises(TransferError, match="interrupted"):
            HTTP.download(f"{site.url}/f", tmp_path / "f", stop)
    finally:
        HTTP.stopped.clear()
    assert 0 < (tmp_path / "f.part").stat().st_size < len(CONTENT)
    assert not (tmp_path / "f").exists()
