"""LeRobot datasets of version 3, written to the letter; every frame shows its camera, episode and index as bits."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
from av.video.frame import PictureType
from pyarrow import parquet

CELL = 8
SIZE = (24, 64)
FPS = 10
CAMERAS = ("observation.images.top", "observation.images.wrist")
TASKS = ("pick up the red cube", "open the drawer, slowly", "wische den Tisch ab \u2728")
NAMES = ("shoulder", "elbow", "gripper")
LENGTHS = (12, 9, 17, 8, 11, 14, 10)
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
OWN = {
    "timestamp": "float32",
    **dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), "int64"),
}


@dataclass(frozen=True)
class Dataset:
    """What to write. Episodes fill files in order: 3 a data file, 2 a file of the first camera, 4 of the second."""

    lengths: Sequence[int] = LENGTHS
    cameras: Sequence[str] = CAMERAS
    data_files: int = 3
    video_files: Sequence[int] = (2, 4)
    meta_files: int = 4
    chunks_size: int = 2
    task_column: str = "__index_level_0__"
    concatenate: bool = False
    info: dict[str, Any] = field(default_factory=dict)

    def place(self, episode: int, per_file: int) -> tuple[int, int]:
        """(chunk_index, file_index) of an episode."""
        return divmod(episode // per_file, self.chunks_size)

    def data_file(self, episode: int) -> str:
        chunk, file = self.place(episode, self.data_files)
        return DATA_PATH.format(chunk_index=chunk, file_index=file)

    def video_file(self, episode: int, camera: int = 0) -> str:
        chunk, file = self.place(episode, self.video_files[camera])
        return VIDEO_PATH.format(video_key=self.cameras[camera], chunk_index=chunk, file_index=file)

    def meta_file(self, episode: int) -> str:
        return f"meta/episodes/chunk-000/file-{episode // self.meta_files:03d}.parquet"


def rows(episode: int, n: int) -> dict[str, np.ndarray]:
    """What the rows of an episode log: action, class and buttons taken, and next.* of the step that a row begins."""
    rng = np.random.default_rng(episode)
    success = np.zeros(n, np.bool_)
    if episode % 3 == 0:
        success[-3:] = True  # it stays accomplished, which is one event
    if episode % 3 == 1:
        success[-1] = True  # on arriving at the frame behind the last
    return {
        "action": rng.uniform(-2, 3, (n, len(NAMES))).astype(np.float32),
        "mode": rng.integers(0, 4, n),
        "buttons": rng.random((n, 2)) < 0.5,
        "observation.state": rng.normal(size=(n, 2)).astype(np.float32),
        "next.reward": rng.uniform(-1, 1, n).astype(np.float32),
        "next.done": np.arange(n) == n - 1 if episode % 2 == 0 else np.zeros(n, np.bool_),
        "next.success": success,
    }


def task_of(episode: int) -> int:
    return episode % len(TASKS)


def picture(camera: int, episode: int, index: int) -> np.ndarray:
    """(24, 64, 3): camera, episode and index as 2 + 10 + 12 bits."""
    number = camera << 22 | episode << 12 | index
    bits = np.array([number >> k & 1 for k in range(24)], np.uint8).reshape(3, 8)
    return np.repeat(np.kron(bits * 200 + 20, np.ones((CELL, CELL), np.uint8))[:, :, None], 3, axis=2)


def read_picture(frame: np.ndarray) -> tuple[int, int, int]:
    """Inverse of `picture`."""
    bits = frame[CELL // 2 :: CELL, CELL // 2 :: CELL, 0].ravel() > 110
    number = sum(int(bit) << k for k, bit in enumerate(bits))
    return number >> 22, number >> 12 & 1023, number & 4095


def write_dataset(folder: Path, dataset: Dataset = Dataset(), **changed: Any) -> Path:
    """Writes all of it; `changed`: columns -> a function of (episode, values) that returns other values."""
    spans = [_write_videos(folder, dataset, number) for number in range(len(dataset.cameras))]
    _write_data(folder, dataset, changed)
    _write_meta(folder, dataset, spans)
    return folder


def table(columns: dict[str, Any]) -> pa.Table:
    """Arrays of numbers as LeRobot stores them: vectors as lists of a fixed length."""
    return pa.table({name: _column(value) for name, value in columns.items()})


def _column(value: Any) -> pa.Array:
    if isinstance(value, np.ndarray) and value.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(pa.array(value.ravel()), value.shape[1])
    return pa.array(value)


def _write_data(folder: Path, dataset: Dataset, changed: dict[str, Any]) -> None:
    """One row group an episode."""
    first, writer, path = 0, None, None
    for episode, n in enumerate(dataset.lengths):
        columns = {
            **rows(episode, n),
            "timestamp": (np.arange(n) / FPS).astype(np.float32),
            "frame_index": np.arange(n),
            "episode_index": np.full(n, episode),
            "index": np.arange(first, first + n),
            "task_index": np.full(n, task_of(episode)),
        }
        for name, change in changed.items():
            columns[name] = change(episode, columns[name])
        if writer is None or path != folder / dataset.data_file(episode):
            if writer is not None:
                writer.close()
            path = folder / dataset.data_file(episode)
            path.parent.mkdir(parents=True, exist_ok=True)
            writer = parquet.ParquetWriter(path, table(columns).schema, compression="snappy")
        writer.write_table(table(columns))
        first += n
    assert writer is not None
    writer.close()


def _write_meta(folder: Path, dataset: Dataset, spans: list[list[tuple[float, float]]]) -> None:
    meta = folder / "meta"
    meta.mkdir(parents=True, exist_ok=True)
    (meta / "info.json").write_text(json.dumps({**_info(dataset), **dataset.info}, indent=4))
    (meta / "stats.json").write_text(json.dumps(_stats(dataset), indent=4))
    names = {"task_index": list(range(len(TASKS))), dataset.task_column: list(TASKS)}
    parquet.write_table(pa.table(names), meta / "tasks.parquet")
    entries = [
        _entry(dataset, episode, [span[episode] for span in spans]) for episode in range(len(dataset.lengths))
    ]
    for start in range(0, len(entries), dataset.meta_files):
        path = folder / dataset.meta_file(start)
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pa.Table.from_pylist(entries[start : start + dataset.meta_files]), path)


def _entry(dataset: Dataset, episode: int, spans: list[tuple[float, float]]) -> dict[str, Any]:
    first = int(sum(dataset.lengths[:episode]))
    chunk, file = dataset.place(episode, dataset.data_files)
    entry = {
        "episode_index": episode,
        "tasks": [TASKS[task_of(episode)]],
        "length": dataset.lengths[episode],
        "data/chunk_index": chunk,
        "data/file_index": file,
        "dataset_from_index": first,
        "dataset_to_index": first + dataset.lengths[episode],
        "stats/action/min": [0.0] * len(NAMES),
        "meta/episodes/chunk_index": 0,
        "meta/episodes/file_index": episode // dataset.meta_files,
    }
    for number, (camera, (start, end)) in enumerate(zip(dataset.cameras, spans, strict=True)):
        chunk, file = dataset.place(episode, dataset.video_files[number])
        entry |= {
            f"videos/{camera}/chunk_index": chunk,
            f"videos/{camera}/file_index": file,
            f"videos/{camera}/from_timestamp": start,
            f"videos/{camera}/to_timestamp": end,
        }
    return entry


def _info(dataset: Dataset) -> dict[str, Any]:
    video = {"video.height": SIZE[0], "video.width": SIZE[1], "video.codec": "h264", "video.fps": FPS}
    cameras = {
        camera: {
            "dtype": "video",
            "shape": [*SIZE, 3],
            "names": ["height", "width", "channels"],
            "info": video,
        }
        for camera in dataset.cameras
    }
    logged = {
        "action": {"dtype": "float32", "shape": [len(NAMES)], "names": {"motors": list(NAMES)}},
        "mode": {"dtype": "int64", "shape": [1], "names": None},
        "buttons": {"dtype": "bool", "shape": [2], "names": ["a", "b"]},
        "observation.state": {"dtype": "float32", "shape": [2], "names": ["x", "y"]},
        "next.reward": {"dtype": "float32", "shape": [1], "names": None},
        "next.done": {"dtype": "bool", "shape": [1], "names": None},
        "next.success": {"dtype": "bool", "shape": [1], "names": None},
    }
    own = {name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in OWN.items()}
    return {
        "codebase_version": "v3.0",
        "robot_type": "so100",
        "total_episodes": len(dataset.lengths),
        "total_frames": sum(dataset.lengths),
        "total_tasks": len(TASKS),
        "chunks_size": dataset.chunks_size,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": FPS,
        "splits": {"train": f"0:{len(dataset.lengths)}"},
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH,
        "features": {**logged, **cameras, **own},
    }


def _stats(dataset: Dataset) -> dict[str, Any]:
    all_rows = [rows(episode, n) for episode, n in enumerate(dataset.lengths)]
    joined = {name: np.concatenate([part[name] for part in all_rows]) for name in ("action", "mode")}
    return {
        name: {
            "min": np.atleast_1d(value.min(0)).tolist(),
            "max": np.atleast_1d(value.max(0)).tolist(),
            "mean": np.atleast_1d(value.mean(0)).tolist(),
            "count": [len(value)],
        }
        for name, value in joined.items()
    }


def _write_videos(folder: Path, dataset: Dataset, camera: int) -> list[tuple[float, float]]:
    """All files of one camera; returns (from_timestamp, to_timestamp) of every episode."""
    spans: list[tuple[float, float]] = []
    per_file = dataset.video_files[camera]
    for start in range(0, len(dataset.lengths), per_file):
        episodes = range(start, min(start + per_file, len(dataset.lengths)))
        path = folder / dataset.video_file(start, camera)
        path.parent.mkdir(parents=True, exist_ok=True)
        clips = [
            [picture(camera, episode, i) for i in range(dataset.lengths[episode])] for episode in episodes
        ]
        if dataset.concatenate:
            spans += _concatenate(path, clips)
        else:
            encode(path, [frame for clip in clips for frame in clip])
            ends = np.cumsum([0, *map(len, clips)]) / FPS
            spans += list(zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True))
    return spans


def encode(path: Path, frames: Sequence[np.ndarray], missing: int | None = None) -> None:
    """H.264 with B-frames, and keyframes at 0, 5, 18, 21, 26, ...: wherever, but not where episodes begin.

    `missing`: number of a frame that is left out, and with it its time.
    """
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "8", "x264-params": "scenecut=0"})
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = 1000, 2
        for number, content in enumerate(frames):
            if number == missing:
                continue
            frame = av.VideoFrame.from_ndarray(content, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            frame.pict_type = PictureType.I if number % 21 in (0, 5, 18) else PictureType.NONE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _concatenate(path: Path, clips: list[list[np.ndarray]]) -> Iterator[tuple[float, float]]:
    """As LeRobot does: every episode is encoded alone, and the packets are copied into one file."""
    parts = [path.with_name(f"{path.stem}-{number}.mp4") for number in range(len(clips))]
    listing, spans, end = path.with_suffix(".txt"), [], 0.0
    for part, clip in zip(parts, clips, strict=True):
        encode(part, clip)
        with av.open(str(part)) as source:
            stream = source.streams.video[0]
            spans.append((end, end + float(stream.duration * stream.time_base)))
            end = spans[-1][1]
    listing.write_text("ffconcat version 1.0\n" + "".join(f"file '{part.name}'\n" for part in parts))
    with (
        av.open(str(listing), format="concat", options={"safe": "0"}) as source,
        av.open(str(path), "w", format="mp4") as target,
    ):
        copied = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = copied
                target.mux(packet)
    for temporary in (*parts, listing):
        temporary.unlink()
    return iter(spans)
