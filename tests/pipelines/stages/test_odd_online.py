"""Online training in games of every form, and in games that fail: it goes on, also when started again."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reverie.data.errors import UserError
from reverie.data.sources.episodes import Recording, complete_episodes, read_steps
from reverie.pipelines.stages.baseline import baseline
from reverie.pipelines.training.metrics import read_metrics
from reverie.pipelines.training.snapshots import read_snapshot
from tests.environments.odd_games import GAME
from tests.pipelines.datasets.test_odd_games import assert_stored_as_seen, diary
from tests.pipelines.odd_forms import PLAYABLE, UNPLAYABLE, name
from tests.pipelines.small_stages import Corpus, shorter


def online(corpus: Corpus, out: Path, make: dict[str, Any], steps: int = 2) -> Any:
    config = corpus.config("online", out)
    collect = replace(config.collect, prefill=20, episodes=1)
    config = replace(config, env=GAME, options={"make": make}, max_steps=None, collect=collect)
    return shorter(config, steps=steps)


@pytest.mark.parametrize("how", ["os._exit", pytest.param("raise", marks=pytest.mark.slow)])
def test_a_failing_game_costs_single_episodes_and_the_run_goes_on(
    how: str, corpus: Corpus, tmp_path: Path
) -> None:
    out, make = tmp_path / "run", {"fails": how, "diary": str(tmp_path / "diary")}
    baseline(online(corpus, out, make, steps=4))
    failed = {path.stem for path in (out / "played" / "failed").iterdir()}
    state = read_snapshot(out).state["batches"]
    played = complete_episodes(out / "played")
    assert failed and not failed & set(played) and state["episodes"] == len(failed) + len(played)
    assert_stored_as_seen(out / "played", make, diary(tmp_path / "diary"))
    counts = [row["play/failed"] for row in read_metrics(out / "metrics.jsonl") if "play/failed" in row]
    assert 1 <= counts[-1] <= len(failed)
    baseline(online(corpus, out, make, steps=6))  # continues: what was given up is not missed
    recording = Recording.load(out / "played")
    logs = [read_steps(out / "played", each, recording) for each in complete_episodes(out / "played")]
    assert read_snapshot(out).state["batches"]["steps"] == sum(log.num_frames - 1 for log in logs)


@pytest.mark.slow
def test_a_run_that_went_on_is_the_run_that_was_not_stopped(corpus: Corpus, tmp_path: Path) -> None:
    make = {"fails": "raise"}
    baseline(online(corpus, tmp_path / "a", make, steps=3))
    baseline(online(corpus, tmp_path / "a", make, steps=6))
    baseline(online(corpus, tmp_path / "b", make, steps=6))
    files = [
        {path.name: path.read_bytes() for path in (tmp_path / run / "played").rglob("*.[mn]p[4z]")}
        for run in "ab"
    ]
    assert files[0] == files[1]


def test_a_game_that_always_fails_ends_in_a_sentence(corpus: Corpus, tmp_path: Path) -> None:
    for _ in range(2):  # also when it is started again
        with pytest.raises(UserError, match="10 episodes in a row have failed .delete .*failed to try again"):
            baseline(online(corpus, tmp_path, {"fails": "raise", "often": 1}))
    reasons = json.loads((tmp_path / "played" / "failed" / "000000.json").read_text())["reasons"]
    assert "RuntimeError in step 3" in reasons[0]


@pytest.mark.slow
@pytest.mark.parametrize("make", [pytest.param(make, id=name(make)) for make in PLAYABLE])
def test_games_of_every_form_are_learned_from(make: dict[str, Any], corpus: Corpus, tmp_path: Path) -> None:
    baseline(online(corpus, tmp_path / "run", {**make, "diary": str(tmp_path / "diary")}, steps=1))
    assert_stored_as_seen(tmp_path / "run" / "played", make, diary(tmp_path / "diary"))


@pytest.mark.slow
@pytest.mark.parametrize("make", [pytest.param(make, id=name(make)) for make in UNPLAYABLE])
def test_what_cannot_be_played_ends_in_a_sentence(
    make: dict[str, Any], corpus: Corpus, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as error:
        baseline(online(corpus, tmp_path / "run", make))
    assert "\n" not in str(error.value) and GAME in str(error.value)
