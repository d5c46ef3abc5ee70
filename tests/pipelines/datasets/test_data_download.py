"""`reverie data download` against a real server: what it leaves behind `prepare` reads; kills, failures, full disks."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reverie.data.errors import UserError
from reverie.data.shards.index import ShardIndex
from reverie.pipelines.cli import main
from reverie.pipelines.datasets.download import DownloadConfig, data_download
from reverie.pipelines.datasets.download_size import SizeSample, format_bytes, total_bytes
from reverie.pipelines.datasets.prepare import PrepareConfig, prepare
from tests.data.vpt_corpus import tick, write_log, write_recording
from tests.data.web_site import Answer, Site, serve
from tests.full_disk import largest_file

ROOT = Path(__file__).parents[3]
NAMES = [f"6.{8 + p % 2}/p{p}-s{p}-20210806-12{t}000" for p in range(3) for t in range(2)]
# A test runner in the background ignores SIGINT, and so would its children.
COMMAND = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from reverie.pipelines.cli import main
sys.exit(main())
"""
QUICK = ["--attempts", "2", "--wait", "0.001", "--timeout", "5"]


@pytest.fixture
def site() -> Iterator[Site]:
    with serve() as running:
        for number, name in enumerate(NAMES):
            running.files[f"/data/{name}.mp4"] = random.Random(number).randbytes(20_000 + number)
            running.files[f"/data/{name}.jsonl"] = b"%d" % number * 3000
        yield running


def write_index(folder: Path, site: Site, relpaths: list[str], name: str = "index.json") -> str:
    path = folder / name
    path.write_text(json.dumps({"basedir": f"{site.url}/data/", "relpaths": relpaths}))
    return str(path)


def download_all(folder: Path, site: Site) -> list[str]:
    """The command that downloads `NAMES` into `folder` / out."""
    return ["data", "download", "--index", write_index(folder, site, NAMES), "--out", str(folder / "out")]


def contents(folder: Path) -> dict[str, bytes]:
    """All files but the manifest."""
    files = [path for path in folder.rglob("*") if path.is_file() and path != folder / "download.json"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def served(site: Site, names: list[str], *endings: str) -> dict[str, bytes]:
    return {
        f"{name}{e}": site.files[f"/data/{name}{e}"] for name in names for e in endings or (".jsonl", ".mp4")
    }


def test_what_was_downloaded_can_be_prepared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The folder of the recorder's version survives, and with it the scale of its mouse."""
    raw, out = tmp_path / "raw", tmp_path / "out"
    gui = [tick(dx=4, isGuiOpen=True)] * 10
    for version in ("6.9", "7.1"):
        write_recording(raw / version, f"p-s{version}-20210806-122446", 10)
        write_log(raw / version / f"p-s{version}-20210806-122446.jsonl", *gui)
    with serve() as site:
        site.files = {f"/{name}": content for name, content in contents(raw).items()}
        relpaths = [name.removesuffix(".mp4") for name in contents(raw) if name.endswith(".mp4")]
        site.files["/all.json"] = json.dumps({"basedir": site.url, "relpaths": relpaths}).encode()
        assert main(["data", "download", "--index", f"{site.url}/all.json", "--out", str(out)]) == 0
    assert contents(out) == contents(raw)
    assert "2 of 2 recordings complete" in capsys.readouterr().out
    prepare(PrepareConfig(source=out, out=tmp_path / "shards", validation_fraction=0))
    index = ShardIndex.load(tmp_path / "shards")
    assert not index.content["skipped"] and all(s.labelled for s in index.samples("train"))
    assert len(index.samples("train")) == 2


def test_again_nothing_is_asked(site: Site, tmp_path: Path) -> None:
    command = download_all(tmp_path, site)
    assert main(command) == 0 and contents(tmp_path / "out") == served(site, NAMES)
    asked = len(site.requests)
    assert asked == 2 * len(NAMES) and main(command) == 0 and len(site.requests) == asked


def test_members_limits_and_several_indexes(site: Site, tmp_path: Path) -> None:
    indexes = [
        write_index(tmp_path, site, NAMES[:3], "a.json"),
        write_index(tmp_path, site, NAMES[2:], "b.json"),
    ]
    command = ["data", "download", "--index", json.dumps(indexes), "--out", str(tmp_path / "out")]
    assert main([*command, "--members", "[mp4]", "--limit", "2"]) == 0
    there = {name.removesuffix(".mp4") for name in contents(tmp_path / "out")}
    assert len(there) == 2 and len({name.split("-")[1] for name in there}) == 1, "one whole session"
    site.files |= {f"/data/{name}-options.json": b"{}" for name in NAMES}
    assert main([*command, "--members", "[options, mp4]", "--limit", "4"]) == 0
    found = contents(tmp_path / "out")
    assert len(found) == 8 and there < {name.removesuffix(".mp4") for name in found}
    assert main([*command, "--limit_gb", "0.00008", "--workers", "1"]) == 0
    size = sum(path.stat().st_size for path in (tmp_path / "out").rglob("*.[mj][ps]*") if "6." in str(path))
    assert 80_000 <= size < 80_000 + 30_000 and len(contents(tmp_path / "out")) < 18


def test_failures_are_listed_and_tried_again(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone, late = f"/data/{NAMES[0]}.jsonl", f"/data/{NAMES[1]}.mp4"
    content = site.files.pop(gone)
    site.answers[late] = [Answer(status=503)] * 2
    index = write_index(tmp_path, site, [*NAMES, "../../evil"])
    command = ["data", "download", "--index", index, "--out", str(tmp_path / "deep" / "out"), *QUICK]
    assert main(command) == 1
    captured = capsys.readouterr()
    assert f"failed {NAMES[0]}.jsonl: the server answered 404" in captured.out
    assert f"failed {NAMES[1]}.mp4: the server answered 503" in captured.out
    assert "failed ../../evil: " in captured.out and "would leave the folder" in captured.out
    assert "3 files are missing, listed with the reasons in download.json" in captured.err
    manifest = json.loads((tmp_path / "deep" / "out" / "download.json").read_text())
    assert (manifest["recordings"], manifest["complete"], len(manifest["failed"])) == (6, 4, 3)
    assert {path.name for path in tmp_path.iterdir()} == {"index.json", "deep"}, "nothing lies outside"
    site.files[gone] = content
    write_index(tmp_path, site, NAMES)
    assert main(command) == 0 and contents(tmp_path / "deep" / "out") == served(site, NAMES)
    assert json.loads((tmp_path / "deep" / "out" / "download.json").read_text())["failed"] == []


def test_a_server_that_is_gone_stops_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serve() as site:
        index = write_index(tmp_path, site, [f"6.9/p-s{i}-20210806-122446" for i in range(1000)])
    command = ["data", "download", "--index", index, "--out", str(tmp_path / "out"), *QUICK]
    assert main(command) == 1
    assert "nothing of 50 recordings in a row could be downloaded" in capsys.readouterr().err


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
def test_killed_and_continued(site: Site, tmp_path: Path, kill: int) -> None:
    big = f"/data/{NAMES[0]}.mp4"
    site.files[big] = random.Random(9).randbytes(3_000_000)
    site.answers[big] = [Answer(pause=0.01)]
    out = tmp_path / "out"
    arguments = ["data", "download", "--index", write_index(tmp_path, site, NAMES), "--out", str(out), *QUICK]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    process = subprocess.Popen([sys.executable, "-c", COMMAND, *arguments], env=environment)
    part, deadline = out / f"{NAMES[0]}.mp4.part", time.monotonic() + 60
    while not (part.exists() and part.stat().st_size > 100_000):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.send_signal(kill)
    assert process.wait(30) == (-signal.SIGKILL if kill == signal.SIGKILL else 130)
    had = part.stat().st_size
    assert 100_000 < had < 3_000_000 and not (out / f"{NAMES[0]}.mp4").exists()
    assert main(arguments) == 0
    assert contents(out) == served(site, NAMES) and site.ranges(big) == [None, f"bytes={had}-"]


def test_a_full_disk_is_one_sentence(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site.files[f"/data/{NAMES[3]}.mp4"] = random.Random(9).randbytes(300_000)
    command = download_all(tmp_path, site)
    with largest_file(100_000):
        assert main(command) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "out: the disk is full; what is finished is kept" in lines[0]
    assert main(command) == 0 and contents(tmp_path / "out") == served(site, NAMES)


def test_200_damaged_indexes(site: Site, tmp_path: Path) -> None:
    """Whatever is wrong with one: an error of one sentence, and no file outside of the folder."""
    head = f'{{"basedir": "{site.url}/data/", '.encode()
    tail = json.dumps({"relpaths": NAMES})[1:].encode()
    ended = {"whole": 0, "failed": 0}
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for seed in range(200):
        rng, content = random.Random(seed), bytearray(tail)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(content))
            content[at : at + rng.choice((0, 1, 1, 5))] = rng.choice(
                [
                    b"../",
                    b"/",
                    b"\\u0000",
                    b'", "',
                    b"}",
                    b"%2e%2e/",
                    b"\xff",
                    b"?",
                    b"#",
                    b" ",
                    b"",
                    b"\\",
                    b"9",
                ]
            )
        (tmp_path / "deep" / "index.json").write_bytes(head + content)
        config = DownloadConfig(
            index=str(tmp_path / "deep" / "index.json"), out=tmp_path / "deep" / "er", attempts=1, workers=2
        )
        try:
            data_download(config)
            ended["whole"] += 1
        except UserError as error:
            assert "\n" not in str(error)
            ended["failed"] += 1
    assert min(ended.values()) > 0
    assert {path.name for path in tmp_path.iterdir()} == {"deep"}
    assert {path.name for path in (tmp_path / "deep").iterdir()} == {"er", "index.json"}
    good = served(site, NAMES)
    assert all(good[name] == content for name, content in contents(tmp_path / "deep" / "er").items())


def test_one_name_in_the_way(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site.files[f"/data/{NAMES[0]}.mp4/x.mp4"] = b"x"
    index = write_index(tmp_path, site, [NAMES[0], f"{NAMES[0]}.mp4/x"])
    command = ["data", "download", "--index", index, "--out", str(tmp_path / "out"), "--members", "[mp4]"]
    assert main([*command, "--workers", "1"]) == 1
    assert "failed 6.8/p0" in capsys.readouterr().out
    assert sum(path.is_file() for path in (tmp_path / "out").rglob("*.mp4")) == 1


def test_dry_run_of_all_files_is_exact(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["data", "download", "--index", write_index(tmp_path, site, NAMES), "--out", str(out)]
    assert main([*command, "--dry_run"]) == 0
    text = capsys.readouterr().out
    size = format_bytes(sum(len(content) for content in site.files.values()))
    assert f"to download: {size}, 95% interval [{size}, {size}]" in text and ", enough" in text
    assert not out.exists() and {method for method, _, _ in site.requests} == {"HEAD"}
    del site.files[f"/data/{NAMES[0]}.jsonl"]
    assert main([*command, "--dry_run", "--sample", "4"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"jsonl: 6 files to download, about .*; 4 asked, [01] of them not on the server", text)
    main(command)
    capsys.readouterr()
    assert main([*command, "--dry_run"]) == 0
    assert "mp4: 0 files to download" in capsys.readouterr().out


def test_the_interval_of_the_estimate_holds_the_truth() -> None:
    """At its level: 95 of 100 samples, give or take."""
    inside = 0
    for seed in range(200):
        rng = random.Random(seed)
        kinds = [
            [rng.randint(0, 30_000_000) for _ in range(2000)],
            [rng.randint(0, 6_000_000) for _ in range(1500)],
        ]
        samples = [SizeSample(len(sizes), rng.sample(sizes, 100)) for sizes in kinds]
        low, value, high = total_bytes(samples)
        inside += low <= sum(map(sum, kinds)) <= high
        assert low < value < high
    assert 178 <= inside <= 199
    assert total_bytes([SizeSample(3, [1, 2, 3])]) == (6, 6, 6)
    assert format_bytes(total_bytes([SizeSample(3, [5])])[2]) == "unknown"


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serve() as site:
        site.files |= {"/text": b"hello", "/empty": b'{"basedir": "http://a/", "relpaths": []}'}
        (tmp_path / "locked").write_text("a file, no folder")
        site.files["/good"] = json.dumps({"basedir": site.url, "relpaths": ["a"]}).encode()
        for index, out, sentence in [
            (f"{site.url}/none", "out", "none: cannot be downloaded (the server answered 404"),
            (f"{site.url}/text", "out", "text: is no JSON"),
            (f"{site.url}/empty", "out", "empty: names no recording that can be downloaded"),
            (str(tmp_path / "missing.json"), "out", "missing.json: cannot be read (No such file"),
            (str(tmp_path), "out", "cannot be read (Is a directory)"),
            (f"{site.url}/good", "locked", "locked: cannot be written"),
        ]:
            assert main(["data", "download", "--index", index, "--out", str(tmp_path / out), *QUICK]) == 1
            lines = capsys.readouterr().err.splitlines()
            assert len(lines) == 1 and sentence in lines[0], lines
    assert main(["data", "download", "--index", "i", "--out", "o", "--workers", "0"]) == 2
