"""Logs in four formats: exact round trips, partial knowledge, inference, and hundreds of damaged ones."""

import csv
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from reverie.data.actions import ActionSpace, Binary, Categorical, Continuous
from reverie.data.errors import UserError
from reverie.data.loading.loader import Loader, LoaderConfig
from reverie.data.shards.index import ShardIndex
from reverie.data.shards.reader import read_clip
from reverie.data.sources.corpus import find_corpus
from reverie.data.sources.declaration import declare
from reverie.data.sources.logs import LOG_SUFFIXES, log_steps, read_log
from reverie.data.video.codec import encode_video
from reverie.pipelines.datasets.prepare import PrepareConfig, prepare
from tests.data.corpus import SPACE, TASKS, draw, read_cells, taken_actions

try:
    from pyarrow import parquet
    from pyarrow import table as arrow_table

    FORMATS = LOG_SUFFIXES
except ImportError:  # an optional extra
    FORMATS = tuple(suffix for suffix in LOG_SUFFIXES if suffix != ".parquet")

Table = dict[str, list[Any]]


def run(source: Path, out: Path, **options: Any) -> ShardIndex:
    prepare(PrepareConfig(source=source, out=out, size=(24, 64), **options))
    return ShardIndex.load(out)


def write_video(path: Path, n: int, episode: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = np.pad(draw(episode, taken_actions(episode, n), n), ((0, 0), (0, 0), (0, 24), (0, 0)), "edge")
    encode_video(path, frames, 10, quality="lossless")
    return path


def good_table(episode: int, n: int) -> Table:
    """Everything a log can hold, as lists."""
    actions = taken_actions(episode, n)
    return {
        **{f"action/{name}": value.tolist() for name, value in actions.items()},
        "reward": [i / 4 for i in range(n)],
        **{f"event/{task}": [int(i == 3 + k) for i in range(n)] for k, task in enumerate(TASKS)},
        "is_terminal": [i == n - 1 for i in range(n)],
    }


def write_table(path: Path, table: Mapping[str, list[Any]]) -> Path:
    match path.suffix:
        case ".npz":
            np.savez(path, **{name: np.array(values) for name, values in table.items()})
        case ".jsonl":
            rows = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=False)]
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        case ".csv":
            write_csv(path, table)
        case ".parquet":
            parquet.write_table(arrow_table(dict(table)), path)
    return path


def write_csv(path: Path, table: Mapping[str, list[Any]]) -> None:
    columns: Table = {}
    for name, values in table.items():
        width = next((len(value) for value in values if isinstance(value, list)), 0)
        for k in range(width):
            columns[f"{name}/{k}"] = [value[k] if isinstance(value, list) else value for value in values]
        if not width:
            columns[name] = values
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=False))


def write_declaration(folder: Path) -> None:
    content = {"action_space": json.loads(json.dumps(SPACE.to_json())), "tasks": list(TASKS)}
    (folder / "actions.yaml").write_text(yaml.safe_dump(content))


def check_loader(index: ShardIndex) -> int:
    """The action beside every frame is the one drawn into it; returns how many were known."""
    loader = Loader(index, LoaderConfig(batch_size=2, length=8))
    known = 0
    for _, batch in zip(range(6), loader):
        for row, t in np.argwhere(batch.action_mask.numpy()):
            cells = read_cells(batch.frames[row, t].numpy()[:, :40])
            move, keys, stick = (batch.actions[name][row, t] for name in SPACE.components)
            assert [int(move), *keys.int().tolist()] == cells[3:7]
            wanted = (np.array(cells[7:]) / 100 - 1).astype(np.float32)
            np.testing.assert_array_equal(stick.numpy(), wanted)
            known += 1
    return known


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_kind_comes_back_exactly(suffix: str, tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    for episode in range(3):
        write_video(folder / f"{episode}.mp4", 30, episode)
        write_table(folder / f"{episode}{suffix}", good_table(episode, 30))
    write_declaration(folder)
    index = run(folder, tmp_path / "out")
    assert not index.content["skipped"] and index.action_space == SPACE
    assert check_loader(index) > 50
    for split in index.splits:
        for sample in index.samples(split):
            steps, number = read_clip(index, sample).steps, int(sample.episode)
            for name, value in taken_actions(number, 30).items():
                assert steps.actions[name].dtype == value.dtype
                np.testing.assert_array_equal(steps.actions[name], value)
            np.testing.assert_array_equal(steps.action_mask, np.arange(30) < 29)
            np.testing.assert_array_equal(steps.reward, np.arange(30, dtype=np.float32) / 4)
            assert steps.reward_mask.all()
            assert np.argwhere(steps.events).tolist() == [[3, 0], [4, 1]]
            assert read_clip(index, sample).meta["is_terminal"]


@pytest.mark.parametrize("suffix", [s for s in FORMATS if s != ".npz"])
def test_empty_cells_are_unknown(suffix: str, tmp_path: Path) -> None:
    table = good_table(0, 12)
    table["action/move"][2] = None
    table["action/stick"][5] = None
    table["reward"][7] = None
    table["reward_mask"] = [int(i != 1) for i in range(12)]
    fields = read_log(write_table(tmp_path / f"a{suffix}", table))
    steps = log_steps(fields, 12, SPACE, TASKS, tmp_path)
    assert np.flatnonzero(~steps.action_mask).tolist() == [2, 5, 11]
    assert np.flatnonzero(~steps.reward_mask).tolist() == [1, 7]
    taken = taken_actions(0, 12)
    for name, null in SPACE.null_numpy().items():
        taken[name][[2, 5]] = null
        np.testing.assert_array_equal(steps.actions[name], taken[name])
    assert steps.reward[7] == 0 and steps.reward[8] == 2


def test_masked_rows_of_an_npz_may_hold_anything(tmp_path: Path) -> None:
    table = good_table(0, 12)
    table["action/stick"][4] = [np.nan, 7.0]
    table["action_mask"] = [i != 4 for i in range(12)]
    steps = log_steps(read_log(write_table(tmp_path / "a.npz", table)), 12, SPACE, TASKS, tmp_path)
    assert np.flatnonzero(~steps.action_mask).tolist() == [4, 11]
    np.testing.assert_array_equal(steps.actions["stick"][4], [0, 0])


def test_csv_columns_are_matched_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("action/keys/jump,action/keys/walk\n1,0\n0,1\n0,0\n")
    fields, place = read_log(tmp_path / "a.csv"), tmp_path / "a.csv"
    space = ActionSpace({"keys": Binary(2, ("walk", "jump"))})
    assert log_steps(fields, 3, space, (), place).actions["keys"].tolist() == [[0, 1], [1, 0], [0, 0]]
    assert declare(tmp_path, [place]).action_space == ActionSpace({"keys": Binary(2, ("jump", "walk"))})
    with pytest.raises(
        UserError, match=r"a\.csv: action 'keys' has the columns jump, walk, the action space"
    ):
        log_steps(fields, 3, ActionSpace({"keys": Binary(2, ("walk", "run"))}), (), place)


@pytest.mark.parametrize("suffix", FORMATS)
def test_an_undeclared_space_is_inferred(
    suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "videos"
    for episode in range(2):
        write_video(folder / f"{episode}.mp4", 30, episode)
        write_table(folder / f"{episode}{suffix}", good_table(episode, 30))
    write_video(folder / "bad.mp4", 30)
    (folder / f"bad{suffix}").write_bytes(b"no log at all")
    corpus = find_corpus(folder)
    logged = [taken_actions(episode, 30)["stick"][:-1] for episode in range(2)]
    stick = Continuous(2, float(np.min(logged)), float(np.max(logged)))
    wanted = {"move": Categorical(5), "keys": Binary(3), "stick": stick}
    assert dict(corpus.action_space.components) == wanted and corpus.tasks == TASKS
    index = run(folder, tmp_path / "out")
    assert [entry["source"] for entry in index.content["skipped"]] == ["bad.mp4"]
    printed = capsys.readouterr().out.partition("train:")[0]
    (folder / "actions.yaml").write_text(printed)
    declared = find_corpus(folder)
    assert (declared.action_space, declared.tasks) == (corpus.action_space, TASKS) and not declared.inferred


def test_two_declarations_and_damaged_ones(tmp_path: Path) -> None:
    for text in (
        "{",
        "action_space: 3",
        "- 1",
        "action_space: {a: {kind: continuous, n: 1, low: x}}",
        "a: [\x00",
    ):
        (tmp_path / "actions.yaml").write_text(text)
        with pytest.raises(UserError, match=r"actions\.yaml: "):
            declare(tmp_path, [])
    (tmp_path / "actions.json").write_text("{}")
    with pytest.raises(UserError, match=r"has both actions\.yaml and actions\.json; keep one"):
        declare(tmp_path, [])


def test_videos_of_one_stem_are_two_episodes(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    for name in ("a.mp4", "a.mov", "b.mp4", "a.mp4.mkv"):
        write_video(folder / name, 10)
    index = run(folder, tmp_path / "out", validation_fraction=0)
    episodes = {episode.name: episode.n for episode in index.episodes("train")}
    assert episodes == {"a.mp4": 10, "a.mov": 10, "a.mp4.mkv": 10, "b": 10}


def test_links_and_two_logs_are_listed(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    outside = write_video(tmp_path / "elsewhere" / "secret.mp4", 10)
    write_table(outside.with_suffix(".csv"), good_table(0, 10))
    for name in ("good.mp4", 'it\'s "ü" 日本.mp4', "double.mp4", "borrowed.mp4"):
        write_video(folder / name, 10)
    write_table(folder / 'it\'s "ü" 日本.csv', good_table(0, 10))
    for suffix in (".csv", ".jsonl"):
        write_table(folder / f"double{suffix}", good_table(0, 10))
    (folder / "borrowed.csv").symlink_to(outside.with_suffix(".csv"))
    (folder / "link.mp4").symlink_to(outside)
    (folder / "inside.mp4").symlink_to(folder / "good.mp4")
    (folder / "folder").symlink_to(outside.parent)
    (folder / "circle.mp4").symlink_to(folder / "circle.mp4")
    index = run(folder, tmp_path / "out")
    assert index.content["sources"] == ["good.mp4", "inside.mp4", 'it\'s "ü" 日本.mp4']
    skipped = {entry["source"]: entry["reason"] for entry in index.content["skipped"]}
    assert skipped.pop("double.mp4") == (
        "double.mp4: has two logs, double.jsonl and double.csv; keep one of them."
    )
    assert set(skipped) == {"borrowed.mp4", "circle.mp4", "folder", "link.mp4"}
    assert all("is a link that leads out of the folder" in reason for reason in skipped.values())


@pytest.mark.skipif(os.name != "posix", reason="names are text elsewhere")
def test_a_name_that_is_no_text_is_listed(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    video = write_video(folder / "good.mp4", 10)
    os.rename(write_video(folder / "bad.mp4", 10), os.fsencode(folder) + b"/\xff.mp4")
    index = run(folder, tmp_path / "out")
    assert index.content["sources"] == [video.name]
    assert [entry["reason"] for entry in index.content["skipped"]] == [
        "\ufffd.mp4: its name is not valid UTF-8; rename it."
    ]


def test_missing_pyarrow_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"needs pyarrow; install it with: pip install 'reverie\[parquet\]'"):
        read_log(tmp_path / "a.parquet")


def test_a_small_archive_of_endless_zeros_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reverie.data.shards.npz.MOST_BYTES", 1 << 20)
    np.savez_compressed(tmp_path / "a.npz", reward=np.zeros(1 << 20))
    with pytest.raises(UserError, match=r"a\.npz: .*unpacks to more than 1,048,576 bytes"):
        read_log(tmp_path / "a.npz")


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", reward=np.array([{"a": 1}], dtype=object))
    with pytest.raises(UserError, match=r"no readable log \(it is no archive of plain arrays\)"):
        read_log(tmp_path / "a.npz")


JUNK = [None, "text", float("nan"), float("inf"), -1, 10**9, 1e300, 2**63, [], [1, 2, 3, 4, 5], "", True, 0.5]


def damage(rng: np.random.Generator, path: Path, n: int = 16) -> None:
    """Writes a log of `n` rows and spoils its values, its columns or its bytes."""
    table, way = good_table(0, n), rng.integers(7)
    name = list(table)[rng.integers(len(table))]
    if way == 0:
        table[name] = [JUNK[rng.integers(len(JUNK))]] * n
    elif way == 1:
        table[name][rng.integers(n)] = JUNK[rng.integers(len(JUNK))]
    elif way == 2:
        del table[name]
    elif way == 3:
        count = rng.integers(n)
        table = {column: values[:count] for column, values in table.items()}
    try:
        write_table(path, table)
    except Exception:  # a writer refuses some of the junk; then bytes are spoiled instead
        write_table(path, good_table(0, n))
        way = 4
    content = bytearray(path.read_bytes())
    if way == 4:
        content = content[: rng.integers(len(content))]
    elif way == 5:
        for at in rng.integers(0, len(content), 1 + rng.integers(8)):
            content[at] ^= 1 << rng.integers(8)
    elif way == 6:
        content = bytearray(rng.bytes(rng.integers(400)))
    path.write_bytes(content)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("suffix", FORMATS)
def test_damaged_logs_are_one_sentence(suffix: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path, good = tmp_path / f"damaged{suffix}", write_table(tmp_path / f"good{suffix}", good_table(1, 16))
    refused = 0
    for _ in range(300):
        damage(rng, path)
        try:
            steps = log_steps(read_log(path), 16, SPACE, TASKS, path)
            assert len(steps) == 16 and np.isfinite(steps.reward).all()
            SPACE.check(steps.actions, 16, "damaged")
        except UserError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            refused += 1
        told = declare(tmp_path, [good, path, good]).action_space
        assert list(told.components) == list(SPACE.components)
    assert refused > 100


def test_no_good_video_is_lost_among_damaged_ones(tmp_path: Path) -> None:
    folder, rng = tmp_path / "videos", np.random.default_rng(1)
    video = write_video(folder / "good-0.mp4", 16).read_bytes()
    good = [f"good-{k}.mp4" for k in range(3)]
    for k in range(3):
        (folder / good[k]).write_bytes(video)
        write_table(folder / f"good-{k}{FORMATS[k]}", good_table(0, 16))
    for k in range(40):
        (folder / f"damaged-{k}.mp4").write_bytes(video)
        damage(rng, folder / f"damaged-{k}{FORMATS[k % len(FORMATS)]}")
    write_declaration(folder)
    index = run(folder, tmp_path / "out")
    skipped = {entry["source"]: entry["reason"] for entry in index.content["skipped"]}
    assert set(good) <= set(index.content["sources"]) and not set(good) & set(skipped)
    assert len(skipped) + len(index.content["sources"]) == 43 and len(skipped) > 20
    assert all(reason.startswith(source[:-4]) for source, reason in skipped.items())
    assert check_loader(index) > 20
