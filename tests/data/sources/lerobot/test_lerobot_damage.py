"""Hundreds of damaged LeRobot datasets: never a traceback or a hang, no good episode lost, every loss told."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow")

import pyarrow as pa  # noqa: E402
from pyarrow import parquet  # noqa: E402

from reverie.data.errors import UserError  # noqa: E402
from reverie.data.shards.index import ShardIndex  # noqa: E402
from reverie.data.shards.reader import read_clip  # noqa: E402
from reverie.data.sources.lerobot.dataset import LeRobotOptions, find_lerobot  # noqa: E402
from reverie.pipelines.datasets.prepare import PrepareConfig, prepare  # noqa: E402
from tests.data import lerobot_corpus as corpus  # noqa: E402
from tests.data.lerobot_corpus import CAMERAS, Dataset, write_dataset  # noqa: E402
from tests.data.limits import time_limit  # noqa: E402

WRITTEN = Dataset(lengths=(6, 9, 5, 8, 7, 4, 6))
EVERYONE = frozenset(range(len(WRITTEN.lengths)))
OPTIONS = LeRobotOptions(camera=CAMERAS[0], action="action,mode,buttons")
JUNK = [
    None,
    float("nan"),
    float("inf"),
    -1,
    10**9,
    2**62,
    -(2**63),
    1e300,
    0,
    "text",
    [],
    [1.0],
    {},
    True,
    "",
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("whole"), WRITTEN)


def places() -> dict[str, frozenset[int]]:
    """File -> the episodes that damage to it may cost."""
    files = {"meta/info.json": EVERYONE, "meta/stats.json": EVERYONE, "meta/tasks.parquet": EVERYONE}
    for path in (WRITTEN.data_file, WRITTEN.video_file, WRITTEN.meta_file):
        for episode in EVERYONE:
            files[path(episode)] = files.get(path(episode), frozenset()) | {episode}
    return {**files, WRITTEN.video_file(0, camera=1): frozenset()}


def damage_bytes(rng: np.random.Generator, path: Path) -> str:
    content = bytearray(path.read_bytes())
    match rng.integers(5):
        case 0:
            way, content = "truncated", content[: rng.integers(len(content))]
        case 1:
            way = "flipped"
            for at in rng.integers(0, len(content), 1 + rng.integers(8)):
                content[at] ^= 1 << rng.integers(8)
        case 2:
            way, start = "zeroed", rng.integers(len(content))
            content[start : start + 64] = bytes(len(content[start : start + 64]))
        case 3:
            way, content = "noise", bytearray(rng.bytes(rng.integers(400)))
        case _:
            way, content = "longer", content + rng.bytes(100)
    path.write_bytes(content)
    return way


def damage_file(rng: np.random.Generator, path: Path) -> str:
    """`path` goes, or becomes a link to a good file outside of the dataset, or a folder."""
    content = path.read_bytes()
    path.unlink()
    match rng.integers(3):
        case 0:
            return "missing"
        case 1:
            outside = next(parent for parent in path.parents if parent.name == "case")
            (outside / "outside").write_bytes(content)
            path.symlink_to(outside / "outside")
            return "link"
        case _:
            path.mkdir()
            return "folder"


def damage_json(rng: np.random.Generator, path: Path) -> str:
    """One value anywhere becomes junk or goes."""
    content = json.loads(path.read_text())
    place, keys = content, []
    while isinstance(place, dict | list) and place:
        keys.append(
            (place, rng.choice(list(place)) if isinstance(place, dict) else int(rng.integers(len(place))))
        )
        place = keys[-1][0][keys[-1][1]]
        if rng.random() < 0.2:
            break
    parent, key = keys[-1]
    if rng.random() < 0.3:
        del parent[key]
    else:
        parent[key] = JUNK[rng.integers(len(JUNK))]
    path.write_text(json.dumps(content))
    return f"json {[str(key) for _, key in keys]}"


def damage_table(rng: np.random.Generator, path: Path) -> str:
    """One column goes, changes its type or holds junk; or rows go, come twice or change places."""
    table = parquet.read_table(path)
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    name, n = table.column_names[rng.integers(table.num_columns)], table.num_rows
    way = int(rng.integers(6))
    junk = JUNK[rng.integers(len(JUNK))]
    match way:
        case 0:
            del columns[name]
        case 1:
            columns[name] = [junk] * n
        case 2:
            columns[name][rng.integers(n)] = junk
        case 3:
            keep = int(rng.integers(n + 1))
            columns = {column: values[:keep] for column, values in columns.items()}
        case 4:
            columns = {column: [*values, values[-1]] for column, values in columns.items()}
        case _:
            order = rng.permutation(n)
            columns = {column: [values[i] for i in order] for column, values in columns.items()}
    try:
        target = io.BytesIO()
        parquet.write_table(pa.table(columns), target)
        path.write_bytes(target.getvalue())
    except (pa.ArrowException, OverflowError, TypeError, ValueError):  # not every junk can be written
        return damage_bytes(rng, path)
    return f"{('column gone', 'all', 'one', 'rows gone', 'row twice', 'order')[way]} {name} {junk!r}"


def damage(rng: np.random.Generator, folder: Path) -> tuple[str, frozenset[int]]:
    """Spoils one file; returns what was done and whom it may cost."""
    files = places()
    name = list(files)[rng.integers(len(files))]
    ways: list[Callable[[np.random.Generator, Path], str]] = [damage_bytes, damage_bytes, damage_file]
    if name.endswith(".json"):
        ways.append(damage_json)
    if name.endswith(".parquet"):
        ways += [damage_table, damage_table]
    return f"{name}: {ways[rng.integers(len(ways))](rng, folder / name)}", files[name]


def check(folder: Path, out: Path, suspects: frozenset[int], what: str) -> str:
    """Prepares a damaged dataset; returns "refused" or "kept"."""
    config = PrepareConfig(
        source=folder, out=out, size=corpus.SIZE, fps=corpus.FPS, workers=1, lerobot=OPTIONS
    )
    try:
        with time_limit():
            prepare(config)
    except UserError as error:
        assert suspects == EVERYONE, f"{what}: {error}"
        assert "\n" not in str(error) and str(error).endswith("."), what
        return "refused"
    index = ShardIndex.load(out)
    skipped = {entry["source"]: entry["reason"] for entry in index.content["skipped"]}
    assert all("\n" not in reason and reason.endswith(".") for reason in skipped.values()), what
    names = {episode: f"episode_{episode:06d}" for episode in EVERYONE}
    kept = {episode for episode in EVERYONE if names[episode] in index.content["sources"]}
    assert kept >= EVERYONE - suspects, f"{what}: lost {EVERYONE - suspects - kept}, {skipped}"
    told = any(name.startswith("meta/episodes") for name in skipped)
    assert all(names[episode] in skipped or told for episode in EVERYONE - kept), f"{what}: {skipped}"
    for split in index.splits:
        for sample in index.samples(split):
            episode = int(sample.episode.partition("@")[0][-6:])  # damage may have divided it
            if episode not in suspects:
                clip, n = read_clip(index, sample), WRITTEN.lengths[episode]
                assert clip.frames is not None
                shown = [corpus.read_picture(frame) for frame in clip.frames]
                assert shown == [(0, episode, i) for i in range(sample.start, sample.start + sample.n)], what
                wanted = corpus.rows(episode, n)["action"][:-1][sample.start :][: sample.n]
                np.testing.assert_array_equal(clip.steps.actions["action"][: len(wanted)], wanted)
    return "kept"


def run_cases(whole: Path, tmp_path: Path, seeds: range) -> dict[str, int]:
    results: dict[str, int] = {}
    for seed in seeds:
        root = tmp_path / "case"
        folder = root / "data set \u00fc"
        shutil.copytree(whole, folder)
        what, suspects = damage(np.random.default_rng(seed), folder)
        result = check(folder, root / "out", suspects, f"seed {seed}, {what}")
        results[result] = results.get(result, 0) + 1
        shutil.rmtree(root)
    return results


def test_damaged_datasets(whole: Path, tmp_path: Path) -> None:
    results = run_cases(whole, tmp_path, range(36))
    assert results["kept"] > 20 and results["refused"] > 0


@pytest.mark.slow
def test_many_more_damaged_datasets(whole: Path, tmp_path: Path) -> None:
    results = run_cases(whole, tmp_path, range(36, 460))
    assert results["kept"] > 300 and results["refused"] > 10


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b" " * (17 << 20), "more than 16,777,216"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"fps": 10, "fps": 30}', "'fps' occurs twice"),
        (b'{"fps": NaN}', "NaN, which is no number"),
        (b"[]", "holds a list, not an object"),
        (b'{"robot_type": "\\ud800"}', "text that cannot be printed"),
    ],
)
def test_info_is_read_within_limits(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "meta/episodes").mkdir(parents=True)
    (tmp_path / "meta/info.json").write_bytes(content)
    with pytest.raises(UserError, match=reason) as error:
        find_lerobot(tmp_path, OPTIONS)
    assert str(error.value).endswith("; download the dataset again.") and len(str(error.value)) < 300
