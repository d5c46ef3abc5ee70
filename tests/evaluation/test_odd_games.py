"""`evaluate` in games of other people: failing ones, ones without tasks, long ones; and what is said of their players."""

import json
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from reverie.data.batch import RETURN
from reverie.data.errors import UserError
from reverie.data.shards.index import ShardIndex
from reverie.data.sources.episodes import Recording, complete_episodes, read_steps
from reverie.environments.vector import VectorGame
from reverie.evaluation.filming import EpisodeFilms
from reverie.evaluation.games import ScriptedPolicy, play
from reverie.evaluation.seeds import over_seeds
from reverie.evaluation.video import mp4
from reverie.pipelines.datasets.prepare import PrepareConfig, prepare
from reverie.pipelines.datasets.record import RecordConfig, record
from reverie.pipelines.scoring.evaluate import EvaluateConfig, evaluate
from tests.environments.odd_games import GAME
from tests.pipelines.odd_forms import PLAYABLE, UNPLAYABLE, name

from .conftest import save_agent, save_tokenizer
from .test_baselines import save_baseline


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("odd")
    record(RecordConfig(out=root / "raw", env=GAME, episodes=6, players={"random": 1.0}))
    prepare(PrepareConfig(source=root / "raw", out=root / "shards", workers=1))
    return root / "shards"


def with_tasks(shards: Path, *tasks: str) -> ShardIndex:
    """The index of shards whose events somebody added later."""
    index = ShardIndex.load(shards)
    return replace(index, content={**index.content, "tasks": list(tasks)})


@pytest.fixture(scope="module")
def agent(shards: Path) -> dict[str, Path]:
    """A tokenizer and a cloned agent that has learned the task "score", in a game that has none."""
    index, root = with_tasks(shards, "score"), shards.parent
    save_tokenizer(root / "tokenizer", index.frame_size)
    return {
        "tokenizer": root / "tokenizer",
        "cloned": save_agent(root / "clone", index, root / "tokenizer", 2),
    }


def scored(shards: Path, out: Path, make: dict[str, Any], **settings: Any) -> dict[str, Any]:
    settings = {"episodes": 8, "num_envs": 3, "players": ["random"], "lpips": "none", **settings}
    common = {"context": 2, "horizon": 2, "clips": 2, "device": "cpu"}
    evaluate(EvaluateConfig(data=shards, out=out, env=GAME, options={"make": make}, **common, **settings))
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    return report


@pytest.mark.parametrize("how", ["os._exit", pytest.param("raise", marks=pytest.mark.slow)])
def test_a_failing_game_costs_single_episodes_and_is_told(how: str, shards: Path, tmp_path: Path) -> None:
    report = scored(shards, tmp_path, {"fails": how})
    random = next(row for row in report["games"]["players"] if row["player"] == "random")
    failed = [episode for episode in random["episodes"] if episode.get("given_up")]
    assert 1 <= len(failed) < 8 and random["given_up"] == len(failed)
    assert random["return"]["n"] == 8 - len(failed) and random["return"]["value"] == 3.0
    assert f"{len(failed)} of 8 episodes were given up" in report["notes"][0] and GAME in report["notes"][0]
    assert report["notes"][0].split(":")[0] in (tmp_path / "report.html").read_text()


def test_a_game_that_always_fails_ends_in_a_sentence(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="every episode has failed"):
        scored(shards, tmp_path, {"fails": "raise", "often": 1}, episodes=2)


def test_a_game_that_does_not_follow_its_seed_is_noted(shards: Path, tmp_path: Path) -> None:
    report = scored(shards, tmp_path, {"form": "unseeded"}, episodes=2)
    assert any("does not follow its seed" in note for note in report["notes"])


def test_recordings_have_their_row_in_a_game_without_tasks(shards: Path, tmp_path: Path) -> None:
    players = {row["player"]: row for row in scored(shards, tmp_path, {}, episodes=2)["games"]["players"]}
    raw, train = (
        shards.parent / "raw",
        {Path(s.episode).stem for s in ShardIndex.load(shards).samples("train")},
    )
    returns = [
        read_steps(raw, episode, Recording.load(raw)).reward.sum()
        for episode in complete_episodes(raw)
        if episode in train
    ]
    assert players["data"]["return"]["value"] == np.mean(returns) and players["data"]["return"]["n"] == len(
        train
    )


def test_the_report_says_what_each_player_was_asked_for(
    shards: Path, agent: dict[str, Path], tmp_path: Path
) -> None:
    baseline = save_baseline(tmp_path / "v3", ShardIndex.load(shards), "v3", task="walk")
    report = scored(
        shards, tmp_path / "out", {}, episodes=2, players=[], baseline=[baseline], films=1, **agent
    )
    asked = {row["player"]: row["task"] for row in report["games"]["players"]}
    assert asked == {"random": None, "data": None, "v3": "walk", "cloning": "score"}
    assert any("asked for score" in note for note in report["notes"])
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<th>asked for</th>" in page and "<td>score</td>" in page
    films = sorted(path.name for path in (tmp_path / "out" / "media").glob("*-0.mp4"))
    assert {"cloning-0.mp4", "v3-0.mp4"} <= set(films)


def test_a_task_that_was_never_learned_is_refused(
    shards: Path, agent: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="knows the tasks score"):
        scored(shards, tmp_path, {}, task="fly", players=[], **agent)
    with pytest.raises(UserError, match="the game has the tasks none"):
        scored(shards, tmp_path, {}, task="fly")
    two = with_tasks(shards, "run", "jump")
    both = save_agent(tmp_path / "both", two, agent["tokenizer"], 2)
    with pytest.raises(UserError, match="have learned run, jump; choose one of them"):
        scored(shards, tmp_path / "out", {}, players=[], tokenizer=agent["tokenizer"], cloned=both)
    (both / "config.yaml").write_text("task: run\n")
    with pytest.raises(UserError, match="--task jump: .*both has learned run alone"):
        scored(shards, tmp_path / "out", {}, task="jump", players=[], tokenizer=agent["tokenizer"], cloned=both)  # fmt: skip


def test_an_agent_of_the_return_plays_for_it(shards: Path, agent: dict[str, Path], tmp_path: Path) -> None:
    """Also beside other tasks; imagination is compared with the game's own rewards."""
    both = save_agent(tmp_path / "both", with_tasks(shards, "score", "run", RETURN), agent["tokenizer"], 2)
    given = {"tokenizer": agent["tokenizer"], "cloned": both}
    report = scored(shards, tmp_path / "out", {}, players=["random", "cloning"], alarm=3, **given)
    asked = {row["player"]: row["task"] for row in report["games"]["players"]}
    assert asked == {"random": None, "data": None, "cloning": RETURN} and report["games"]["task"] is None
    assert not any("asked for" in note for note in report["notes"])
    played = next(row for row in report["games"]["players"] if row["player"] == "cloning")
    (agreement,) = report["agreements"]
    assert agreement["task"] is None and agreement["steps"] <= 3
    assert {"return", "length"} <= played.keys()
    table = over_seeds([report, report])
    assert table["return: cloning"].value == played["return"]["value"]


def filmed(folder: Path, steps: int) -> tuple[int, EpisodeFilms]:
    """Bytes at most held while one episode is played and filmed."""
    game = VectorGame(GAME, 1, [1], make={"steps": steps})
    films = EpisodeFilms(folder, "random", 1, game.action_space_spec, game.fps)
    tracemalloc.start()
    play(game, ScriptedPolicy("random", game), watcher=films)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    game.close()
    return peak, films


def test_memory_does_not_grow_with_a_filmed_episode(tmp_path: Path) -> None:
    short, long = filmed(tmp_path / "a", 20)[0], filmed(tmp_path / "b", 120)[0]
    assert long < short + 2e6  # 100 pictures of the film are 37 MB
    with av.open(str(tmp_path / "b" / "random-0.mp4")) as film:
        assert sum(1 for _ in film.decode(video=0)) == 120 + 1 + 6


def test_memory_does_not_grow_with_any_film() -> None:
    peaks = []
    for count in (10, 110):
        tracemalloc.start()
        mp4((np.full((200, 200, 3), i, np.uint8) for i in range(count)), 10)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 2e6  # 100 pictures are 12 MB


def test_the_film_of_a_crashed_episode_is_not_kept(tmp_path: Path) -> None:
    game = VectorGame(GAME, 1, range(8), make={"fails": "raise"})
    films = EpisodeFilms(tmp_path, "random", 8, game.action_space_spec, game.fps)
    results = play(game, ScriptedPolicy("random", game), watcher=films)
    game.close()
    whole = [f"random-{result.number}.mp4" for result in results if not result.given_up]
    assert 0 < len(whole) < 8 and [film.name for film in films.media()] == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == whole


@pytest.mark.slow
def test_two_evaluations_of_a_game_give_the_same_films_and_charts(shards: Path, tmp_path: Path) -> None:
    baseline = save_baseline(tmp_path / "v3", ShardIndex.load(shards), "v3")
    media = []
    for out in (tmp_path / "a", tmp_path / "b"):
        scored(shards, out, {}, episodes=4, players=[], baseline=[baseline], films=3)
        media.append({path.name: path.read_bytes() for path in (out / "media").iterdir()})
    assert media[0].keys() == media[1].keys()
    assert [name for name in media[0] if media[0][name] != media[1][name]] == []
    assert len([name for name in media[0] if name.startswith("v3-") and name.endswith("mp4")]) == 3


@pytest.mark.slow
@pytest.mark.parametrize("make", [pytest.param(make, id=name(make)) for make in PLAYABLE])
def test_games_of_every_form_are_scored(make: dict[str, Any], shards: Path, tmp_path: Path) -> None:
    report = scored(shards, tmp_path, make, episodes=2)
    random = report["games"]["players"][0]
    assert random["length"]["value"] == 6 and random["given_up"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("make", [pytest.param(make, id=name(make)) for make in UNPLAYABLE])
def test_what_cannot_be_played_ends_in_a_sentence(make: dict[str, Any], shards: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        scored(shards, tmp_path, make, episodes=2)
    assert "\n" not in str(error.value) and GAME in str(error.value)
