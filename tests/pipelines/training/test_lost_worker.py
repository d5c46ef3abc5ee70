"""A loading process that is killed, as by a system out of memory, ends training with one sentence; it can go on."""

import os
import signal
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from reverie.pipelines.runs.configs import to_plain
from tests.pipelines.launches import launch
from tests.pipelines.small_stages import Corpus, shorter, wait_for
from tests.processes import TIMEOUT


@pytest.mark.parametrize("stage", ["tokenizer", pytest.param("imagine", marks=pytest.mark.slow)])
def test_a_killed_loading_process_is_one_sentence(stage: str, corpus: Corpus, tmp_path: Path) -> None:
    config = shorter(
        corpus.config(stage, tmp_path / "run"), steps=100_000, evaluate_every=0, save_every=100_000
    )
    batches = replace(config.batches, num_workers=1, long_probability=0.0)
    settings = tmp_path / "settings.yaml"
    settings.write_text(yaml.safe_dump(to_plain(replace(config, batches=batches))))
    process = launch([stage, "--config", str(settings)], tmp_path / "said")
    wait_for(config.out.joinpath("metrics.jsonl").is_file, process)
    place, children = Path(f"/proc/{process.pid}/task/{process.pid}/children"), set[str]()
    until = time.monotonic() + TIMEOUT
    while process.is_alive() and time.monotonic() < until:  # one or two may die without ending the run
        with suppress(OSError):
            for child in place.read_text().split():
                children.add(child)
                os.kill(int(child), signal.SIGKILL)
        process.join(1)
    said = (tmp_path / "said").read_text().strip().splitlines()
    assert process.exitcode == 1 and children, said
    assert "a process that loads batches has died" in said[-1] and "--batches.num_workers" in said[-1]
    assert "Traceback" not in "".join(said)
