"""`reverie data info` and `show`, on shards that `prepare` made."""

import base64
import hashlib
import io
import json
import re
from pathlib import Path

import av
import numpy as np
import pytest

from reverie.data.shards.checking import all_samples
from reverie.data.shards.index import Sample, ShardIndex
from reverie.data.shards.latents import LatentWriter
from reverie.data.shards.reader import ShardReader, read_clip
from reverie.data.shards.summary import summarize
from reverie.evaluation.clips import ShownClip, contact_sheet, film_frames
from reverie.pipelines.cli import main
from reverie.pipelines.datasets.show import choose
from tests.data.corpus import EVENTS, LENGTHS, SPACE, TASKS, taken_actions


def first(folder: Path, n: int = 32) -> Sample:
    """The first clip of full length."""
    return next(sample for sample in all_samples(ShardIndex.load(folder)) if sample.n == n)


def change_index(folder: Path, change: dict[str, object]) -> None:
    content = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps({**content, **change}))


def test_summary_equals_what_was_recorded(prepared: Path) -> None:
    index = ShardIndex.load(prepared)
    reader = ShardReader(index)
    summary = summarize(((s, reader.steps(s)) for s in all_samples(index)), index.action_space, 2)
    known = [{k: v[:-1] for k, v in taken_actions(e, n).items()} for e, n in enumerate(LENGTHS)]
    joined = {name: np.concatenate([actions[name] for actions in known]) for name in SPACE.components}
    splits = summary.splits.values()
    assert sum(split.frames for split in splits) == sum(LENGTHS)
    assert sum(len(split.episodes) for split in splits) == len(LENGTHS)
    assert sum(split.clips for split in splits) == sum(-(-n // 32) for n in LENGTHS)
    assert sum(split.known for split in splits) == sum(LENGTHS) - len(LENGTHS)
    assert summary.actions["move"].totals.tolist() == np.bincount(joined["move"], minlength=5).tolist()
    assert summary.actions["keys"].totals.tolist() == joined["keys"].sum(0).tolist()
    stick = summary.actions["stick"]
    np.testing.assert_allclose(stick.totals / stick.rows, joined["stick"].mean(0), rtol=1e-5)
    np.testing.assert_array_equal([stick.low, stick.high], [joined["stick"].min(0), joined["stick"].max(0)])
    assert stick.bins.tolist() == [np.histogram(x, 16, (-1, 1))[0].tolist() for x in joined["stick"].T]
    marks = [task for events in EVENTS.values() for _, task in events]
    assert sum(split.events for split in splits).tolist() == [marks.count(0), marks.count(1)]
    for task in (0, 1):
        with_one = sum(any(t == task for _, t in events) for events in EVENTS.values())
        assert sum(len(split.accomplished_in[task]) for split in splits) == with_one


def test_info_prints_it(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change_index(shards, {"skipped": [{"source": "bad.mp4", "reason": "bad.mp4: holds no frames."}]})
    assert main(["data", "info", str(shards)]) == 0
    text = capsys.readouterr().out
    cells = [[cell.strip() for cell in re.split("[│┃|]", line)[1:-1]] for line in text.splitlines()]
    assert ["all", "0.010", "378", "16", "8", "8", "97.9%"] in cells
    assert ["door", "5", "4"] in cells and ["goal", "3", "3"] in cells
    assert "24 x 40, 10 fps, stored bit-exact" in text
    assert "-1 to 1" in text and any(len(row) == 5 and set(row[4]) & set("▁▂▃▄▅▆▇") for row in cells)
    assert "8 used, 1 skipped" in text and "bad.mp4: holds no frames" in text


def test_info_and_check_of_latents(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = ShardIndex.load(prepared)
    with LatentWriter(tmp_path, index, tokenizer_sha256="abc", latent_shape=(4, 3)) as writer:
        for sample in all_samples(index):
            writer.add(sample, np.zeros((sample.n, 4, 3)))
        writer.finish()
    assert main(["data", "info", str(tmp_path)]) == 0 and "latents (4, 3)" in capsys.readouterr().out
    assert main(["data", "check", str(tmp_path)]) == 0
    assert main(["data", "show", str(tmp_path)]) == 1
    before = (tmp_path / "index.json").read_bytes()
    (tmp_path / "index.json").rename(tmp_path / "index.json.bak")
    assert main(["data", "check", str(tmp_path), "--repair"]) == 0
    assert (tmp_path / "index.json").read_bytes() == before
    (tmp_path / "index.json").unlink()
    (tmp_path / "index.json.bak").unlink()
    assert main(["data", "check", str(tmp_path), "--repair"]) == 1
    assert "tokenizer_sha256" in capsys.readouterr().err


def test_group_help_lists_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    members = ["info", "show", "check", "download", "export"]
    assert [line.split()[:2] for line in lines[2:]] == [["data", member] for member in members]


def embedded(page: str, kind: str) -> list[bytes]:
    return [base64.b64decode(found) for found in re.findall(rf"data:{kind};base64,([A-Za-z0-9+/=]+)", page)]


def test_page_contains_the_clips(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = ShardIndex.load(shards)
    assert main(["data", "show", str(shards), "--clips", "2"]) == 0
    page = (shards / "show.html").read_text()
    chosen = [sample for split in index.splits for sample in choose(index.samples(split), 2, 0)]
    assert len(chosen) == 4 and all(sample.key in page for sample in chosen)
    assert "http" not in page and len(embedded(page, "image/png")) == 2
    for film, sample in zip(embedded(page, "video/mp4"), chosen, strict=True):
        with av.open(io.BytesIO(film)) as container:
            assert sum(1 for _ in container.decode(video=0)) >= sample.n
    digest = hashlib.sha256(page.encode()).hexdigest()
    assert main(["data", "show", str(shards), "--clips", "2", "--out", str(shards / "again.html")]) == 0
    assert hashlib.sha256((shards / "again.html").read_bytes()).hexdigest() == digest


def test_controls_stand_below_the_films_and_move_by_frames(shards: Path, tmp_path: Path) -> None:
    """The browser's own lie over the bottom of the picture, where the actions are drawn."""
    assert main(["data", "show", str(shards), "--clips", "1", "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    videos = re.findall(r"<video [^>]*>", re.sub('base64,[^"]*', "", page))
    assert len(videos) == page.count('<input type="range"') == page.count("data-play aria") == 2
    assert not any(re.search(r"\bcontrols\b", video) for video in videos)
    rate = min(ShardIndex.load(shards).fps, 8)
    assert f"button.dataset.step / {rate}" in page and f"{rate:g} frames a second" in page


def test_page_of_unlabelled_video(unlabelled: Path, tmp_path: Path) -> None:
    assert main(["data", "show", str(unlabelled), "--out", str(tmp_path / "page.html")]) == 0
    films = embedded((tmp_path / "page.html").read_text(), "video/mp4")
    assert len(films) == len(all_samples(ShardIndex.load(unlabelled)))


def test_frames_are_enlarged_by_whole_pixels(prepared: Path) -> None:
    index = ShardIndex.load(prepared)
    sample = first(prepared)
    clip = read_clip(index, sample)
    assert clip.frames is not None
    shown = ShownClip(sample, clip.frames, clip.steps)
    picture = next(film_frames(shown, SPACE, TASKS))[3:-3, 3:-3]
    np.testing.assert_array_equal(picture[:240:10, :400:10], clip.frames[0])
    sheet = contact_sheet([shown] * 3)
    assert sheet.dtype == np.uint8 and sheet.ndim == 3
