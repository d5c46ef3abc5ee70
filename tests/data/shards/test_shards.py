"""Killed, full disks, continued: the shards end up the same and nothing is half-written."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from reverie.data.errors import UserError
from reverie.data.loading.loader import Loader, LoaderConfig
from reverie.data.shards.index import JOURNAL, ShardIndex
from reverie.data.shards.latents import LatentWriter
from reverie.data.shards.reader import BrokenSample, ShardReader, read_clip
from reverie.data.shards.writer import ShardSet
from reverie.pipelines.datasets.planning import STAGING
from reverie.pipelines.datasets.prepare import PrepareConfig, prepare
from tests.data.corpus import write_recording
from tests.full_disk import largest_file

ROOT = Path(__file__).parents[3]
PREPARE = """
import sys
from pathlib import Path
from reverie.pipelines.datasets.prepare import PrepareConfig, prepare
prepare(PrepareConfig(source=Path(sys.argv[1]), out=Path(sys.argv[2]), clip_length=20, shard_mb=0.02, workers=1))
"""


def config(source: Path, out: Path) -> PrepareConfig:
    return PrepareConfig(source=source, out=out, clip_length=20, shard_mb=0.02, workers=1)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recording(tmp_path_factory.mktemp("raw"), [60] * 16)


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("undisturbed")
    prepare(config(source, out))
    return contents(out)


def _some_are_staged(out: Path) -> bool:
    return len(list((out / STAGING).glob("episode-*"))) >= 5


def _some_shards_are_finished(out: Path) -> bool:
    return len(list((out / JOURNAL).glob("*.tar.json"))) >= 3


@pytest.mark.parametrize("moment", [_some_are_staged, _some_shards_are_finished])
def test_kill_and_continue_equals_the_undisturbed_run(
    moment: Callable[[Path], bool], source: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PREPARE, str(source), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )
    while process.poll() is None and not moment(tmp_path):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL
    with pytest.raises(UserError, match="its shards are unfinished"):
        ShardIndex.load(tmp_path)
    prepare(config(source, tmp_path))
    assert contents(tmp_path) == undisturbed


def test_full_disk_loses_nothing(source: Path, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    sizes = sorted(len(content) for name, content in undisturbed.items() if name.endswith(".tar"))
    with (
        largest_file(sizes[-1] - 1),
        pytest.raises(UserError, match="the disk is full; what is finished is kept"),
    ):
        prepare(config(source, tmp_path))
    assert not list(tmp_path.glob(".partial-*"))
    for path in tmp_path.glob("*.tar"):
        assert path.read_bytes() == undisturbed[path.name]
    prepare(config(source, tmp_path))
    assert contents(tmp_path) == undisturbed


def test_order_of_workers_does_not_matter(
    source: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    prepare(PrepareConfig(source=source, out=tmp_path, clip_length=20, shard_mb=0.02, workers=3))
    assert contents(tmp_path) == undisturbed


def test_a_shard_renamed_but_not_journaled_is_written_again(tmp_path: Path) -> None:
    def add(shards: ShardSet) -> None:
        for number in range(4):
            if not shards.has("train", f"clip_{number}"):
                shards.add("train", f"clip_{number}", {"a.bin": bytes(900)}, {"n": 1})

    with ShardSet(tmp_path, {"made": "of this"}, max_bytes=4000) as shards:
        add(shards)
    assert [path.name for path in tmp_path.glob("*.tar")] == ["train-000000.tar"]
    (tmp_path / "train-000001.tar").write_bytes(b"renamed, then killed")
    (tmp_path / ".partial-train-000002.tar").write_bytes(b"half-written")
    with ShardSet(tmp_path, {"made": "of this"}, max_bytes=4000) as shards:
        assert shards.has("train", "clip_1") and not shards.has("train", "clip_2")
        assert sorted(path.name for path in tmp_path.glob("*train*")) == ["train-000000.tar"]
        add(shards)
    with pytest.raises(UserError, match="was made with made = of this, not of that"):
        ShardSet(tmp_path, {"made": "of that"}, max_bytes=4000)


def fake_latents(n: int, key: str) -> np.ndarray:
    """Any numbers will do; float16 holds them exactly."""
    return np.random.default_rng(list(key.encode())).integers(-1024, 1024, (n, 4, 3)) / 1024


def write_latents(
    index: ShardIndex, out: Path, stop: int | None = None, sha: str = "abc"
) -> ShardIndex | None:
    with LatentWriter(out, index, tokenizer_sha256=sha, latent_shape=(4, 3), shard_mb=0.005) as writer:
        for number, sample in enumerate(s for split in index.splits for s in index.samples(split)):
            if number == stop:
                return None
            writer.add(sample, fake_latents(sample.n, sample.key))
        return writer.finish()


def test_latent_shards(shards: ShardIndex, tmp_path: Path) -> None:
    whole = write_latents(shards, tmp_path / "whole")
    assert whole is not None and whole.latent_shape == (4, 3)
    assert (whole.tokenizer_sha256, whole.source_hash) == ("abc", shards.hash())
    assert (whole.action_space, whole.tasks, whole.fps) == (shards.action_space, shards.tasks, shards.fps)
    write_latents(shards, tmp_path / "part", stop=9)
    write_latents(shards, tmp_path / "part")
    assert contents(tmp_path / "part") == contents(tmp_path / "whole")
    with pytest.raises(UserError, match="was made with tokenizer_sha256 = abc, not def"):
        write_latents(shards, tmp_path / "whole", sha="def")
    sample = whole.samples("train")[3]
    clip, source = read_clip(whole, sample), read_clip(shards, shards.samples("train")[3])
    np.testing.assert_array_equal(clip.latents, fake_latents(sample.n, sample.key))
    np.testing.assert_array_equal(clip.steps.actions["keys"], source.steps.actions["keys"])
    assert clip.frames is None and clip.meta == source.meta


def test_batches_of_latents_match_batches_of_frames(shards: ShardIndex, tmp_path: Path) -> None:
    latents = write_latents(shards, tmp_path)
    assert latents is not None
    options = LoaderConfig(batch_size=4, length=20, relevant_fraction=0.5)
    samples = {(s.episode, s.start + i): (s, i) for s in latents.samples("train") for i in range(s.n)}
    for frames, batch, _ in zip(Loader(shards, options), Loader(latents, options), range(5), strict=False):
        assert batch.key == frames.key and batch.frames is None and batch.latents is not None
        assert batch.latents.shape == (4, 20, 4, 3) and batch.latents.dtype.is_floating_point
        assert (batch.actions["move"] == frames.actions["move"]).all()
        for row, key in enumerate(batch.key):
            episode, _, start = key.rpartition(":")
            sample, i = samples[episode, int(start)]
            expected = fake_latents(sample.n, sample.key)[i]
            np.testing.assert_array_equal(batch.latents[row, 0], expected.astype(np.float32))


def test_latents_that_fit_into_memory_are_read_once(shards: ShardIndex, tmp_path: Path) -> None:
    latents = write_latents(shards, tmp_path)
    assert latents is not None
    frames = sum(record["frames"] for record in latents.content["shards"])
    keeping, reading = (
        ShardReader(latents, cache_bytes=frames * 4 * 3 * 2 - short) for short in (0, 1)
    )  # a frame is 4 x 3 values of 16 bits
    sample = latents.samples("train")[3]
    for reader in (keeping, reading):
        np.testing.assert_array_equal(reader.latents(sample, 2, 7), fake_latents(sample.n, sample.key)[2:7])
    os.truncate(tmp_path / sample.shard, 0)
    np.testing.assert_array_equal(keeping.latents(sample, 5, 9), fake_latents(sample.n, sample.key)[5:9])
    with pytest.raises(BrokenSample, match="the shard ends"):
        reading.latents(sample, 5, 9)
