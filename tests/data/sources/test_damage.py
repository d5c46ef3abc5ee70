"""Hundreds of damaged sources among good ones, for each importer of videos: nothing hangs, nothing good is lost, all is told."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reverie.data.errors import UserError
from reverie.data.loading.loader import Loader, LoaderConfig
from reverie.data.shards.index import ShardIndex
from reverie.data.shards.reader import read_clip
from reverie.data.video.codec import encode_video
from reverie.pipelines.datasets.prepare import PrepareConfig, prepare
from tests.data import corpus, vpt_corpus
from tests.data.limits import time_limit

N, SIZE = 12, (24, 64)
RUNS, DAMAGED = 7, 30
JUNK: list[Any] = [
    None,
    "text",
    float("nan"),
    float("inf"),
    -1,
    10**9,
    1e300,
    2**63,
    [],
    {},
    [1, 2, 3],
    True,
    0.5,
]
ODD_NAMES = ["plain", "with space", "ünï-cödé", "a.b.mp4", "new\nline", "quote'\"", "-dash", "%s{}"]


def spoil_bytes(rng: np.random.Generator, path: Path) -> None:
    content = bytearray(path.read_bytes())
    match rng.integers(5):
        case 0:
            content = content[: rng.integers(len(content))]
        case 1:
            for at in rng.integers(0, len(content), 1 + rng.integers(20)):
                content[at] ^= 1 << rng.integers(8)
        case 2:
            content = bytearray(rng.bytes(rng.integers(400)))
        case 3:
            start = rng.integers(len(content))
            content[start : start + 64] = bytes(len(content[start : start + 64]))
        case 4:
            start = rng.integers(len(content))
            content[start:start] = content[: rng.integers(200)]
    path.write_bytes(content)


def junk(rng: np.random.Generator) -> Any:
    return JUNK[rng.integers(len(JUNK))]


def spoil_json(rng: np.random.Generator, value: Any) -> Any:
    """One value somewhere inside is replaced, or left out."""
    inner = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    if not len(inner) or rng.random() < 0.1:
        return junk(rng)
    key = inner[rng.integers(len(inner))]
    changed = dict(value) if isinstance(value, dict) else list(value)
    if rng.random() < 0.2:
        del changed[key]
    else:
        changed[key] = spoil_json(rng, changed[key])
    return changed


def spoil_archive(rng: np.random.Generator, path: Path) -> None:
    arrays = dict(np.load(path))
    name = list(arrays)[rng.integers(len(arrays))]
    match rng.integers(4):
        case 0:
            del arrays[name]
        case 1:
            arrays[name] = arrays[name][: rng.integers(N)] if arrays[name].ndim else np.zeros(3)
        case 2:
            arrays[name] = np.full(arrays[name].shape, float(rng.choice([np.nan, np.inf, -1e300, 77.5])))
        case 3:
            arrays[name] = np.full(arrays[name].shape, "text")
    np.savez(path, **arrays)


def spoil_lines(rng: np.random.Generator, path: Path) -> None:
    lines = path.read_text().splitlines()
    at = rng.integers(len(lines))
    match rng.integers(4):
        case 0:
            del lines[at : at + 1 + rng.integers(4)]
        case 1:
            lines[at:at] = lines[: 1 + rng.integers(4)]
        case 2:
            rng.shuffle(lines)
        case 3:
            for number in rng.integers(0, len(lines), 3):
                lines[number] = json.dumps(spoil_json(rng, json.loads(lines[number])))
    path.write_text("\n".join(lines))


class Videos:
    """A folder of videos, each beside a log."""

    def __init__(self, folder: Path) -> None:
        self.folder = self.home = folder
        folder.mkdir()
        content = {
            "action_space": json.loads(json.dumps(corpus.SPACE.to_json())),
            "tasks": list(corpus.TASKS),
        }
        (folder / "actions.json").write_text(json.dumps(content))

    def write(self, name: str, number: int) -> tuple[Path, Path]:
        actions, video = corpus.taken_actions(number, N), self.folder / f"{name}.mp4"
        frames = np.pad(corpus.draw(number, actions, N), ((0, 0), (0, 0), (0, 24), (0, 0)), "edge")
        encode_video(video, frames, 10, quality="lossless")
        logged = {f"action/{component}": value for component, value in actions.items()}
        log = self.folder / f"{name}.npz"
        np.savez(log, **logged, reward=np.arange(N) / 4, events=np.zeros((N, 2)), is_terminal=np.bool_(True))
        return video, log

    spoil_log = staticmethod(spoil_archive)


class Recordings:
    """Recorded episodes."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder / "episodes", folder
        corpus.write_recording(folder, [])

    def write(self, name: str, number: int) -> tuple[Path, Path]:
        written = self.home.parent / "written"
        corpus.write_recording(written, [N], first=number)
        paths = [self.folder / f"{name}{suffix}" for suffix in (".mp4", ".npz")]
        for path in paths:
            shutil.copy(written / "episodes" / f"episode-{number:03d}{path.suffix}", path)
        return paths[0], paths[1]

    spoil_log = staticmethod(spoil_archive)


class VPT:
    """Recordings of the VPT contractors' form."""

    def __init__(self, folder: Path) -> None:
        self.folder = self.home = folder
        folder.mkdir()

    def write(self, name: str, number: int) -> tuple[Path, Path]:
        vpt_corpus.write_recording(self.folder, name, N)
        return self.folder / f"{name}.mp4", self.folder / f"{name}.jsonl"

    spoil_log = staticmethod(spoil_lines)


def contents(index: ShardIndex, source: str) -> list[bytes]:
    """All bytes of the clips of one source, in order."""
    clips = [
        read_clip(index, sample)
        for split in index.splits
        for sample in index.samples(split)
        if f"{Path(sample.episode).name}.mp4" == Path(source).name
    ]
    return [clip.frames.tobytes() + clip.steps.to_npz() for clip in clips if clip.frames is not None]


@pytest.mark.parametrize("seed", range(RUNS))
@pytest.mark.parametrize("kind", [Videos, Recordings, VPT])
def test_damaged_sources(kind: Callable[[Path], Any], seed: int, tmp_path: Path) -> None:
    rng, importer = np.random.default_rng(seed), kind(tmp_path / "a folder ü")
    for number in range(3):
        importer.write(f"good-{number}", number)
    wanted = {path.relative_to(importer.home).as_posix() for path in importer.folder.glob("*.mp4")}
    rate = {Videos: 10, VPT: 20}.get(kind)
    options = {
        "fps": rate,
        "size": SIZE if kind is not Recordings else None,
        "workers": 1,
        "validation_fraction": 0,
    }
    prepare(PrepareConfig(source=importer.home, out=tmp_path / "alone", **options))
    alone = ShardIndex.load(tmp_path / "alone")

    everything = set(wanted)
    for number in range(DAMAGED):
        name = f"{ODD_NAMES[number % len(ODD_NAMES)]}-{number}"
        video, log = importer.write(name, 3 + number)
        everything.add(video.relative_to(importer.home).as_posix())
        match rng.integers(4):
            case 0:
                spoil_bytes(rng, video)
            case 1:
                spoil_bytes(rng, log)
            case _:
                importer.spoil_log(rng, log)
    out = tmp_path / "out"
    with time_limit():
        prepare(PrepareConfig(source=importer.home, out=out, **options))
    index = ShardIndex.load(out)
    skipped = {entry["source"]: entry["reason"] for entry in index.content["skipped"]}
    used = set(index.content["sources"])
    assert used | set(skipped) == everything and not used & set(skipped)
    assert wanted <= used and len(skipped) >= 5
    for source in wanted:
        assert contents(index, source) == contents(alone, source) != []
    for reason in skipped.values():
        assert reason.endswith(".") and "\n" not in reason.replace("new\nline", "")
    loader = Loader(index, LoaderConfig(batch_size=4, length=6))
    for _, batch in zip(range(12), loader):
        assert np.isfinite(batch.reward.numpy()).all()
    assert loader.skipped == []


def test_damaged_descriptions_of_a_recording(tmp_path: Path) -> None:
    rng, importer = np.random.default_rng(0), Recordings(tmp_path / "recorded")
    importer.write("good", 0)
    path = importer.home / "recording.json"
    good, refused = path.read_text(), 0
    for number in range(200):
        path.write_text(json.dumps(spoil_json(rng, json.loads(good))))
        if number % 2:
            path.write_text(good)
            spoil_bytes(rng, path)
        try:
            with time_limit():
                prepare(PrepareConfig(source=importer.home, out=tmp_path / str(number), workers=1))
        except UserError as error:
            assert "\n" not in str(error) and str(error).endswith(".")
            refused += 1
    assert refused > 100
