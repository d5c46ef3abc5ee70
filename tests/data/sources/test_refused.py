"""A refused call leaves nothing behind, and says all that it lacks; damaged journals are told."""

import json
from pathlib import Path

import numpy as np
import pytest

from reverie.data.errors import UserError
from reverie.data.files.documents import parse_json
from reverie.data.shards.index import ShardIndex
from reverie.data.video.codec import encode_video
from reverie.pipelines.datasets import prepare as stage
from reverie.pipelines.datasets.prepare import PrepareConfig, prepare
from tests.damage import damages
from tests.data.limits import time_limit


def film(path: Path, size: tuple[int, int] = (24, 64), fps: float = 10, n: int = 12) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = np.random.default_rng(n).integers(0, 256, (n, *size, 3), np.uint8)
    encode_video(path, frames, fps, quality="lossless")
    return path


def test_all_that_is_missing_is_asked_for_at_once_and_nothing_is_written(tmp_path: Path) -> None:
    film(tmp_path / "in" / "a.mp4")
    film(tmp_path / "in" / "b.mp4", size=(32, 64), fps=20)
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"size: .* --size .* and fps: .* --fps\.") as caught:
        prepare(PrepareConfig(source=tmp_path / "in", out=out, workers=1))
    assert "\n" not in str(caught.value) and not out.exists()
    prepare(PrepareConfig(source=tmp_path / "in", out=out, workers=1, size=(24, 64), fps=10))
    assert len(ShardIndex.load(out).content["sources"]) == 2


def test_nothing_is_written_where_no_video_can_be_used(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.mp4").write_bytes(film(tmp_path / "x.mp4").read_bytes()[:300])
    with pytest.raises(UserError, match="none of its 1 videos"):
        prepare(PrepareConfig(source=tmp_path / "in", out=tmp_path / "out", workers=1))
    assert not (tmp_path / "out").exists()


def interrupted(source: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that ends after its first shard is finished."""
    real, calls = stage.staged_clip, []

    def staged_clip(folder: Path, start: int) -> object:
        calls.append(start)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(folder, start)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(stage, "staged_clip", staged_clip)
        prepare(PrepareConfig(source=source, out=out, workers=1, shard_mb=0.02, clip_length=4))


def same(content: bytes, good: bytes) -> bool:
    """Whether the damage changed nothing, as a mark of the byte order does."""
    try:
        return bool(parse_json(content) == parse_json(good))
    except ValueError:
        return False


@pytest.mark.parametrize("name", [".journal/*.tar.json", ".journal/identity.json", ".staging/plan.json"])
def test_damaged_state_of_an_interrupted_call(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence, or the same bytes as undisturbed."""
    for number in range(4):
        film(tmp_path / "in" / f"{number}.mp4", n=12 + number)
    config = PrepareConfig(
        source=tmp_path / "in", out=tmp_path / "out", workers=1, shard_mb=0.02, clip_length=4
    )
    interrupted(tmp_path / "in", tmp_path / "out", monkeypatch)
    path = next((tmp_path / "out").glob(name))
    good, refused = path.read_bytes(), 0
    assert good
    real = stage.make_plan

    def make_plan(*arguments: object) -> object:
        raise UserError("the plan was told apart.")

    monkeypatch.setattr(stage, "make_plan", make_plan)
    with time_limit():
        for content in damages(good, 220, seed=5):
            if same(content, good):
                continue
            path.write_bytes(content)
            with pytest.raises(UserError) as caught:
                prepare(config)
                pytest.fail("damage went unnoticed")
            assert "\n" not in str(caught.value).replace("new\nline", "") and str(caught.value).endswith(".")
            refused += 1
    assert refused >= 200
    monkeypatch.setattr(stage, "make_plan", real)
    path.write_bytes(good if name != ".staging/plan.json" else b"{}")
    prepare(config)
    assert json.loads((tmp_path / "out" / "index.json").read_text())["skipped"] == []


def test_a_lost_staged_clip_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        film(tmp_path / "in" / f"{number}.mp4", n=12 + number)
    interrupted(tmp_path / "in", tmp_path / "out", monkeypatch)
    for path in (tmp_path / "out" / ".staging").glob("*/*.npz"):
        path.unlink()
    with pytest.raises(UserError, match="lacks what an earlier call had put there"):
        prepare(
            PrepareConfig(
                source=tmp_path / "in", out=tmp_path / "out", workers=1, shard_mb=0.02, clip_length=4
            )
        )
