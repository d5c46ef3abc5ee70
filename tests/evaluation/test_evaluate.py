"""The whole stage on real small data with tiny untrained models: figures, page, refusals."""

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reverie.data.actions import ActionSpace, Binary, Categorical, Continuous
from reverie.data.batch import RETURN
from reverie.data.errors import UserError
from reverie.data.shards.index import ShardIndex
from reverie.data.video.codec import encode_video, read_frames
from reverie.evaluation.pictures import enlarge
from reverie.evaluation.video import action_text
from reverie.pipelines.datasets.prepare import PrepareConfig, prepare
from reverie.pipelines.scoring.evaluate import EvaluateConfig, evaluate

from .conftest import GAME, Corpus, save_agent, save_dynamics, save_tokenizer


def settings(corpus: Corpus, out: Path, **changes) -> EvaluateConfig:  # type: ignore[no-untyped-def]
    config = EvaluateConfig(
        data=corpus.data,
        tokenizer=corpus.tokenizer,
        dynamics=corpus.dynamics,
        out=out,
        context=4,
        horizon=8,
        clips=8,
        sampling_steps=2,
        lpips="none",
        videos=2,
        films=1,
        device="cpu",
    )
    return replace(config, **changes)


class Page(HTMLParser):
    """Collects the text of a page and what it refers to."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.references, self.open = "", [], []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.references += [value for name, value in attrs if name in ("src", "href", "poster") and value]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def full(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("full") / "report"
    game = {"env": GAME, "episodes": 12, "num_envs": 6, "max_steps": 20}
    page = evaluate(settings(corpus, out, cloned=corpus.cloned, agent=corpus.agent, **game))
    assert page == out / "report.html"
    return out


def test_the_figures_are_complete(full: Path, corpus: Corpus) -> None:
    figures = json.loads((full / "report.json").read_text())
    assert 0 < figures["reconstruction"]["scores"]["psnr"]["value"] < 60
    rollouts = figures["rollouts"]
    assert list(rollouts["curves"]) == ["model", "shuffled", "copy", "tokenizer"]
    assert all(len(curve) == 8 for found in rollouts["curves"].values() for curve in found.values())
    assert rollouts["windows"] == 8 and rollouts["clips_too_short"] > 0
    games = figures["games"]
    assert [row["player"] for row in games["players"]] == [
        "random",
        "data",
        "expert",
        "cloning",
        "imagination",
    ]
    played = [row for row in games["players"] if row["player"] != "data"]
    worlds = [[episode["seed"] for episode in row["episodes"]] for row in played]
    assert all(seeds == worlds[0] and len(set(seeds)) == 12 for seeds in worlds)
    assert games["task"] == "reach_goal" and games["players"][2]["success"]["pick_up_key"]["value"] == 1.0
    assert [g["text"] for g in games["gains"]] == ["cloning over random", "imagination over cloning"]
    assert [found["player"] for found in figures["agreements"]] == ["cloning", "imagination"]
    assert figures["trust"]["windows"] == 8 and figures["trust"]["signals"] == {}, "too few to say"
    assert figures["provenance"]["data_sha256"] == corpus.index.hash()


def test_the_page_holds_the_figures_and_needs_nothing_else(full: Path) -> None:
    figures = json.loads((full / "report.json").read_text())
    html = (full / "report.html").read_text()
    page = Page(html)
    assert page.references and all(r.startswith("data:") for r in page.references)
    assert not re.search(r"url\(\s*['\"]?http|@import|<script", html)
    assert f"{figures['reconstruction']['scores']['psnr']['value']:.2f}" in page.text
    for row in figures["games"]["players"]:
        assert row["player"] in page.text and f"{row['return']['value']:.3f}" in page.text
    for lead in figures["rollouts"]["advantage"].values():
        assert f"{lead['average']['value']:.2f}" in page.text
    assert html.count("<svg") == 2 and html.count("<video") == 2 + 2
    assert "LPIPS was not measured" not in page.text


def test_pictures_and_videos_can_be_read(full: Path) -> None:
    media = sorted((full / "media").iterdir())
    assert {"reconstruction.png", "rollout-0.mp4", "imagination-0.mp4", "horizon_chart.svg"} <= {
        m.name for m in media
    }
    for path in media:
        if path.suffix == ".mp4":
            frames = read_frames(path, range(3))
            assert frames.shape[0] == 3 and frames.std() > 10
        elif path.suffix == ".png":
            assert np.asarray(Image.open(path)).std() > 10


def test_the_same_command_gives_the_same_figures(full: Path, corpus: Corpus, tmp_path: Path) -> None:
    game = {"env": GAME, "episodes": 12, "num_envs": 6, "max_steps": 20}
    evaluate(settings(corpus, tmp_path / "again", cloned=corpus.cloned, agent=corpus.agent, **game))
    one, two = (json.loads((folder / "report.json").read_text()) for folder in (full, tmp_path / "again"))
    for part in ("reconstruction", "rollouts", "games"):
        assert one[part] == two[part]


def test_a_tokenizer_alone_is_scored(corpus: Corpus, tmp_path: Path) -> None:
    evaluate(settings(corpus, tmp_path / "out", dynamics=None))
    figures = json.loads((tmp_path / "out" / "report.json").read_text())
    assert "rollouts" not in figures and "games" not in figures
    assert figures["reconstruction"]["clips"] == 8


def test_one_group_is_scored(corpus: Corpus, tmp_path: Path) -> None:
    shards = Path(shutil.copytree(settings(corpus, tmp_path).data, tmp_path / "shards"))
    content = json.loads((shards / "index.json").read_text())
    held_out = sorted({s["episode"] for s in content["samples"] if s["split"] == "validation"})
    for sample in content["samples"]:
        sample["group"] = "end" if sample["episode"] == held_out[0] else "overworld"
    (shards / "index.json").write_text(json.dumps(content))
    evaluate(settings(corpus, tmp_path / "out", dynamics=None, data=shards, group="end"))
    figures = json.loads((tmp_path / "out" / "report.json").read_text())
    assert figures["reconstruction"]["clips"] == sum(s["group"] == "end" for s in content["samples"])


def test_without_a_cloned_run_the_prior_of_the_agent_plays(corpus: Corpus, tmp_path: Path) -> None:
    game = {"env": GAME, "episodes": 3, "max_steps": 5, "agent": corpus.agent, "dynamics": None}
    evaluate(settings(corpus, tmp_path / "out", **game))
    games = json.loads((tmp_path / "out" / "report.json").read_text())["games"]
    assert [row["player"] for row in games["players"] if row["learned"]] == ["cloning", "imagination"]


def test_games_without_tasks_are_scored_by_their_return(tmp_path: Path, corpus: Corpus) -> None:
    save_tokenizer(tmp_path / "tokenizer", (40, 40))
    changes = {"tokenizer": tmp_path / "tokenizer", "dynamics": None, "episodes": 2, "max_steps": 10}
    game = {"env": "gym:CartPole-v1", "options": {"frame_size": [40, 40]}}
    evaluate(settings(corpus, tmp_path / "out", **changes, **game))
    figures = json.loads((tmp_path / "out" / "report.json").read_text())
    assert figures["games"]["task"] is None
    assert 1 < figures["games"]["players"][0]["return"]["value"] <= 10


def test_an_agent_that_learned_the_return_alone_is_scored_by_it(corpus: Corpus, tmp_path: Path) -> None:
    """In a game with tasks, whose success is still counted."""
    index = corpus.index
    known = replace(index, content={**index.content, "tasks": [*index.tasks, RETURN]})
    agent = save_agent(tmp_path / "agent", known, corpus.tokenizer, 4)
    (agent / "config.yaml").write_text("task: return\n")
    game = {"env": GAME, "episodes": 4, "num_envs": 4, "max_steps": 5, "players": ["cloning"]}
    evaluate(settings(corpus, tmp_path / "out", cloned=agent, dynamics=None, **game))
    games = json.loads((tmp_path / "out" / "report.json").read_text())["games"]
    assert games["task"] is None and games["players"][-1]["task"] == RETURN
    assert set(games["players"][-1]["success"]) == set(index.tasks)


def test_video_without_actions_gets_rollouts_against_copying(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "videos").mkdir()
    for i in range(4):
        frames = rng.integers(256, size=(1, 32, 64, 3)).repeat(40, 0)
        frames[:, :8, :8] = np.arange(40)[:, None, None, None] * 6
        encode_video(tmp_path / "videos" / f"{i}.mp4", frames.astype(np.uint8), 10, quality="high")
    prepare(
        PrepareConfig(source=tmp_path / "videos", out=tmp_path / "data", validation_fraction=0.5, workers=1)
    )
    index = ShardIndex.load(tmp_path / "data")
    save_tokenizer(tmp_path / "tokenizer", index.frame_size)
    save_dynamics(tmp_path / "dynamics", index, tmp_path / "tokenizer")
    folders = Corpus(*(tmp_path / name for name in ("data", "tokenizer", "dynamics", "none", "none")))
    evaluate(settings(folders, tmp_path / "out"))
    rollouts = json.loads((tmp_path / "out" / "report.json").read_text())["rollouts"]
    assert list(rollouts["advantage"]) == ["copy"]
    assert "has no actions" in (tmp_path / "out" / "report.html").read_text()


def test_another_tokenizer_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    save_tokenizer(tmp_path / "other", corpus.index.frame_size, seed=9)
    with pytest.raises(
        UserError, match=r"dynamics: was trained with tokenizer \w{12}, but --tokenizer .*other"
    ):
        evaluate(settings(corpus, tmp_path / "out", tokenizer=tmp_path / "other"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"horizon": 400}, "no recording of its validation split has 404 frames"),
        (
            {"env": GAME, "task": "fly"},
            "--task fly: the game has the tasks pick_up_key, open_door, reach_goal",
        ),
        (
            {"env": GAME, "options": {"tile_size": 4}},
            r"has frames of \(20, 20\), the models are for \(40, 40\)",
        ),
        ({"env": "minigrid-nowhere"}, "minigrid-nowhere"),
        ({"group": "end"}, "has no group 'end'; its groups are: none"),
        ({"data": Path("missing")}, "missing: no such folder"),
        ({"dynamics": Path("missing")}, "missing: no such run folder"),
    ],
)
def test_what_cannot_be_scored_is_refused_in_one_sentence(
    corpus: Corpus, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        evaluate(settings(corpus, tmp_path / "out", **changes))
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("changes", [{"episodes": 0}, {"sampling_steps": 3}, {"seed": -1}])
def test_settings_without_meaning_are_refused(
    corpus: Corpus, tmp_path: Path, changes: dict[str, int]
) -> None:
    with pytest.raises(UserError, match=next(iter(changes))):
        settings(corpus, tmp_path / "out", **changes)


def test_enlarging_repeats_pixels_and_shrinking_averages_them() -> None:
    frame = np.random.default_rng(0).integers(256, size=(2, 40, 56, 3)).astype(np.uint8)
    large = enlarge(frame, 144)
    assert large.shape == (2, 160, 224, 3)
    np.testing.assert_array_equal(large[:, ::4, ::4], frame)
    blocks = frame.reshape(2, 20, 2, 28, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(enlarge(frame, 20), blocks, atol=0.5)


def test_actions_read_as_words() -> None:
    space = ActionSpace(
        {"keys": Binary(3, ("jump", "left", "use")), "mouse": Categorical(9), "arm": Continuous(2)}
    )
    action = {"keys": np.array([True, False, True]), "mouse": np.int64(4), "arm": np.array([0.25, -1.0])}
    assert action_text(space, action) == "jump+use, mouse 4, +0.2 -1.0"
    named = ActionSpace({"action": Categorical(2, 0, ("noop", "fire"))})
    assert action_text(named, {"action": np.int64(1)}) == "fire"
    keys = ActionSpace({"keys": Binary(2)})
    assert action_text(keys, {"keys": np.zeros(2, bool)}) == "nothing"
