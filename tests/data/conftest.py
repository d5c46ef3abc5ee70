from pathlib import Path

import pytest

from reverie.data.index import ShardIndex


@pytest.fixture(scope="session")
def shards(prepared: Path) -> ShardIndex:
    return ShardIndex.load(prepared)


@pytest.fixture(scope="session")
def minecraft_clips() -> Path:
    folder = Path(__file__).parents[2].parent / "shared" / "data" / "minecraft_clips"
    if not folder.is_dir():
        pytest.skip("no real clips on this machine")
    return folder
