"""Real processes: 2, then 1, then 3 ranks read what one undisturbed rank reads, byte for byte."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reverie.data.loading.loader import LoaderConfig
from reverie.data.shards.index import ShardIndex
from tests.data.reading import read
from tests.processes import finish, start

CONFIG = LoaderConfig(batch_size=6, length=16, relevant_fraction=0.5, labelled_fraction=0.8)
PHASES = ((2, 5), (1, 4), (3, 5))
"""(ranks, steps) of one run after another."""


def run(
    place: Path,
    config: LoaderConfig,
    world_size: int,
    state: Mapping[str, Any] | None,
    steps: int,
    folder: Path,
) -> tuple[list[list[Any]], dict[str, Any]]:
    """One launch: all ranks at a time. Returns the batches put together, and the state."""
    outs = [folder / f"rank-{rank}-of-{world_size}.json" for rank in range(world_size)]
    for process in [
        start(read, place, config, r, world_size, state, steps, out) for r, out in enumerate(outs)
    ]:
        finish(process)
    ranks = [json.loads(out.read_text()) for out in outs]
    assert [len(rank["batches"]) for rank in ranks] == [steps] * world_size, "equal steps on every rank"
    assert all(rank["state"] == ranks[0]["state"] for rank in ranks), "any rank's state will do"
    batches: list[list[Any]] = []
    for step in range(steps):
        parts = [rank["batches"][step] for rank in ranks]
        assert {len(part) for part in parts} == {config.batch_size // world_size}
        rows = range(config.batch_size)
        batches.append([parts[row % world_size][row // world_size] for row in rows])
    return batches, ranks[0]["state"]


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("data", ["plain corpus", "mixture"])
def test_ranks_come_and_go(
    data: str, workers: int, shards: ShardIndex, mixture: Path, tmp_path: Path
) -> None:
    place = mixture if data == "mixture" else shards.folder
    expected, end = run(place, CONFIG, 1, None, sum(steps for _, steps in PHASES), tmp_path)
    config = replace(CONFIG, num_workers=workers)
    found: list[list[Any]] = []
    state: dict[str, Any] | None = None
    for world_size, steps in PHASES:
        batches, state = run(place, config, world_size, state, steps, tmp_path)
        found += batches
    assert [[key for key, _ in batch] for batch in found] == [
        [key for key, _ in batch] for batch in expected
    ], "the order of rows"
    assert found == expected, "and their bytes"
    assert state == end
    keys = [key for batch in found for key, _ in batch]
    assert len(set(keys)) > len(keys) / 2, "the rows differ, so that their order can be told"
