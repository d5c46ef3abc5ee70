"""Small files that claim to be huge are refused before memory is taken for what they claim."""

import io
import json
import os
import resource
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

_MOST_MB = 400
"""More than the program itself and the largest thing that is allowed to be small; a bomb takes gigabytes."""
_READ = """
import resource, sys
from pathlib import Path
from reverie.data.errors import UserError
from reverie.data.loading.corpora import Corpora
from reverie.data.sources.declaration import declare
from reverie.data.sources.logs import read_log
from reverie.data.sources.episodes import Recording
from reverie.data.shards.members import list_members
from reverie.data.shards.npz import load_npz
from reverie.data.sources.parquet import read_parquet

path = Path(sys.argv[2])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    found = {
        "log": lambda: read_log(path),
        "declare": lambda: declare(path.parent, []),
        "mixture": lambda: Corpora.load(path),
        "tar": lambda: list_members(path),
        "recording": lambda: Recording.load(path.parent),
        "rows": lambda: read_parquet(path, ["action"]),
    }[sys.argv[1]]()
    if sys.argv[1] not in ("tar", "rows") or getattr(found, "tables", ()):
        print("READ")
    print(getattr(found, "problem", ""))
except UserError as error:
    print(error)
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
print(f"{grown:.0f} MB")
"""


def _zip(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def _npy(shape: str, values: bytes = b"") -> bytes:
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + values


def npz_header(folder: Path) -> tuple[str, Path]:
    _zip(folder / "a.npz", {"reward.npy": _npy("(400000000,)")})
    return "log", folder / "a.npz"


def npz_deflate(folder: Path) -> tuple[str, Path]:
    _zip(folder / "a.npz", {"reward.npy": _npy("(125000000,)", bytes(1_000_000_000))})
    return "log", folder / "a.npz"


def jsonl_line(folder: Path) -> tuple[str, Path]:
    (folder / "a.jsonl").write_text('{"reward": ' + "[" * 40_000_000)
    return "log", folder / "a.jsonl"


def csv_line(folder: Path) -> tuple[str, Path]:
    (folder / "a.csv").write_text("reward\n" + "1," * 30_000_000)
    return "log", folder / "a.csv"


def csv_sparse(folder: Path) -> tuple[str, Path]:
    (folder / "a.csv").write_text("reward\n")
    os.truncate(folder / "a.csv", 1 << 40)
    return "log", folder / "a.csv"


def parquet_runs(folder: Path) -> tuple[str, Path]:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({f"action/{i}": pyarrow.array(np.zeros(1 << 21, np.int64)) for i in range(16)})
    parquet.write_table(table, folder / "a.parquet", compression="zstd")
    return "log", folder / "a.parquet"


_LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefghi", "bcdefghij", strict=True)
)
_MERGES = "a: &a {x: 1}\n" + "".join(
    f"{b}: &{b} {{<<: [{', '.join(['*' + a] * 9)}]}}\n" for a, b in zip("abcdefghi", "bcdefghij", strict=True)
)


def yaml_laughs(folder: Path) -> tuple[str, Path]:
    (folder / "actions.yaml").write_text(_LAUGHS + "action_space: *j\n")
    return "declare", folder / "actions.yaml"


def yaml_merges(folder: Path) -> tuple[str, Path]:
    (folder / "actions.yaml").write_text(_MERGES + "action_space: *j\n")
    return "declare", folder / "actions.yaml"


def yaml_cycle(folder: Path) -> tuple[str, Path]:
    (folder / "actions.yaml").write_text("action_space: &a {x: *a}\n")
    return "declare", folder / "actions.yaml"


def mixture_laughs(folder: Path) -> tuple[str, Path]:
    (folder / "m.yaml").write_text(_LAUGHS + "corpora: *j\n")
    return "mixture", folder / "m.yaml"


def mixture_nesting(folder: Path) -> tuple[str, Path]:
    (folder / "m.yaml").write_text("corpora: " + "[" * 500_000)
    return "mixture", folder / "m.yaml"


def recording_sparse(folder: Path) -> tuple[str, Path]:
    (folder / "recording.json").write_text("{}")
    os.truncate(folder / "recording.json", 1 << 40)
    return "recording", folder / "recording.json"


def tar_long_name(folder: Path) -> tuple[str, Path]:
    path = folder / "train-000000.tar"
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 6 << 30
    path.write_bytes(header.tobuf(tarfile.GNU_FORMAT))
    os.truncate(path, 7 << 30)
    return "tar", path


BOMBS: list[Callable[[Path], tuple[str, Path]]] = [
    *(npz_header, npz_deflate, jsonl_line, csv_line, csv_sparse, parquet_runs, yaml_laughs, yaml_merges),
    *(yaml_cycle, mixture_laughs, mixture_nesting, recording_sparse, tar_long_name),
]


@pytest.mark.parametrize("make", BOMBS, ids=lambda make: make.__name__)
@pytest.mark.slow
def test_bombs(make: Callable[[Path], tuple[str, Path]], tmp_path: Path) -> None:
    kind, path = make(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", _READ, kind, str(path)],
        capture_output=True, text=True, timeout=100,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30)),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    *said, grown = done.stdout.splitlines()
    assert "READ" not in said and int(grown.split()[0]) < _MOST_MB, done.stdout
    if kind != "tar":
        assert str(path) in said[0] and said[0].endswith(".")


def test_small_claims_in_one_process(tmp_path: Path) -> None:
    """The cheap ones of the above, in the fast suite."""
    from reverie.data.errors import UserError
    from reverie.data.loading.corpora import Corpora
    from reverie.data.sources.declaration import declare
    from reverie.data.sources.logs import read_log

    for make in (npz_header, yaml_laughs, yaml_merges, yaml_cycle, mixture_laughs, csv_sparse):
        folder = tmp_path / make.__name__
        folder.mkdir()
        kind, path = make(folder)
        with pytest.raises(UserError, match=str(path)):
            {"log": read_log, "declare": lambda p: declare(p.parent, []), "mixture": Corpora.load}[kind](path)


def test_ordinary_yaml_with_aliases_is_read(tmp_path: Path) -> None:
    from reverie.data.sources.declaration import declare

    text = "x: &keys {kind: binary, n: 2}\naction_space: {left: *keys, right: *keys}\ntasks: []\n"
    (tmp_path / "actions.yaml").write_text(text)
    assert set(declare(tmp_path, []).action_space.components) == {"left", "right"}


def test_an_archive_of_ordinary_size_is_read(tmp_path: Path) -> None:
    from reverie.data.sources.logs import read_log

    np.savez_compressed(tmp_path / "a.npz", reward=np.zeros(100_000), other=np.arange(3))
    assert list(read_log(tmp_path / "a.npz")) == ["reward"]
    target = io.BytesIO()
    np.savez(target, reward=np.ones(3))
    assert json.dumps(len(target.getvalue()))
