"""`reverie improve`: rounds build on each other, finished stages are not called again, and a killed one goes on."""

import json
import time
from pathlib import Path

import pytest

from reverie.data.shards.index import ShardIndex
from reverie.data.sources.episodes import Recording, complete_episodes, read_steps
from reverie.pipelines.cli import main, parse
from reverie.pipelines.improve import FOLDERS, ImproveConfig, _flags, round_stages
from reverie.pipelines.presets import PRESETS
from reverie.pipelines.runs.run import read_provenance
from reverie.pipelines.training.checkpoints import weights_sha256
from tests.pipelines.launches import launch
from tests.processes import TIMEOUT, kill_group

TINY = ["--env", "minigrid-empty-5x5", "--episodes", "20", "--scored", "2", "--steps_scale", "0.002"]


def test_every_stage_goes_on_from_its_last_run() -> None:
    """All settings are ones that there are; from the second round on with the last round's agent, shards and weights."""
    config = ImproveConfig(out=Path("o"), task="reach_goal", explore=0.25, seed=5)
    for number in range(3):
        here, before = Path(f"o/round-{number}"), Path(f"o/round-{number - 1}")
        stages = round_stages(config, number)
        parsed = {
            name: parse(name, [*_flags(settings), "--out", str(here / FOLDERS.get(name, name))])
            for name, settings in stages.items()
        }
        assert list(parsed) == [
            *("record", "prepare", "tokenizer", "encode", "dynamics", "clone", "imagine", "evaluate")
        ]
        later = number > 0
        for name in ("tokenizer", "dynamics", "clone"):
            assert parsed[name].parent == (before / name if later else None)
            assert parsed[name].training.steps == PRESETS["nano"][name]["training"].steps
        assert parsed["prepare"].base == (before / "shards" if later else None)
        assert parsed["record"].players == ({"agent": 0.75, "random": 0.25} if later else {"random": 1.0})
        assert parsed["record"].agent == (before / "imagine" if later else None)
        assert parsed["record"].seed == 5 + number and parsed["evaluate"].seed == 5
        assert parsed["imagine"].agent == here / "clone" and parsed["imagine"].task == "reach_goal"


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--rounds", "0"], "rounds: must be at least 1"),
        (["--explore", "1"], "explore: must be at least 0 and below 1"),
        (["--first", "{agent: 1}"], "first: there is no agent before the first round"),
        (["--preset", "nanno"], "preset 'nanno': is not known"),
    ],
)
def test_mistakes_are_one_sentence(
    flags: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["improve", "--out", "nowhere", *flags]) == 2
    assert sentence in capsys.readouterr().err and not Path("nowhere").exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (["--env", "minigrid-empty-5x"], "game 'minigrid-empty-5x': is not known"),
        (["--task", "reach_gaol"], "no such task; use one of reach_goal, return"),
        (["--first", "{dancer: 1}"], "players: 'dancer' is not known"),
    ],
)
def test_what_the_game_has_not_is_told_before_anything_is_written(
    changes: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["improve", *TINY, "--out", str(tmp_path / "out"), *changes]) != 0
    assert sentence in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_rounds_build_on_each_other_whatever_is_killed(tmp_path: Path) -> None:
    out, deadline = tmp_path / "out", time.monotonic() + 2 * TIMEOUT
    arguments = ["improve", "--out", str(out), *TINY, "--rounds"]
    for number, place in enumerate(("round-0/dynamics", "round-1/episodes")):
        process = launch([*arguments, "2"], tmp_path / f"said-{number}")
        while not (out / place).exists():
            assert process.is_alive() and time.monotonic() < deadline, (
                tmp_path / f"said-{number}"
            ).read_text()
            time.sleep(0.1)
        assert kill_group(process)
    process = launch([*arguments, "2"], tmp_path / "said")
    process.join(2 * TIMEOUT)
    said = (tmp_path / "said").read_text()
    assert process.exitcode == 0, said
    assert "round-0: reverie" not in said  # all of it was finished

    old, new = out / "round-0", out / "round-1"
    rounds = json.loads((out / "rounds.json").read_text())["rounds"]
    assert [row["round"] for row in rounds] == [0, 1] and rounds[1]["frames"] > rounds[0]["frames"]
    assert set(rounds[1]["players"]) == {"random", "cloning", "imagination"}
    assert "| 1 | " in (out / "rounds.md").read_text()
    recording = Recording.load(new / "episodes")
    players = {read_steps(new / "episodes", n, recording).player for n in complete_episodes(new / "episodes")}
    assert f"agent {weights_sha256(old / 'imagine')[:8]}" in players
    shards, grown = ShardIndex.load(old / "shards"), ShardIndex.load(new / "shards")
    count = len(shards.content["samples"])
    assert (
        grown.content["samples"][:count] == shards.content["samples"] and len(grown.content["samples"]) == 40
    )
    for stage in ("tokenizer", "dynamics", "clone"):
        inputs = read_provenance(new / stage / "provenance.json")["identity"]["inputs"]
        assert inputs["parent"] == weights_sha256(old / stage)
