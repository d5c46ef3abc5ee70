"""Csv as spreadsheets write it, and which file decides what a component is."""

from pathlib import Path

import numpy as np
import pytest

from reverie.data.actions import Binary, Categorical, Continuous
from reverie.data.errors import UserError
from reverie.data.sources.declaration import declare
from reverie.data.sources.logs import read_log

ROWS = [(0, 0.5), (2, -1.0), (1, 0.25), (3, 0.0)]


def table(separator: str, header: str = "action/move{s}reward") -> str:
    lines = [header.format(s=separator)] + [f"{move}{separator}{reward}" for move, reward in ROWS]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    "content",
    [
        table(",").encode(),
        table(";").encode(),
        table("\t").encode(),
        table(",").replace("\n", "\r\n").encode("utf-8-sig"),
        table(";").encode("utf-16"),
        table("\t").encode("utf-16-be").join([b"\xfe\xff", b""]),
        table(",", " action/move {s} reward").encode(),
        table(", ").encode(),
        table(";", '"action/move"{s}"reward"').encode(),
        ("\n" + table(",")).encode(),
    ],
)
def test_dialects_of_one_table(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    fields = read_log(tmp_path / "a.csv")
    np.testing.assert_array_equal(fields["action/move"], [row[0] for row in ROWS])
    np.testing.assert_array_equal(fields["reward"], [row[1] for row in ROWS])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"reward,action/a;reward\n1,2;3\n", "with commas or semicolons"),
        (b"action/a, action/a\n1,2\n", "a column twice"),
        (b"action/a,reward\n1\n", "row 1 has 1 values, the header 2"),
        (b"action/a\n1_000\n", "not finite numbers"),
        (b"action/a\n\xff\xff\n", "no UTF-8 text"),
        (b"", "it is empty"),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(UserError, match=words):
        read_log(tmp_path / "a.csv")


def write(path: Path, values: list[float], as_float: bool) -> Path:
    """The same values in the form that the suffix says."""
    array = np.array(values, np.float64 if as_float else np.int64)
    match path.suffix:
        case ".npz":
            np.savez(path, **{"action/move": array})
        case ".csv":
            path.write_text("action/move\n" + "\n".join(map(str, array.tolist())))
        case ".jsonl":
            path.write_text("\n".join(f'{{"action/move": {value}}}' for value in array.tolist()))
        case ".parquet":
            pyarrow = pytest.importorskip("pyarrow")
            from pyarrow import parquet

            parquet.write_table(pyarrow.table({"action/move": array}), path)
    return path


@pytest.mark.parametrize("suffix", [".npz", ".csv", ".jsonl", ".parquet"])
def test_whole_floats_are_classes(suffix: str, tmp_path: Path) -> None:
    logs = [
        write(tmp_path / f"a{suffix}", [0, 3, 1, 0], False),
        write(tmp_path / f"b{suffix}", [0, 4, 1, 0], True),
    ]
    declared = declare(tmp_path, logs)
    assert declared.action_space.components["move"] == Categorical(5) and not declared.notes
    keys = declare(tmp_path, [write(tmp_path / f"c{suffix}", [0, 1, 1, 0], True)])
    assert keys.action_space.components["move"] == Binary(1)


@pytest.mark.parametrize("suffix", [".npz", ".csv", ".jsonl", ".parquet"])
def test_the_file_that_decides_is_named(suffix: str, tmp_path: Path) -> None:
    logs = [write(tmp_path / f"{name}{suffix}", [0, 3, 1, 0], False) for name in "abc"]
    logs.append(write(tmp_path / f"odd{suffix}", [0, 2.5, 1, 0], True))
    declared = declare(tmp_path, logs)
    assert isinstance(declared.action_space.components["move"], Continuous)
    (note,) = declared.notes
    assert str(logs[-1]) in note and "in 3 logs it is whole" in note and "actions.yaml" in note
