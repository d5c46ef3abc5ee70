"""VPT recordings: every quirk, the tasks, damage, and alignment through `prepare` and the loader."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reverie.data.errors import UserError
from reverie.data.loading.loader import Loader, LoaderConfig
from reverie.data.shards.index import ShardIndex
from reverie.data.shards.reader import read_clip
from reverie.data.sources.corpus import find_corpus
from reverie.data.sources.vpt.minecraft import KEYS, NULL_MOUSE, decode_camera
from reverie.data.sources.vpt.recordings import VPTLog, VPTOptions, draw_cursors, read_log, read_steps
from reverie.data.sources.vpt.tasks import TASKS, risen, task_events
from reverie.data.video.codec import encode_video
from reverie.pipelines.datasets.prepare import PrepareConfig, prepare
from tests.data.vpt_corpus import tick, write_log, write_recording

NAME = "alice-f153ac423f61-20210806-122446"


def log(folder: Path, *lines: dict[str, Any] | str, **options: Any) -> VPTLog:
    return read_log(write_log(folder / f"{NAME}.jsonl", *lines), VPTOptions(**options))


def pressed(there: VPTLog) -> list[list[str]]:
    return [[name for name, down in zip(KEYS, row) if down] for row in there.keys]


def test_keys_and_mouse(tmp_path: Path) -> None:
    there = log(tmp_path, tick("w", "left.shift", "f3"), tick("escape", dx=8, dy=-20, buttons=(0, 1, 2)))
    assert pressed(there) == [["forward", "sneak"], ["ESC", "attack", "use", "pickItem"]]
    assert there.mouse.tolist() == [60, 11 * 2 + 7]


def test_1_stuck_attack(tmp_path: Path) -> None:
    lines = [
        tick(buttons=(0,), new=(0,)),
        tick(buttons=(0, 1)),
        tick(buttons=(0,), new=(0,)),
        tick(buttons=(0,)),
    ]
    assert pressed(log(tmp_path, *lines)) == [[], ["use"], ["attack"], ["attack"]]
    kept = pressed(log(tmp_path, *lines, release_stuck_attack=False))
    assert kept == [["attack"], ["attack", "use"], ["attack"], ["attack"]]


def test_2_hotbar_scroll(tmp_path: Path) -> None:
    lines = [tick(hotbar=3), tick(hotbar=3), tick(hotbar=5), tick()]
    there = log(tmp_path, *lines)
    assert pressed(there) == [[], [], ["hotbar.6"], []]
    assert pressed(log(tmp_path, *lines, hotbar_from_zero=True))[0] == ["hotbar.4"]


@pytest.mark.parametrize(
    ("pixels", "true", "legacy"),
    [(1, 5, 5), (2, 6, 5), (6, 6, 5), (7, 6, 6), (8, 7, 6), (14, 7, 7), (16, 8, 7), (30, 9, 8), (54, 10, 10)],
)
def test_3_int_camera(tmp_path: Path, pixels: int, true: int, legacy: int) -> None:
    assert log(tmp_path, tick(dx=pixels)).mouse.tolist() == [55 + true]
    assert log(tmp_path, tick(dx=pixels), legacy_int_camera=True).mouse.tolist() == [55 + legacy]


@pytest.mark.parametrize("clip", [True, False])
def test_4_large_turns(tmp_path: Path, clip: bool) -> None:
    mouse = log(tmp_path, tick(dx=5000, dy=-5000), clip_turns=clip).mouse
    np.testing.assert_allclose(decode_camera(mouse), [[-10, 10]])


def test_5_cursor(tmp_path: Path) -> None:
    gui = tick(isGuiOpen=True)
    gui["mouse"].update(x=274.0, y=338.0)
    there = log(tmp_path, tick(), gui)
    frames = draw_cursors(np.zeros((2, 360, 640, 3), np.uint8), there.cursor)
    assert not frames[0].any()
    rows, columns = np.nonzero(frames[1, :, :, 0])
    assert (columns.min(), rows.min()) == (137, 169) and columns.max() < 137 + 16 and rows.max() < 169 + 16
    assert draw_cursors(np.zeros((1, 36, 64, 3), np.uint8), np.array([[1270, 710]])).any()
    assert not draw_cursors(np.zeros((1, 36, 64, 3), np.uint8), np.array([[9999, 9999]])).any()


def test_6_gui_scale(tmp_path: Path) -> None:
    lines = [tick(dx=4), tick(dx=4, isGuiOpen=True)]
    assert log(tmp_path / "6.9", *lines).mouse.tolist() == [61, 62]
    assert log(tmp_path / "6.9", *lines, gui_mouse_scale=False).mouse.tolist() == [61, 61]
    assert log(tmp_path / "7.1", *lines).mouse.tolist() == [61, 61]


def test_7_escape(tmp_path: Path) -> None:
    lines = [tick("escape"), tick("escape", isGuiOpen=True)]
    assert pressed(log(tmp_path, *lines)) == [["ESC"], ["ESC"]]
    assert pressed(log(tmp_path, *lines, escape_as_inventory=True)) == [["ESC"], ["inventory"]]


def test_null_actions_are_known(tmp_path: Path) -> None:
    """A world model must learn what happens when nothing is done; cloning may leave them out by itself."""
    steps = read_steps(log(tmp_path, tick("w"), tick(), tick("w"), tick("w")), tmp_path / "a", 4, 20)
    assert steps.action_mask.tolist() == [1, 1, 1, 0]


BAD_LINES = [
    *["", "{", "null", "[1]", '{"mouse": null, "keyboard": null}', '{"mouse": {}}', "[" * 100_000],
    json.dumps(tick(dx=float("nan"))),
    '{"mouse": {"dx": 1%s}, "keyboard": {}}' % ("0" * 400),
    '{"mouse": {"buttons": null}, "keyboard": {}}',
]


@pytest.mark.parametrize("bad", BAD_LINES, ids=range(len(BAD_LINES)))
def test_8_damaged_lines(tmp_path: Path, bad: str) -> None:
    there = log(tmp_path, tick("w"), bad, tick("s"))
    assert there.known.tolist() == [True, False, True]
    assert pressed(there) == [["forward"], [], ["back"]] and there.mouse[1] == NULL_MOUSE
    steps = read_steps(there, tmp_path / "a", 4, 20)
    assert steps.action_mask.tolist() == [True, False, True, False]
    with pytest.raises(UserError, match=rf"{NAME}\.jsonl: line 2 is damaged"):
        log(tmp_path, tick("w"), bad, tick("s"), tolerate_damage=False)


def test_counts_and_rate(tmp_path: Path) -> None:
    there, path = log(tmp_path, *[tick("w")] * 5), tmp_path / "a.jsonl"
    assert read_steps(there, path, 5, 20).action_mask.tolist() == [1, 1, 1, 1, 0]
    assert read_steps(there, path, 6, 20).action_mask.tolist() == [1, 1, 1, 1, 1, 0]
    for n in (4, 7):
        with pytest.raises(UserError, match=rf"a\.jsonl: has 5 lines for {n} frames"):
            read_steps(there, path, n, 20)
    with pytest.raises(UserError, match=r"a\.jsonl: belongs to a video of 30 Hz, not 20"):
        read_steps(there, path, 5, 30)
    with pytest.raises(UserError, match="holds no readable line"):
        log(tmp_path, "", "{")


@pytest.mark.parametrize(
    ("statistic", "task"),
    [
        *[("mine_block:birch_log", "mine_log"), ("mine_block:stone", "mine_cobblestone")],
        *[("mine_block:coal_ore", "mine_coal"), ("mine_block:diamond_ore", "mine_diamond")],
        *[("craft_item:oak_planks", "craft_planks"), ("craft_item:iron_ingot", "craft_iron_ingot")],
        *[("custom:interact_with_furnace", "open_furnace"), ("use_item:furnace", "place_furnace")],
        ("use_item:iron_pickaxe", "use_iron_pickaxe"),
    ],
)
def test_tasks(statistic: str, task: str) -> None:
    key = "minecraft." + statistic.replace(":", ":minecraft.")
    counts = [5, 5, 6, None, 8, 2, 3]
    events = task_events(risen(None if count is None else {key: count} for count in counts))
    assert np.argwhere(events).tolist() == [[row, TASKS.index(task)] for row in (2, 4, 6)]
    assert np.argwhere(task_events(risen([{}, {key: 1}]))).tolist() == [[1, TASKS.index(task)]]
    assert len(TASKS) == 20


def test_alignment_through_prepare_and_loader(tmp_path: Path) -> None:
    for number in range(3):
        write_recording(tmp_path / "raw" / "7.1", f"p{number}-s-20210806-122446", 60, missing=number % 2)
    prepare(PrepareConfig(source=tmp_path / "raw", out=tmp_path / "out", clip_length=16))
    index = ShardIndex.load(tmp_path / "out")
    assert index.tasks == list(TASKS) and index.fps == 20 and not index.content["skipped"]
    first = KEYS.index("hotbar.1")
    for sample in index.samples("train"):
        clip = read_clip(index, sample)
        assert clip.frames is not None
        for frame, row, known in zip(clip.frames, clip.steps.actions["keys"], clip.steps.action_mask):
            i = int(frame[0, 0, 0])
            assert not known or np.flatnonzero(row).tolist() == [first + (7 * i) % 9]
            assert known == (i < 59)
    batch = next(iter(Loader(index, LoaderConfig(batch_size=4, length=20))))
    checked = 0
    for b, t in np.argwhere(batch.action_mask.numpy()):
        i = int(batch.frames[b, t, 0, 0, 0])
        assert np.flatnonzero(batch.actions["keys"][b, t].numpy()).tolist() == [first + (7 * (i - 1)) % 9]
        checked += 1
    assert checked > 50


def test_sessions_are_not_divided(tmp_path: Path) -> None:
    for player in range(4):
        for part in range(3):
            write_recording(tmp_path / "raw", f"p{player}-s{player}-20210806-12{part}000", 4)
    for seed in range(4):
        out = tmp_path / f"out{seed}"
        prepare(PrepareConfig(source=tmp_path / "raw", out=out, validation_fraction=0.25, seed=seed))
        index = ShardIndex.load(out)
        players = {split: [e.name.split("-")[0] for e in index.episodes(split)] for split in index.splits}
        assert len(players["validation"]) == 3 and len(set(players["validation"])) == 1
        assert not set(players["validation"]) & set(players["train"])


def test_bad_and_missing_logs_in_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    for name in ("a", "b", "c"):
        write_recording(folder, name, 10)
    write_log(folder / "b.jsonl", tick("w"))
    (folder / "c.jsonl").unlink()
    prepare(PrepareConfig(source=folder, out=tmp_path / "out", validation_fraction=0))
    index = ShardIndex.load(tmp_path / "out")
    assert index.content["skipped"] == [
        {
            "source": "b.mp4",
            "reason": "b.jsonl: has 1 lines for 10 frames, expected 10 or 9; download both files again.",
        }
    ]
    assert {s.episode: s.labelled for s in index.samples("train")} == {"a": True, "c": False}
    with pytest.raises(UserError, match="out: was made with vpt = "):
        prepare(
            PrepareConfig(
                source=folder,
                out=tmp_path / "out",
                validation_fraction=0,
                vpt=VPTOptions(escape_as_inventory=True),
            )
        )


def test_cursor_is_stored(tmp_path: Path) -> None:
    lines = [tick(isGuiOpen=i == 3) for i in range(6)]
    write_log(tmp_path / "raw" / "a.jsonl", *lines)
    frames = np.zeros((6, 64, 128, 3), np.uint8)
    encode_video(tmp_path / "raw" / "a.mp4", frames, 20, quality="lossless")
    for draw in (True, False):
        out = tmp_path / str(draw)
        options = VPTOptions(draw_cursor=draw)
        prepare(PrepareConfig(source=tmp_path / "raw", out=out, validation_fraction=0, vpt=options))
        index = ShardIndex.load(out)
        stored = read_clip(index, index.samples("train")[0]).frames
        assert stored is not None
        assert stored.any(axis=(1, 2, 3)).tolist() == [draw and i == 3 for i in range(6)]


def test_other_folders_are_not_vpt(tmp_path: Path) -> None:
    encode_video(tmp_path / "a.mp4", np.zeros((3, 32, 64, 3), np.uint8), 20, quality="lossless")
    for content in ("", "{", '{"mouse": {}}', "[]", "\xff"):
        (tmp_path / "a.jsonl").write_bytes(content.encode("latin-1"))
        assert find_corpus(tmp_path).kind.startswith("videos")
    write_log(tmp_path / "a.jsonl", tick())
    assert find_corpus(tmp_path).identity == {"vpt": asdict(VPTOptions())}
