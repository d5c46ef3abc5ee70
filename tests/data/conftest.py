from pathlib import Path

import numpy as np
import pytest

from reverie.data.shards.index import ShardIndex
from reverie.data.video.codec import encode_video
from reverie.pipelines.datasets.prepare import PrepareConfig, prepare
from tests.data.corpus import SIZE, draw, taken_actions, write_recording
from tests.data.mixing import OTHER_EVENTS, OTHER_TASKS, write_mixture


@pytest.fixture(scope="session")
def shards(prepared: Path) -> ShardIndex:
    return ShardIndex.load(prepared)


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> ShardIndex:
    """Videos without logs; their frames show episodes from 100 on."""
    source, out = tmp_path_factory.mktemp("videos"), tmp_path_factory.mktemp("plain")
    for episode, n in enumerate([30, 45, 80, 20], 100):
        frames = np.pad(draw(episode, taken_actions(episode, n), n), ((0, 0), (0, 0), (12, 12), (0, 0)))
        encode_video(source / f"episode-{episode}.mp4", frames, 10, quality="lossless")
    prepare(
        PrepareConfig(source=source, out=out, size=SIZE, mode="crop", clip_length=32, shard_mb=0.03)
    )  # cuts the padding
    return ShardIndex.load(out)


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> ShardIndex:
    """Episodes from 200 on, with the same actions and another list of tasks."""
    source, out = tmp_path_factory.mktemp("other_recording"), tmp_path_factory.mktemp("other")
    write_recording(source, [50, 60, 35], OTHER_EVENTS, first=200, tasks=OTHER_TASKS)
    prepare(PrepareConfig(source=source, out=out, clip_length=32))
    return ShardIndex.load(out)


@pytest.fixture(scope="session")
def mixture(
    shards: ShardIndex, plain: ShardIndex, other: ShardIndex, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Three corpora, 4 : 2 : 1."""
    return write_mixture(
        tmp_path_factory.mktemp("mixture") / "mixture.yaml",
        {shards.folder: 2, plain.folder: 1, other.folder: 0.5},
    )


@pytest.fixture(scope="session")
def minecraft_clips() -> Path:
    folder = Path(__file__).parents[2].parent / "shared" / "data" / "minecraft_clips"
    if not folder.is_dir():
        pytest.skip("no real clips on this machine")
    return folder
