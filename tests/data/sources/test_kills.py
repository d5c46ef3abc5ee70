"""kill -9 of the whole process group at random moments, again and again: nothing changes but the time it takes.

The slow tests kill 50 times and print figures, which `pytest -m slow -s tests/data/sources/test_kills.py` shows.
"""

import json
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random

import numpy as np
import pytest

from reverie.data.loading.loader import LoaderConfig
from reverie.data.shards.index import INDEX, JOURNAL, ShardIndex
from reverie.data.video.codec import encode_video
from reverie.pipelines.datasets.planning import STAGING
from reverie.pipelines.datasets.prepare import PrepareConfig, prepare
from tests.data.corpus import SPACE, draw, taken_actions
from tests.data.reading import read_on
from tests.processes import TIMEOUT, finish, kill_group, start

MANY = pytest.param(50, marks=pytest.mark.slow)
VIDEOS, FRAMES = 20, 40


class Kills:
    """Processes that are killed after random times until `most` kills were met.

    Args:
        longest: kills come within this many seconds of the start of a process.
    """

    def __init__(self, most: int, longest: float, seed: int = 0):
        self.left, self.launches = most, 0
        self._longest, self._random = longest, Random(seed)

    def survive(self, launch: Callable[[], BaseProcess], killed: Callable[[], None]) -> None:
        """Launches until it ends by itself; calls `killed` after each kill."""
        while True:
            self.launches += 1
            process = launch()
            if self.left:
                process.join(self._random.uniform(0, self._longest))
                if process.is_alive() and kill_group(process):
                    self.left -= 1
                    killed()
                    continue
            finish(process)
            return


def seconds(launch: Callable[[], BaseProcess]) -> float:
    """Of an undisturbed run."""
    finish(start(time.sleep, 0))  # the process from which all are forked takes seconds to start
    began = time.monotonic()
    finish(launch())
    return time.monotonic() - began


def contents(folder: Path) -> dict[str, bytes | None]:
    """Everything at the top of a folder; None for folders, of which there should be none."""
    return {p.name: p.read_bytes() if p.is_file() else None for p in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short videos with logs."""
    folder = tmp_path_factory.mktemp("videos")
    (folder / "actions.json").write_text(json.dumps({"action_space": SPACE.to_json(), "tasks": ["goal"]}))
    for i in range(VIDEOS):
        actions = taken_actions(i, FRAMES)
        encode_video(folder / f"{i:02d}.mp4", draw(i, actions, FRAMES), 10, quality="lossless")
        events = np.zeros((FRAMES, 1), np.uint8)
        events[i] = 1
        logged = {f"action/{name}": value for name, value in actions.items()}
        np.savez(folder / f"{i:02d}.npz", events=events, **logged)  # type: ignore[arg-type]  # numpy's stub
    return folder


def phase(out: Path) -> str:
    """How far `prepare` came."""
    if (out / INDEX).is_file():
        return "finishing"
    if list((out / JOURNAL).glob("*.tar.json")):
        return "between shards"
    if (out / STAGING / "plan.json").is_file():
        return "before the first shard"
    return "converting" if (out / STAGING).is_dir() else "looking"


@pytest.mark.parametrize("kills", [3, MANY])
def test_prepare_survives(kills: int, videos: Path, tmp_path: Path) -> None:
    def config(out: Path) -> PrepareConfig:
        return PrepareConfig(source=videos, out=out, clip_length=20, shard_mb=0.02, workers=2)

    alone = seconds(lambda: start(prepare, config(tmp_path / "alone")))
    undisturbed = contents(tmp_path / "alone")
    assert len(undisturbed) > 5 and len(ShardIndex.load(tmp_path / "alone").content["sources"]) == VIDEOS
    killer, rounds, phases = Kills(kills, alone), 0, Counter[str]()
    while killer.left:
        out = tmp_path / f"round-{rounds}"
        killer.survive(lambda: start(prepare, config(out)), lambda: phases.update([phase(out)]))  # noqa: B023
        assert contents(out) == undisturbed
        rounds += 1
    assert phases.total() == kills
    print(
        f"\nprepare: {kills} kills in {killer.launches} launches of {alone:.2f} s; {rounds} finished folders equal "
        f"the undisturbed one byte for byte; killed while {dict(phases.most_common())}"
    )


@pytest.mark.parametrize("kills", [3, MANY])
@pytest.mark.parametrize("data", ["plain corpus", "mixture"])
def test_reading_survives(data: str, kills: int, shards: ShardIndex, mixture: Path, tmp_path: Path) -> None:
    place = mixture if data == "mixture" else shards.folder
    until = 60
    random = Random(1)

    def config(workers: int) -> LoaderConfig:
        return LoaderConfig(batch_size=4, length=16, relevant_fraction=0.5, num_workers=workers)

    alone = seconds(lambda: start(read_on, place, config(0), until, tmp_path / "alone.json"))
    undisturbed = (tmp_path / "alone.json").read_bytes()
    assert len(json.loads(undisturbed)["batches"]) == until
    killer, rounds, reached = Kills(kills, alone), 0, set[int]()
    while killer.left:
        log = tmp_path / f"round-{rounds}.json"

        def killed() -> None:
            seen = json.loads(log.read_text())["batches"] if log.exists() else []  # noqa: B023
            reached.add(len(seen))

        killer.survive(
            lambda: start(read_on, place, config(random.choice([0, 1, 2])), until, log),  # noqa: B023
            killed,
        )
        assert log.read_bytes() == undisturbed, "the same rows in the same order, byte for byte"
        rounds += 1
    print(
        f"\nreading a {data}: {kills} kills in {killer.launches} launches with 0 to 2 workers, at {len(reached)} "
        f"different batches of {until}; {rounds} whole readings equal the undisturbed one"
    )


def test_the_timeout_is_no_kill() -> None:
    """`finish` must fail for a process that was killed, or the tests above would prove nothing."""
    process = start(time.sleep, TIMEOUT)
    assert kill_group(process)
    with pytest.raises(AssertionError):
        finish(process)
