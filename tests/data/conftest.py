from pathlib import Path

import pytest

from reverie.data.index import ShardIndex
from reverie.pipelines.prepare import PrepareConfig, prepare
from tests.data.corpus import EVENTS, LENGTHS, write_recording


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recording(tmp_path_factory.mktemp("recording"), LENGTHS, EVENTS)


@pytest.fixture(scope="session")
def shards(recording: Path, tmp_path_factory: pytest.TempPathFactory) -> ShardIndex:
    """Clips of 32 frames, several shards."""
    out = tmp_path_factory.mktemp("shards")
    prepare(PrepareConfig(source=recording, out=out, clip_length=32, shard_mb=0.04, validation_fraction=0.2))
    return ShardIndex.load(out)


@pytest.fixture(scope="session")
def minecraft_clips() -> Path:
    folder = Path(__file__).parents[2].parent / "shared" / "data" / "minecraft_clips"
    if not folder.is_dir():
        pytest.skip("no real clips on this machine")
    return folder
