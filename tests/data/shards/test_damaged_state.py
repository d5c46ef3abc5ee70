"""Damaged indexes, logs, headers and latents of shards: one sentence, and no good neighbour is lost."""

import io
import itertools
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reverie.data.errors import UserError
from reverie.data.loading.loader import Loader, LoaderConfig
from reverie.data.shards.checking import all_samples
from reverie.data.shards.index import Sample, ShardIndex
from reverie.data.shards.latents import LatentWriter
from reverie.data.shards.reader import BrokenSample, ShardReader, read_clip
from reverie.data.shards.steps import Steps
from tests.damage import damaged_bytes, damages
from tests.data.limits import time_limit

CONFIG = LoaderConfig(batch_size=4, length=8)


@pytest.fixture
def copy(shards: ShardIndex, tmp_path: Path) -> Path:
    return shutil.copytree(shards.folder, tmp_path / "copy")


@pytest.fixture(scope="module")
def latents(shards: ShardIndex, tmp_path_factory: pytest.TempPathFactory) -> ShardIndex:
    folder = tmp_path_factory.mktemp("latents")
    with LatentWriter(folder, shards, tokenizer_sha256="0" * 64, latent_shape=(3, 2)) as writer:
        for sample in all_samples(shards):
            writer.add(sample, np.full((sample.n, 3, 2), sample.start, np.float16))
        return writer.finish()


def is_sentence(text: str, path: Path) -> bool:
    return str(path) in text and "\n" not in text.replace("new\nline", "") and text.endswith(".")


def test_damaged_indexes(shards: ShardIndex, copy: Path) -> None:
    """Refused in a sentence, or everything but the damaged entries can be read and the rest is listed."""
    path = copy / "index.json"
    good = path.read_bytes()
    refused, lost, entries = 0, 0, json.loads(good)["samples"]
    with time_limit():
        for content in damages(good, 240, seed=0):
            path.write_bytes(content)
            try:
                index = ShardIndex.load(copy)
                loader = Loader(index, CONFIG)
                list(itertools.islice(loader, 1))
            except UserError as error:
                assert is_sentence(str(error), copy)
                refused += 1
                continue
            kept = {sample.key for sample in all_samples(index)}
            said = " ".join(index.problems)
            same = [e["key"] for e in json.loads(content)["samples"] if e in entries and e["key"] not in said]
            assert set(same) <= kept, "what is not damaged is kept"
            assert all(is_sentence(sentence, copy) for sentence in loader.skipped)
            lost += bool(index.problems)
    assert refused > 50 and lost > 5


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("n", -3, "n: "),
        ("n", 2**40, "n: "),
        ("start", True, "start: "),
        ("key", "../../etc", "key: should be a plain name"),
        ("shard", "../train-000000.tar", "should be the plain name of a tar"),
        ("shard", "/etc/passwd", "should be the plain name of a tar"),
        ("split", "other", "is none of the splits"),
        ("events", [[10**6, 0]], "a frame lies behind the clip"),
        ("events", [[0, 99]], "a task has no name"),
        ("members", {"clip.mp4": [0, 2**60]}, "members"),
        ("members", {"clip.mp4": [0, 5]}, "meta.json is missing"),
        ("source", 5, "source: "),
    ],
)
def test_one_damaged_entry_costs_its_own_clip(
    field: str, value: object, words: str, shards: ShardIndex, copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = json.loads((copy / "index.json").read_text())
    content["samples"][1][field] = value
    (copy / "index.json").write_text(json.dumps(content))
    index = ShardIndex.load(copy)
    assert len(index.problems) == 1 and words in index.problems[0]
    assert "1 damaged entries are left out" in caplog.text
    before = [s for s in all_samples(shards) if s.key != all_samples(shards)[1].key]
    lost = content["samples"][1].get("key") if field != "key" else None
    kept = [s for s in all_samples(index) if s.key != lost]
    assert kept == [s for s in before if s in kept] and len(kept) == len(before)
    assert Loader(index, CONFIG).skipped == index.skipped and "--repair" in index.skipped[0]


def test_a_lost_clip_divides_its_episode(shards: ShardIndex, copy: Path) -> None:
    """No window may take frames before and behind a gap for consecutive ones."""
    content = json.loads((copy / "index.json").read_text())
    name = max(shards.episodes("train"), key=lambda e: len(e.samples)).name
    clips = sorted((s for s in content["samples"] if s["episode"] == name), key=lambda s: s["start"])
    assert len(clips) >= 3
    content["samples"].remove(clips[1])
    (copy / "index.json").write_text(json.dumps(content))
    parts = [e for e in ShardIndex.load(copy).episodes("train") if e.name == name]
    assert [e.samples[0].start for e in parts] == [0, clips[2]["start"]]


def rewritten(index: ShardIndex, sample: Sample, member: str, content: bytes) -> ShardIndex:
    """The index with `content` appended to the shard as the member's bytes."""
    path = index.folder / sample.shard
    size = path.stat().st_size
    with path.open("ab") as file:
        file.write(content)
    for entry in index.content["samples"]:
        if entry["key"] == sample.key:
            entry["members"][member] = [size, len(content)]
    for record in index.content["shards"]:
        record["bytes"] = (
            max(record["bytes"], size + len(content)) if record["name"] == sample.shard else record["bytes"]
        )
    return ShardIndex(index.folder, index.content)


def sane(index: ShardIndex, sample: Sample) -> None:
    """The clip is refused in a sentence, or is one that a model can learn from."""
    try:
        clip = read_clip(index, next(s for s in all_samples(index) if s.key == sample.key))
    except BrokenSample as error:
        assert is_sentence(str(error), index.folder) and sample.key in str(error)
        return
    clip.steps.checked(sample.n, index.action_space, len(index.tasks))
    shown = clip.frames if clip.frames is not None else clip.latents
    assert shown is not None and len(shown) == sample.n and np.isfinite(shown).all()


def npz_damages(rng: np.random.Generator, content: bytes) -> bytes:
    """Arrays of other shapes, types and values, missing and foreign ones, or bad bytes."""
    if rng.random() < 0.3:
        return damaged_bytes(content, random.Random(int(rng.integers(1 << 32))))
    arrays = dict(np.load(io.BytesIO(content)))
    name = list(arrays)[rng.integers(len(arrays))]
    old = arrays[name]
    with np.errstate(all="ignore"):
        choices: list[Callable[[], np.ndarray]] = [
            lambda: old[: len(old) // 2] if old.ndim else np.zeros(3),
            lambda: np.full(old.shape, np.nan),
            lambda: np.full(old.shape, -1e300),
            lambda: np.full(old.shape, 2**62),
            lambda: np.full(old.shape, "text"),
            lambda: np.zeros((0, 5), old.dtype),
            lambda: old.astype("datetime64[s]") if old.dtype.kind in "iu" else old[None],
        ]
        arrays[name] = choices[rng.integers(len(choices))]()
        if rng.random() < 0.3:
            arrays[["surplus", "action/none"][rng.integers(2)]] = arrays.pop(name)
    target = io.BytesIO()
    np.savez(target, **arrays)  # type: ignore[arg-type]
    return target.getvalue()


def test_damaged_logs_of_clips(copy: Path) -> None:
    rng, index = np.random.default_rng(1), ShardIndex.load(copy)
    sample = all_samples(index)[0]
    good = ShardReader(index).member(sample, "steps.npz")
    with time_limit():
        for _ in range(220):
            index = rewritten(index, sample, "steps.npz", npz_damages(rng, good))
            sane(index, sample)


def test_damaged_descriptions_of_clips(copy: Path) -> None:
    index = ShardIndex.load(copy)
    sample = all_samples(index)[0]
    good = ShardReader(index).member(sample, "meta.json")
    with time_limit():
        for content in damages(good, 200, seed=2):
            index = rewritten(index, sample, "meta.json", content)
            sane(index, sample)


def npy(header: str, values: bytes) -> bytes:
    """A npy file whose header may say anything."""
    text = header.encode() + b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + values


def test_damaged_latents(latents: ShardIndex, tmp_path: Path) -> None:
    index = ShardIndex.load(shutil.copytree(latents.folder, tmp_path / "copy"))
    sample = all_samples(index)[0]
    good = ShardReader(index).member(sample, "latents.npy")
    n, values = sample.n, good[-sample.n * 12 :]
    shapes = [
        f"({n}, 3, 2)",
        f"({n}, 2, 3)",
        f"({n + 1}, 3, 2)",
        "(10**30, 3, 2)",
        f"({n}, 3, True)",
        "()",
        "(-1, 3, 2)",
    ]
    shapes += [f"({10**18}, 3, 2)", "(0, 3, 2)", "(" * 60 + ")" * 60, "-" * 900 + "1", "None", "[1, 2"]
    kinds = ["<f2", ">f2", "<f4", "|O", "<U9", "(2,3)<f2", "<m8[s]", "junk", "V99999999999"]
    headers = [
        f"{{'descr': {kind!r}, 'fortran_order': {order}, 'shape': {shape}}}"
        for kind, order, shape in itertools.product(kinds, (False, True, 5), shapes)
    ]
    contents = [npy(header, values) for header in headers if len(header) < 900]
    contents += [damaged_bytes(good, random.Random(number)) for number in range(100)]
    contents.append(good[: -len(values)] + np.full(n * 6, np.nan, np.float16).tobytes())
    assert len(contents) > 200
    with time_limit():
        for content in contents:
            index = rewritten(index, sample, "latents.npy", content)
            sane(index, sample)
    reader = ShardReader(index)
    with pytest.raises(BrokenSample, match="not finite"):
        reader.latents(all_samples(index)[0], 0, 2)
    other = all_samples(index)[1]
    assert (reader.latents(other, 0, other.n) == other.start).all(), "its neighbour is as it was"


def test_a_log_that_fits_other_frames_is_broken(copy: Path) -> None:
    """Today's loader would take rows of another length, and classes that a model does not know."""
    index = ShardIndex.load(copy)
    sample = all_samples(index)[0]
    steps = ShardReader(index).steps(sample)
    short = steps.cut(0, sample.n - 3).to_npz()
    wild = {name: np.full_like(v, 99) if v.dtype.kind in "iuf" else v for name, v in steps.actions.items()}
    for content in (
        short,
        replace(steps, actions=wild).to_npz(),
        replace(steps, reward=np.full_like(steps.reward, np.nan)).to_npz(),
    ):
        index = rewritten(index, sample, "steps.npz", content)
        with pytest.raises(BrokenSample, match="is damaged"):
            ShardReader(index).steps(all_samples(index)[0])
    assert isinstance(
        Steps.from_npz(steps.to_npz()).checked(sample.n, index.action_space, len(index.tasks)), Steps
    )


def test_a_shard_that_is_a_link_out_of_the_folder_is_not_opened(copy: Path, tmp_path: Path) -> None:
    index = ShardIndex.load(copy)
    sample = all_samples(index)[0]
    moved = shutil.move(copy / sample.shard, tmp_path / "elsewhere.tar")
    (copy / sample.shard).symlink_to(moved)
    with pytest.raises(BrokenSample, match="is a link that leads out of the folder"):
        ShardReader(index).steps(sample)
    loader = Loader(index, CONFIG)
    assert len(list(itertools.islice(loader, 12))) == 12, "the other shards go on"
