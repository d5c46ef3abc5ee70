"""What lies in a folder from anywhere: read, or listed with its reason; never opened where that could hang."""

import os
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest

from reverie.data.errors import UserError
from reverie.data.shards.index import ShardIndex
from reverie.data.sources.listing import video_suffixes
from reverie.data.video.codec import encode_video
from reverie.pipelines.datasets.prepare import PrepareConfig, prepare
from tests.data.corpus import write_recording
from tests.data.limits import time_limit


def film(path: Path, n: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    encode_video(
        path, np.random.default_rng(n).integers(0, 256, (n, 24, 64, 3), np.uint8), 10, quality="lossless"
    )
    return path


def run(source: Path, out: Path) -> tuple[list[str], dict[str, str]]:
    with time_limit():
        prepare(PrepareConfig(source=source, out=out, workers=1))
    content = ShardIndex.load(out).content
    return content["sources"], {entry["source"]: entry["reason"] for entry in content["skipped"]}


def test_odd_files_are_listed_and_nothing_hangs(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    film(folder / "good.mp4")
    film(folder / "new\nline.mp4", 9)
    os.mkfifo(folder / "pipe.mp4")
    os.mkfifo(folder / "good.csv")
    os.mkfifo(folder / "actions.yaml")
    (folder / "zero.mp4").symlink_to("/dev/zero")
    (folder / "gone.mp4").symlink_to(folder / "nowhere.mp4")
    (folder / "empty.mkv").touch()
    (folder / "folder.mp4").mkdir()
    shutil.copy(folder / "good.mp4", os.fsencode(folder) + b"/\xff\xfe.mp4")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(folder / "socket.avi"))
    (folder / "notes.txt").write_text("a text that FFmpeg would play")
    (folder / "shot.png").write_bytes(b"\x89PNG")
    used, skipped = run(folder, tmp_path / "out")
    server.close()
    assert used == ["good.mp4", "new\nline.mp4"]
    for name, words in {
        "pipe.mp4": "is no regular file",
        "zero.mp4": "is a link that leads out",
        "gone.mp4": "is a link that leads out of the folder, or nowhere",
        "empty.mkv": "is empty",
        "\ufffd\ufffd.mp4": "not valid UTF-8",
        "socket.avi": "is no regular file",
        "*.txt": "1 file is no video by the suffix, the first is notes.txt",
        "*.png": "1 file is",
    }.items():
        assert words in skipped[name], (name, skipped)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_and_folders_without_permission_are_listed(tmp_path: Path) -> None:
    film(tmp_path / "in" / "good.mp4")
    film(tmp_path / "in" / "secret.mp4").chmod(0)
    film(tmp_path / "in" / "closed" / "x.mp4")
    (tmp_path / "in" / "closed").chmod(0)
    used, skipped = run(tmp_path / "in", tmp_path / "out")
    (tmp_path / "in" / "closed").chmod(0o700)
    assert used == ["good.mp4"] and all(
        "cannot be read" in skipped[name] for name in ("secret.mp4", "closed")
    )


def test_files_that_vanish_cost_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from reverie.pipelines.datasets import prepare as stage

    film(tmp_path / "in" / "good.mp4")
    film(tmp_path / "in" / "going.mp4", 9)
    film(tmp_path / "in" / "gone.mp4", 10)
    real_find, real_plan = stage.find_corpus, stage.make_plan

    def find(*arguments: object) -> object:
        corpus = real_find(*arguments)  # type: ignore[arg-type]
        (tmp_path / "in" / "gone.mp4").unlink()
        return corpus

    def make_plan(*arguments: object) -> object:
        (tmp_path / "in" / "going.mp4").unlink(missing_ok=True)
        return real_plan(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(stage, "find_corpus", find)
    monkeypatch.setattr(stage, "make_plan", make_plan)
    used, skipped = run(tmp_path / "in", tmp_path / "out")
    assert used == ["good.mp4"] and set(skipped) == {"going.mp4", "gone.mp4"}


def test_a_single_video_is_a_source(tmp_path: Path) -> None:
    film(tmp_path / "in" / "other.mp4")
    film(tmp_path / "in" / "one.mp4", 12)
    np.savez(tmp_path / "in" / "one.npz", reward=np.arange(12.0))
    used, skipped = run(tmp_path / "in" / "one.mp4", tmp_path / "out")
    assert used == ["one.mp4"] and not skipped
    assert any(sample.n for sample in ShardIndex.load(tmp_path / "out").samples("train"))


def test_suffixes_are_those_of_ffmpeg() -> None:
    found = video_suffixes()
    assert {
        ".mp4",
        ".mkv",
        ".webm",
        ".ts",
        ".m2ts",
        ".wmv",
        ".asf",
        ".mxf",
        ".ogv",
        ".f4v",
        ".y4m",
        ".h264",
        ".gif",
        ".3gp",
        ".qt",
    } <= found
    assert not found & {".txt", ".nfo", ".png", ".jpg", ".wav", ".mp3", ".csv", ".json", ".yaml", ".npz"}


def _gif(height: int, width: int) -> bytes:
    """One pixel on a screen of any size."""
    screen = width.to_bytes(2, "little") + height.to_bytes(2, "little") + b"\x80\x00\x00" + bytes(6)
    image = b"," + bytes(4) + b"\x01\x00\x01\x00\x00" + b"\x02\x02\x44\x01\x00"
    return b"GIF89a" + screen + image + b";"


def test_a_picture_that_claims_to_be_huge_is_refused(tmp_path: Path) -> None:
    film(tmp_path / "in" / "good.mp4")
    (tmp_path / "in" / "huge.gif").write_bytes(_gif(12000, 14000))
    used, skipped = run(tmp_path / "in", tmp_path / "out")
    assert used == ["good.mp4"] and "claims frames of 12000 x 14000" in skipped["huge.gif"]


def test_links_out_of_a_folder_are_not_read(tmp_path: Path) -> None:
    film(tmp_path / "in" / "good.mp4")
    (tmp_path / "actions.yaml").write_text("action_space: {}\n")
    (tmp_path / "in" / "actions.yaml").symlink_to(tmp_path / "actions.yaml")
    with pytest.raises(UserError, match=r"actions\.yaml: is a link that leads out"):
        prepare(PrepareConfig(source=tmp_path / "in", out=tmp_path / "out", workers=1))
    recorded = write_recording(tmp_path / "recorded", [12, 12])
    for suffix in (".mp4", ".npz"):
        inner = recorded / "episodes" / f"episode-000{suffix}"
        inner.symlink_to(shutil.move(inner, tmp_path / f"outer{suffix}"))
    used, skipped = run(recorded, tmp_path / "other")
    assert used == ["episodes/episode-001.mp4"]
    assert "is a link that leads out" in skipped["episodes/episode-000.mp4"]
