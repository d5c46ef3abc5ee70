"""LeRobot datasets of version 2.1, written to the letter; frames show camera, episode and index, as those of version 3."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet

from reverie.data.video.codec import encode_video
from tests.data.lerobot_corpus import FPS, NAMES, SIZE, TASKS, picture, rows, table, task_of

LENGTHS = (12, 9, 17, 8)
TOP, WRIST, SIDE = "observation.images.top", "observation.images.wrist", "observation.images.side"
CAMERAS = (TOP, WRIST, SIDE)
CHUNKS = 3


def data_file(episode: int) -> str:
    return f"data/chunk-{episode // CHUNKS:03d}/episode_{episode:06d}.parquet"


def video_file(episode: int, camera: str) -> str:
    return f"videos/chunk-{episode // CHUNKS:03d}/{camera}/episode_{episode:06d}.mp4"


def write(folder: Path, lengths: tuple[int, ...] = LENGTHS) -> Path:
    """Two cameras of video, and one whose pictures lie inside the rows."""
    first = 0
    for episode, n in enumerate(lengths):
        columns: dict[str, Any] = {
            **rows(episode, n),
            "timestamp": (np.arange(n) / FPS).astype(np.float32),
            "frame_index": np.arange(n),
            "episode_index": np.full(n, episode),
            "index": np.arange(first, first + n),
            "task_index": np.full(n, task_of(episode)),
        }
        stored = table(columns).append_column(SIDE, images(episode, n))
        path = folder / data_file(episode)
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(stored, path)
        for number, camera in enumerate((TOP, WRIST)):
            video = folder / video_file(episode, camera)
            video.parent.mkdir(parents=True, exist_ok=True)
            encode_video(video, [picture(number, episode, i) for i in range(n)], FPS, quality="lossless")
        first += n
    _write_meta(folder, lengths)
    return folder


def images(episode: int, n: int) -> pa.Array:
    """As datasets' Image feature stores them."""
    files = []
    for index in range(n):
        target = io.BytesIO()
        Image.fromarray(picture(2, episode, index)).save(target, "PNG")
        files.append({"bytes": target.getvalue(), "path": f"frame_{index:06d}.png"})
    return pa.array(files, pa.struct({"bytes": pa.binary(), "path": pa.string()}))


def _write_meta(folder: Path, lengths: tuple[int, ...]) -> None:
    numbers = {"timestamp": "float32"} | dict.fromkeys(
        ("frame_index", "episode_index", "index", "task_index"), "int64"
    )
    features: dict[str, Any] = {
        "action": {"dtype": "float32", "shape": [len(NAMES)], "names": list(NAMES)},
        "mode": {"dtype": "int64", "shape": [1], "names": None},
        "next.reward": {"dtype": "float32", "shape": [1], "names": None},
        "next.done": {"dtype": "bool", "shape": [1], "names": None},
        "next.success": {"dtype": "bool", "shape": [1], "names": None},
        **{camera: {"dtype": "video", "shape": [*SIZE, 3]} for camera in (TOP, WRIST)},
        SIDE: {"dtype": "image", "shape": [*SIZE, 3]},
        **{name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in numbers.items()},
    }
    info = {
        "codebase_version": "v2.1",
        "fps": FPS,
        "chunks_size": CHUNKS,
        "total_episodes": len(lengths),
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": features,
    }
    (folder / "meta").mkdir()
    (folder / "meta/info.json").write_text(json.dumps(info))
    tasks = [{"task_index": number, "task": text} for number, text in enumerate(TASKS)]
    episodes = [
        {"episode_index": number, "tasks": [TASKS[task_of(number)]], "length": n}
        for number, n in enumerate(lengths)
    ]
    for name, lines in (("tasks", tasks), ("episodes", episodes)):
        (folder / f"meta/{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
