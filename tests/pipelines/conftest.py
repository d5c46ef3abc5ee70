"""A tiny corpus, recorded and prepared by the real stages."""

import pytest

from reverie.pipelines.prepare import PrepareConfig, prepare
from reverie.pipelines.record import RecordConfig, record
from tests.pipelines.stages import Corpus


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    root = tmp_path_factory.mktemp("corpus")
    record(RecordConfig(out=root / "episodes", env="minigrid-doorkey", episodes=8, seed=1, skill=(0.9, 1.0)))
    prepare(PrepareConfig(source=root / "episodes", out=root / "shards", workers=1))
    return Corpus(root)
