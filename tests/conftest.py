"""Shared by all rooms: one thread per process, and a small recording as the real stages store it.

The models are tiny, and threads that wait for each other on a busy machine cost minutes.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402

from reverie.pipelines.datasets.prepare import PrepareConfig, prepare  # noqa: E402
from tests.data.corpus import EVENTS, LENGTHS, write_recording  # noqa: E402

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Episodes whose pictures show their actions."""
    return write_recording(tmp_path_factory.mktemp("recording"), LENGTHS, EVENTS)


@pytest.fixture(scope="session")
def prepared(recording: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its clips of 32 frames in several shards; not to be written to."""
    out = tmp_path_factory.mktemp("prepared")
    prepare(PrepareConfig(source=recording, out=out, clip_length=32, shard_mb=0.04, validation_fraction=0.2))
    return out
