"""A tiny corpus, recorded and prepared by the real stages, shards to damage, and shards without actions."""

import shutil
from pathlib import Path

import pytest

from reverie.data.video.codec import encode_video
from reverie.pipelines.datasets.prepare import PrepareConfig, prepare
from reverie.pipelines.datasets.record import RecordConfig, record
from tests.data.corpus import draw, taken_actions
from tests.pipelines.small_stages import Corpus


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    root = tmp_path_factory.mktemp("corpus")
    record(RecordConfig(out=root / "episodes", env="minigrid-doorkey", episodes=8, seed=1, skill=(0.9, 1.0)))
    prepare(PrepareConfig(source=root / "episodes", out=root / "shards", workers=1))
    return Corpus(root)


@pytest.fixture
def shards(prepared: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(prepared, tmp_path / "shards"))


@pytest.fixture(scope="session")
def unlabelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, out = tmp_path_factory.mktemp("videos"), tmp_path_factory.mktemp("unlabelled")
    for episode in range(2):
        frames = draw(episode, taken_actions(episode, 30), 30)
        encode_video(source / f"{episode}.mp4", frames, 10, quality="lossless")
    prepare(PrepareConfig(source=source, out=out, clip_length=16, workers=1))
    return out
