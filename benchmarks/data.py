"""What the data path costs beside plain loops over the very same clips: decord, PyAV, webdataset, and latents.

    python -m benchmarks.data [--videos FOLDER] [--size 128 128] [--repeats 7] [--frames 4096] [--clips 10000]

Makes its own data: videos that are always the same, or those of a folder, stored by `reverie prepare` as training reads
them. Each repeat runs every row once, so that a busy machine slows all of them alike; the figures are CPU time, and the
ratios compare rows of one repeat. `python -m benchmarks` has these rows, too. Windows are those of a loader that is running,
from its second batch on, and the plain loops decode the same frames of them, which is checked. At the end: memory while
10,000 clips of 16 frames of 64 x 64 go by, each kind in a process of its own.
"""

import argparse
import io
import multiprocessing
import os
import resource
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import av
import decord
import numpy as np
import torch
import webdataset

from benchmarks.rows import Row, Times, measure, show
from reverie.data.loading.loader import Loader, LoaderConfig
from reverie.data.loading.streams import NO_TASK, Stream, whole_episodes
from reverie.data.shards.index import Sample, ShardIndex
from reverie.data.shards.latents import LatentWriter
from reverie.data.shards.reader import ShardReader
from reverie.data.shards.writer import ShardSet
from reverie.data.video.codec import encode_video
from reverie.data.video.decoders import Backend
from reverie.pipelines.datasets.prepare import PrepareConfig, prepare

LATENT_SHAPE = (64, 32)
FPS = 20
NUM_VIDEOS, VIDEO_FRAMES, BATCH_SIZE = 8, 768, 8
BACKENDS: tuple[Backend, ...] = ("decord", "pyav")
MEMORY_MARKS, MEMORY_CLIP, MEMORY_SIZE = (0.1, 0.5, 1.0), 16, (64, 64)


@dataclass(frozen=True)
class Part:
    """Frames start..stop-1 of one clip."""

    sample: Sample
    start: int
    stop: int


def make_videos(folder: Path, size: tuple[int, int]) -> Path:
    """Textures that scroll, with discs that move: the same bytes every time."""
    folder.mkdir(parents=True)
    y, x = np.mgrid[: size[0], : size[1]]
    for number in range(NUM_VIDEOS):
        rng = np.random.default_rng(number)
        coarse = rng.integers(0, 256, (size[0] // 4, size[1] // 4, 3), np.uint8)
        texture = np.kron(coarse, np.ones((8, 8, 1), np.uint8)) // 2 + rng.integers(
            0, 64, (1, 1, 3), np.uint8
        )
        place, speed = rng.random((6, 2)) * size, rng.normal(0, 2, (6, 2))
        colors, scroll = rng.integers(0, 256, (6, 3), np.uint8), np.zeros(2)
        frames = np.empty((VIDEO_FRAMES, *size, 3), np.uint8)
        for frame in frames:
            scroll += rng.normal(0, 1.5, 2)
            frame[:] = np.roll(texture, scroll.astype(int), (0, 1))[: size[0], : size[1]]
            place = (place + speed) % size
            for (row, column), color in zip(place, colors, strict=True):
                frame[(y - row) ** 2 + (x - column) ** 2 < size[0]] = color
        encode_video(folder / f"{number}.mp4", frames, FPS, quality="lossless")
    return folder


def make_latents(folder: Path, index: ShardIndex) -> ShardIndex:
    """Latent shards of the same clips, of any numbers."""
    rng = np.random.default_rng(0)
    with LatentWriter(folder, index, tokenizer_sha256="none", latent_shape=LATENT_SHAPE) as writer:
        for split in index.splits:
            for sample in index.samples(split):
                writer.add(sample, rng.uniform(-1, 1, (sample.n, *LATENT_SHAPE)))
        return writer.finish()


def repeat_clips(folder: Path, index: ShardIndex, count: int) -> ShardIndex:
    """A corpus of `count` clips of their own names, each in an episode of its own, whose content repeats that of `index`."""
    reader, samples = ShardReader(index), index.samples("train")
    header = {
        name: index.content[name] for name in index.content if name not in ("shards", "samples", "splits")
    }
    where = ("split", "shard", "key", "members")
    with ShardSet(folder, {}, max_bytes=256_000_000) as shards:
        for number in range(count):
            sample = samples[number % len(samples)]
            members = {name: reader.member(sample, name) for name in sample.members}
            entry = {name: value for name, value in sample.to_json().items() if name not in where}
            entry |= {"episode": f"{number:06d}", "is_first": True, "is_last": True, "start": 0}
            shards.add("train", f"{number:06d}", members, entry)
        return shards.finish(header)


def windows(index: ShardIndex, length: int, count: int) -> list[list[Part]]:
    """The frames of the loader's first `count` windows, from its own stream."""
    episodes = index.episodes("train")
    stretches = whole_episodes(episodes, dict.fromkeys(range(len(episodes)), NO_TASK))
    stream = Stream(stretches, length, seed=(0, 0), num_tasks=len(index.tasks))
    found = []
    for number in range(count):
        parts = []
        for piece in stream.window(number):
            for sample, begin in zip(
                episodes[piece.episode].samples, episodes[piece.episode].starts, strict=False
            ):
                start, stop = max(piece.start - begin, 0), min(piece.start + piece.n - begin, sample.n)
                if start < stop:
                    parts.append(Part(sample, start, stop))
        found.append(parts)
    return found


class PlainReader:
    """What one would write without this project: bytes from a known place of a tar, and a decoder."""

    def __init__(self, index: ShardIndex):
        assert isinstance(index.folder, Path)
        self._files = {
            record["name"]: (index.folder / record["name"]).open("rb") for record in index.content["shards"]
        }
        self._size = index.frame_size

    def decord(self, part: Part) -> np.ndarray:
        reader = decord.VideoReader(io.BytesIO(self._bytes(part.sample)), num_threads=1)
        frames: np.ndarray = reader.get_batch(list(range(part.start, part.stop))).asnumpy()
        return frames[:, : self._size[0], : self._size[1]]

    def pyav(self, part: Part) -> np.ndarray:
        frames: list[np.ndarray] = []
        with av.open(io.BytesIO(self._bytes(part.sample))) as container:
            stream = container.streams.video[0]
            assert stream.time_base is not None and stream.average_rate is not None
            ticks = 1 / (stream.average_rate * stream.time_base)
            container.seek(round(part.start * ticks), stream=stream)
            for frame in container.decode(stream):
                assert frame.pts is not None
                if round(frame.pts / ticks) >= part.start:
                    frames.append(frame.to_ndarray(format="rgb24"))
                if len(frames) == part.stop - part.start:
                    break
        return np.stack(frames)[:, : self._size[0], : self._size[1]]

    def _bytes(self, sample: Sample) -> bytes:
        file = self._files[sample.shard]
        offset, size = sample.members["clip.mp4"]
        file.seek(offset)
        return file.read(size)


def webdataset_loop(index: ShardIndex, clips: int) -> None:
    """Whole clips in the order of the shards, decoded by decord."""
    assert isinstance(index.folder, Path)
    shards = [str(index.folder / record["name"]) for record in index.content["shards"]]
    dataset = webdataset.WebDataset([name for name in shards if "train-" in name], shardshuffle=False)
    for sample in islice(dataset, clips):
        reader = decord.VideoReader(io.BytesIO(sample["clip.mp4"]), num_threads=1)
        reader.get_batch(list(range(len(reader)))).asnumpy()


def loader(index: ShardIndex, length: int, decoder: Backend = "pyav") -> Iterator[torch.Tensor]:
    """The loader's batches, with nothing kept from one clip to the next."""
    config = LoaderConfig(batch_size=BATCH_SIZE, length=length, decoder=decoder, cache_bytes=0)
    for batch in Loader(index, config):
        visual = batch.frames if batch.latents is None else batch.latents
        assert visual is not None
        yield visual


def consume(iterator: Iterator[object], count: int) -> None:
    """Takes `count` items."""
    for _ in islice(iterator, count):
        pass


def after_first(
    index: ShardIndex, length: int, batches: int, decoder: Backend = "pyav"
) -> Callable[[], object]:
    """A loop over the batches after the first, of a loader that is running: what a training sees."""
    running = loader(index, length, decoder)
    next(running)
    return partial(consume, running, batches)


def video_rows(index: ShardIndex, length: int, frames: int) -> list[Row]:
    """The loader beside plain loops over the same windows."""
    batches = max(1, frames // (BATCH_SIZE * length))
    found, reader = windows(index, length, (1 + batches) * BATCH_SIZE), PlainReader(index)
    shown = next(loader(index, length)).numpy()
    rows = []
    for backend in BACKENDS:
        read = getattr(reader, backend)
        for row, parts in zip(shown, found, strict=False):
            np.testing.assert_array_equal(row, np.concatenate([read(part) for part in parts]))

        def plain(read: Callable[[Part], np.ndarray] = read) -> None:
            for parts in found[BATCH_SIZE:]:
                for part in parts:
                    read(part)

        ours = partial(after_first, index, length, batches, backend)
        name, total = f"windows of {length}", batches * BATCH_SIZE * length
        rows += [
            Row(f"{name}, plain {backend}", total, lambda plain=plain: plain),
            Row(f"{name}, loader on {backend}", total, ours, f"{name}, plain {backend}"),
        ]
    return rows


def clip_rows(index: ShardIndex, frames: int) -> list[Row]:
    """Whole clips one after the other, as `encode` reads them."""
    samples = index.samples("train")
    samples = samples[: max(1, sum(np.cumsum([sample.n for sample in samples]) <= frames))]
    total, plain = sum(sample.n for sample in samples), PlainReader(index)
    loop = partial(webdataset_loop, index, len(samples))
    rows = [Row("whole clips, webdataset and decord", total, lambda: loop)]
    for backend in BACKENDS:
        read = getattr(plain, backend)
        reader = ShardReader(index, decoder=backend)

        def bare(read: Callable[[Part], np.ndarray] = read) -> None:
            for sample in samples:
                read(Part(sample, 0, sample.n))

        def ours(reader: ShardReader = reader) -> None:
            for sample in samples:
                reader.frames(sample, 0, sample.n)
                reader.steps(sample)

        rows += [
            Row(f"whole clips, plain {backend}", total, lambda bare=bare: bare),
            Row(
                f"whole clips, reader on {backend}",
                total,
                lambda ours=ours: ours,
                f"whole clips, plain {backend}",
            ),
        ]
    return rows


def latent_rows(index: ShardIndex, length: int, frames: int) -> list[Row]:
    """The loader on latents."""
    batches = max(1, 8 * frames // (BATCH_SIZE * length))
    total = batches * BATCH_SIZE * length
    name = f"windows of {length}, loader on latents {LATENT_SHAPE}"
    return [Row(name, total, partial(after_first, index, length, batches))]


def watch_memory(name: str, index: ShardIndex, decoder: Backend, clips: int) -> None:
    """Reads windows of as many clips, in a process of its own, and prints its memory on the way."""
    process = multiprocessing.get_context("fork").Process(target=_watch, args=(name, index, decoder, clips))
    process.start()
    process.join()
    assert process.exitcode == 0, name


def _watch(name: str, index: ShardIndex, decoder: Backend, clips: int) -> None:
    torch.set_num_threads(1)
    batches, texts, done = loader(index, MEMORY_CLIP, decoder), list[str](), 0
    for mark in MEMORY_MARKS:
        count = round(clips * mark) // BATCH_SIZE - done
        consume(batches, count)
        done += count
        texts.append(f"{done * BATCH_SIZE:,}: {resident():.0f} MB (peak {peak():.0f})")
    print(f"{name:44s} " + ", ".join(texts), flush=True)


def resident() -> float:
    """Memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def peak() -> float:
    """The most it ever was."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def main() -> None:
    """Makes the data and runs all rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=Path, help="a folder of videos instead of generated ones")
    parser.add_argument("--size", type=int, nargs=2, default=(128, 128), help="height and width as stored")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--frames", type=int, default=1024, help="frames that a row reads in one repeat")
    parser.add_argument("--clips", type=int, default=10_000, help="clips in the test of memory; 0 for none")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as root:
        run(args, Path(root))


def run(args: argparse.Namespace, root: Path) -> None:
    """All figures, on data made in `root`."""
    size = (args.size[0], args.size[1])
    source = args.videos or make_videos(root / "videos", size)
    show(loading_times(source, root, size, args.frames, args.repeats))
    if args.clips:
        measure_memory(source, root, args.clips)


def loading_times(source: Path, root: Path, size: tuple[int, int], frames: int, repeats: int) -> list[Times]:
    """All rows on the videos of `source`, with shards made in `root`."""
    decord.logging.set_level(decord.logging.QUIET)
    prepare(PrepareConfig(source=source, out=root / "shards", size=size, mode="crop", validation_fraction=0))
    video = ShardIndex.load(root / "shards")
    latents = make_latents(root / "latents", video)
    rows = [row for length in (16, 64) for row in video_rows(video, length, frames)]
    rows += clip_rows(video, frames)
    rows += [row for length in (16, 64) for row in latent_rows(latents, length, frames)]
    return measure(rows, repeats)


def measure_memory(source: Path, root: Path, clips: int) -> None:
    """Memory of the loader on as many clips."""
    small = PrepareConfig(
        source=source, out=root / "small", size=MEMORY_SIZE, mode="crop", clip_length=MEMORY_CLIP
    )
    prepare(small)
    many = repeat_clips(root / "many", ShardIndex.load(small.out), clips)
    latents = make_latents(root / "many_latents", many)
    print("\nresident memory after as many windows")
    for backend in BACKENDS:
        watch_memory(f"loader on {backend}", many, backend, clips)
    watch_memory(f"loader on latents {LATENT_SHAPE}", latents, "pyav", clips)


if __name__ == "__main__":
    main()
