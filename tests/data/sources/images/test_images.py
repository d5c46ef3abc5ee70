"""Folders of pictures and moving pictures that Pillow wrote: every picture at its place, whatever is beside it."""

import os
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reverie.data.errors import UserError
from reverie.data.sources.corpus import find_corpus
from reverie.data.sources.images.animated import animation
from reverie.data.sources.images.stills import read_still
from reverie.data.sources.layout import Layout
from reverie.data.video.source import VideoError
from reverie.pipelines.datasets.prepare import PrepareConfig, prepare
from tests.damage import damaged_bytes
from tests.data.limits import time_limit
from tests.data.numbered import NONE, SIZE, picture, pictures, run, shown, skipped, stored

KINDS = {"png": {}, "webp": {"lossless": True}, "bmp": {}, "jpg": {"quality": 95}}


def save(path: Path, frame: np.ndarray, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(frame).save(path, **options)


def write_folder(folder: Path, episode: int, n: int, kind: str = "png", name: str = "frame{}") -> None:
    for number in range(n):
        save(folder / f"{name.format(number)}.{kind}", picture(episode, number), **KINDS[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_for_each_episode_in_natural_order(tmp_path: Path, kind: str) -> None:
    for episode, n in enumerate((12, 103)):  # frame10 comes behind frame9, and frame100 behind frame99
        write_folder(tmp_path / "in" / f"walk{episode}", episode, n, kind)
    index = run(tmp_path / "in", tmp_path / "out", fps=12)
    assert (index.fps, index.frame_size) == (12, SIZE)
    for episode, n in enumerate((12, 103)):
        frames = stored(index)[f"walk{episode}"].frames
        assert [shown(frame) for frame in frames] == [(episode, number, NONE) for number in range(n)]
        if kind != "jpg":
            np.testing.assert_array_equal(frames, [picture(episode, number) for number in range(n)])


def test_what_the_library_reads_is_what_is_stored(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    smooth = np.kron(rng.integers(0, 256, (6, 6, 6, 3)), np.ones((1, 6, 6, 1))).astype(np.uint8)
    for number, frame in enumerate(smooth):
        save(tmp_path / "in" / f"{number}.jpeg", frame, quality=80)
    (episode,) = stored(run(tmp_path / "in", tmp_path / "out", fps=5, validation_fraction=0)).values()
    read = [np.asarray(Image.open(tmp_path / "in" / f"{number}.jpeg")) for number in range(6)]
    np.testing.assert_array_equal(episode.frames, read)


@pytest.mark.parametrize("inside", [True, False])
def test_a_log_beside_the_pictures_stays_at_its_frames(tmp_path: Path, inside: bool) -> None:
    rng = np.random.default_rng(1)
    for episode in range(3):
        actions = rng.integers(0, 5, 14)
        for number, frame in enumerate(pictures(episode, actions)):
            save(tmp_path / "in" / f"e.{episode}" / f"{number}.png", frame)
        log = f"e.{episode}/log.csv" if inside else f"e.{episode}.csv"
        rows = [f"{action},{i * 0.5}" for i, action in enumerate([*actions, 0])]
        (tmp_path / "in" / log).write_text("\n".join(["action/action,reward", *rows]))
    index = run(tmp_path / "in", tmp_path / "out", layout=Layout(fps=8))
    assert set(stored(index)) == {"e.0", "e.1", "e.2"}
    for episode in stored(index).values():
        assert episode.numbers == list(range(15)) and episode.action_mask.sum() == 14
        episode.require_aligned()
        np.testing.assert_array_equal(episode.reward, np.arange(15) * 0.5)


def test_sequences_in_one_folder_are_told_apart_and_a_lone_picture_is_passed_over(tmp_path: Path) -> None:
    for episode, name in enumerate(("left_{:03d}", "right_{:03d}")):
        write_folder(tmp_path / "in", episode, 6, name=name)
    save(tmp_path / "in" / "cover.png", picture(7, 7))
    (tmp_path / "in" / "layout.yaml").write_text("fps: 4\n")
    index = run(tmp_path / "in", tmp_path / "out")
    assert index.fps == 4
    assert {name: {shown(f)[0] for f in e.frames} for name, e in stored(index).items()} == {
        "pictures/left_#.png": {0},
        "pictures/right_#.png": {1},
    }
    assert "cover.png" in skipped(index)["*.png"]


def test_a_damaged_picture_costs_itself_and_no_row_of_the_log(tmp_path: Path) -> None:
    actions = np.arange(19) % 5
    for number, frame in enumerate(pictures(1, actions)):
        save(tmp_path / "in" / "walk" / f"{number}.png", frame)
    np.savez(tmp_path / "in" / "walk.npz", **{"action/action": np.append(actions, 0)})
    write_folder(tmp_path / "in" / "good", 2, 9)
    (tmp_path / "in" / "walk" / "7.png").write_bytes(b"")
    save(tmp_path / "in" / "walk" / "12.png", np.zeros((10, 10, 3), np.uint8))
    (tmp_path / "in" / "walk" / "15.png").unlink()
    os.mkfifo(tmp_path / "in" / "walk" / "15.png")
    index = run(tmp_path / "in", tmp_path / "out", fps=10)
    found = stored(index)
    assert found["good"].numbers == list(range(9))
    parts = [found[name] for name in sorted(found) if name.startswith("walk")]
    spans = [range(7), range(8, 12), range(13, 15), range(16, 20)]
    assert [part.numbers for part in parts] == [list(span) for span in spans]
    for part in parts:
        part.require_aligned()
        assert not part.action_mask[-1]  # what was done there led to a picture that is not there
    assert "3 of 20 frames are damaged" in str(index.content["notes"])


@pytest.mark.parametrize("seed", range(40))
def test_damaged_pictures_never_lose_a_good_neighbour(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    write_folder(tmp_path / "in" / "good", 3, 5)
    kind = rng.choice(["png", "webp", "jpg"])
    write_folder(tmp_path / "in" / "bad", 4, 5, kind)
    outside = tmp_path / "secret.png"
    save(outside, picture(9, 9))
    for path in sorted((tmp_path / "in" / "bad").iterdir())[1:4]:
        content = path.read_bytes()
        path.unlink()
        match rng.randrange(6):
            case 0:
                path.symlink_to(outside)
            case 1:
                path.mkdir()
            case 2:
                save(path, np.zeros((7, 9, 3), np.uint8))
            case _:
                path.write_bytes(damaged_bytes(content, rng))
    with time_limit():
        found = stored(run(tmp_path / "in", tmp_path / "out", fps=10))
    assert found["good"].numbers == list(range(5))
    assert any(name.startswith("bad") for name in found)  # its first and last picture are sound
    for episode in found.values():
        assert (9, 9, NONE) not in [shown(frame) for frame in episode.frames]


def test_an_unreadable_sequence_is_listed(tmp_path: Path) -> None:
    write_folder(tmp_path / "in" / "good", 3, 5)
    for number in range(4):
        path = tmp_path / "in" / "junk" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"junk")
    index = run(tmp_path / "in", tmp_path / "out", fps=10)
    assert "none of its pictures can be read" in skipped(index)["junk"]


def write_moving(path: Path, durations: list[int], episode: int = 5, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = [Image.fromarray(picture(episode, number)) for number in range(len(durations))]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, loop=0, **options)


@pytest.mark.parametrize("suffix", ["webp", "png", "apng", "gif"])
def test_moving_pictures_last_as_long_as_they_say(tmp_path: Path, suffix: str) -> None:
    durations = [100, 500, 100, 100, 300, 500]
    options = {"lossless": True} if suffix == "webp" else {"format": "PNG"} if suffix == "apng" else {}
    write_moving(tmp_path / "in" / f"a.{suffix}", durations, **options)
    write_moving(tmp_path / "in" / f"b.{suffix}", durations[::-1], episode=6, **options)
    index = run(tmp_path / "in", tmp_path / "out")
    assert index.fps == pytest.approx(10)
    for episode in stored(index).values():
        held = [shown(frame)[:2] for frame in episode.frames]
        number = held[0][0]
        counts = [held.count((number, i)) for i in range(len(durations))]
        assert counts == [duration // 100 for duration in (durations if number == 5 else durations[::-1])]


def test_a_hidden_first_picture_of_a_png_is_no_frame(tmp_path: Path) -> None:
    frames = [Image.fromarray(picture(5, number)) for number in range(4)]
    frames[0].save(
        tmp_path / "a.png", save_all=True, append_images=frames[1:], duration=50, default_image=True
    )
    sequence = animation(tmp_path / "a.png")
    assert [shown(frame)[1] for frame in sequence.pictures() if frame is not None] == [1, 2, 3]
    assert len(sequence.times) == 3


@pytest.mark.parametrize("seed", range(25))
def test_damaged_moving_pictures(tmp_path: Path, seed: int) -> None:
    write_moving(tmp_path / "in" / "a.webp", [100] * 6, lossless=True)
    write_moving(tmp_path / "in" / "b.webp", [100] * 6, episode=6, lossless=True)
    path = tmp_path / "in" / "b.webp"
    path.write_bytes(damaged_bytes(path.read_bytes(), random.Random(seed)))
    with time_limit():
        found = stored(run(tmp_path / "in", tmp_path / "out"))
    assert [shown(frame)[:2] for frame in found["a.webp"].frames] == [(5, number) for number in range(6)]


def test_kinds_of_pixels(tmp_path: Path) -> None:
    grey16 = (np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000).astype(np.uint16)
    Image.fromarray(grey16).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_still(tmp_path / "grey.png")[..., 0], grey16 >> 8)
    wide = np.zeros((10, 20, 3), np.uint8)
    wide[:, :10] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(wide).save(tmp_path / "turned.jpg", exif=exif, quality=100)
    turned = read_still(tmp_path / "turned.jpg")
    assert turned.shape == (20, 10, 3) and turned[2, 5, 0] > 200 > 50 > turned[17, 5, 0]
    Image.fromarray(np.zeros((4, 4), np.int32)).save(tmp_path / "depth.tif")
    with pytest.raises(VideoError, match="cannot be read as a picture"):
        read_still(tmp_path / "depth.tif")


def test_a_rate_is_asked_for_and_nothing_is_written(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", 0, 4)
    with pytest.raises(UserError, match="says nothing of its rate; give the pictures a second with --fps"):
        prepare(PrepareConfig(source=tmp_path / "in", out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    (tmp_path / "in" / "layout.yaml").write_text("fps: many\n")
    with pytest.raises(UserError, match="layout.yaml: fps is 'many'"):
        prepare(PrepareConfig(source=tmp_path / "in", out=tmp_path / "out"))


def test_changed_or_renamed_pictures_are_another_source(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", 0, 8)
    run(tmp_path / "in", tmp_path / "out", fps=10)
    run(tmp_path / "in", tmp_path / "out", fps=10)
    (tmp_path / "in" / "frame3.png").rename(tmp_path / "in" / "frame9.png")
    with pytest.raises(UserError, match="other"):
        run(tmp_path / "in", tmp_path / "out", fps=10)


def test_it_says_what_it_took_a_folder_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(tmp_path / "in" / "a", 0, 4)
    run(tmp_path / "in", tmp_path / "out", fps=10)
    assert f"{tmp_path / 'in'} is taken for 1 sequence of pictures at 10 fps" in capsys.readouterr().out


def test_when_nothing_fits_the_answer_names_what_is_there(tmp_path: Path) -> None:
    for name in ("a.las", "b.las", "c.txt"):
        (tmp_path / name).write_text("x")
    with pytest.raises(UserError, match=r"found 2 \*\.las, 1 \*\.txt; readable are .*EpisodeWriter"):
        find_corpus(tmp_path)
