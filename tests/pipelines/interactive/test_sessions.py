"""Going back, settings, agents, the real game and saved sessions, over a real socket."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reverie.data.sources.episodes import Recording, read_steps
from reverie.pipelines.interactive import tape
from reverie.pipelines.interactive.play import PlayConfig
from reverie.pipelines.interactive.serving import real_game
from reverie.pipelines.worlds.manifest import MANIFEST
from reverie.pipelines.worlds.places import SHIPPED
from reverie.pipelines.worlds.world import load_world
from tests.pipelines.interactive.page_client import Page, page, serving
from tests.pipelines.small_stages import Corpus


@pytest.fixture(scope="module")
def settings(corpus: Corpus) -> PlayConfig:
    return PlayConfig(
        data=corpus.shards,
        tokenizer=corpus.finished("tokenizer"),
        agent=corpus.finished("imagine"),
        env="minigrid-doorkey",
        context=4,
        split="train",
        sampling_steps=2,
        port=0,
        device="cpu",
        history=12,
    )


def test_going_back_is_exact_and_another_action_then_leads_elsewhere(
    settings: PlayConfig, tmp_path: Path
) -> None:
    codes = ["ArrowUp", "ArrowLeft", "ArrowUp", "ArrowRight", "ArrowUp", "Digit1", "ArrowUp"]
    with page(replace(settings, out=tmp_path)) as visitor:
        frames = [visitor.act(code) for code in codes]
        state = visitor.ask(type="back", frames=4)
        assert state["frames"] == 3 and state["can_go_back"] == 3
        assert np.array_equal(visitor.frame, frames[2])
        assert all(np.array_equal(visitor.act(code), frame) for code, frame in zip(codes[3:], frames[3:]))
        visitor.ask(type="back", frames=2)
        assert not np.array_equal(visitor.act("ArrowLeft"), frames[5])
        assert visitor.ask(type="back", frames=100)["frames"] == 0, "there is nothing before the context"
        visitor.act("ArrowUp")
    actions = read_steps(tmp_path, "000001", Recording.load(tmp_path)).actions["action"]
    assert len(actions) == 2, "what was undone is not recorded"


def test_what_is_kept_to_go_back_is_bounded(settings: PlayConfig) -> None:
    with page(settings) as visitor:
        for _ in range(20):
            visitor.act()
        assert visitor.shown.content["can_go_back"] == settings.history
        assert visitor.ask(type="back", frames=100)["frames"] == 20 - settings.history


def test_settings_change_what_is_seen_and_hold(settings: PlayConfig) -> None:
    def played(**change: float) -> list[np.ndarray]:
        with page(settings) as visitor:
            visitor.act("ArrowUp")
            if change:
                state = visitor.ask(type="set", **change)
                assert all(state[name] == value for name, value in change.items())
            return [visitor.act("ArrowUp") for _ in range(3)]

    plain = played()
    assert np.array_equal(plain, played())
    for change in ({"sampling_steps": 8}, {"seed": 77}):
        assert not np.array_equal(plain[0], played(**change)[0]), change
    noisy = played(context_level=0.25)
    assert np.array_equal(plain[0], noisy[0]), "the frame before was past already"
    assert not np.array_equal(plain[1], noisy[1])


def test_the_agent_plays_and_says_what_it_thinks_and_a_key_goes_first(settings: PlayConfig) -> None:
    with page(settings) as visitor:
        assert visitor.state["tasks"] == ["pick_up_key", "open_door", "reach_goal"]
        reading = visitor.reading
        assert set(reading) == {"type", "frame", "value", "reward", "continues", "policy"}
        assert (
            sum(reading["policy"]["action"]) == pytest.approx(1, abs=1e-4) and 0 <= reading["continues"] <= 1
        )
        visitor.ask(type="set", agent=True, task=2)
        taken = []
        for _ in range(20):
            visitor.act()
            taken += visitor.shown.content["action"]
        assert len(set(taken)) > 2, "it draws from its policy"
        visitor.act("ArrowLeft")
        assert visitor.shown.content["action"] == [0]


def test_the_real_game_takes_the_same_actions_and_goes_back_with_the_dream(settings: PlayConfig) -> None:
    from reverie.environments.make import make_env

    codes = ["ArrowUp", "ArrowRight", "ArrowUp", "ArrowLeft"]
    with page(settings) as visitor:
        assert visitor.ask(type="begin", kind="game", number=5)["game"] == "minigrid-doorkey"
        shown = [visitor.act(code) is not None and visitor.shown.pictures[1] for code in codes]
        env = make_env("minigrid-doorkey", seed=5)
        env.reset(seed=5)
        expected = [env.step({"action": action})[0] for action in (2, 1, 2, 0)]
        assert np.array_equal(shown, expected)
        visitor.ask(type="back", frames=2)
        visitor.act("ArrowLeft")
        env.reset(seed=5)
        expected = [env.step({"action": action})[0] for action in (2, 1, 0)][-1]
        assert np.array_equal(visitor.shown.pictures[1], expected)
        assert visitor.ask(type="begin", kind="here")["frames"] == 0
        assert np.array_equal(visitor.frame, expected), "the dream goes on from the game's present"


def test_a_saved_session_is_replayed_bit_for_bit_by_another_server(settings: PlayConfig) -> None:
    with page(settings) as visitor:
        for start in ({"kind": "clip", "number": 3}, {"kind": "game", "number": 9}, {"kind": "nothing"}):
            visitor.ask(type="begin", **start)
            visitor.act("ArrowUp")
            visitor.ask(type="set", sampling_steps=4, context_level=0.5)
            visitor.act("ArrowLeft")
            visitor.ask(type="set", agent=True)
            for _ in range(4):
                visitor.act()
            visitor.ask(type="back", frames=2)
            visitor.ask(type="set", agent=False, seed=123)
            frames = [visitor.act("ArrowUp"), visitor.act("ArrowRight")]
            visitor.send(type="save")
            text = visitor.hear()["text"]
            assert len(text) < 700
            visitor.ask(type="set", sampling_steps=2, context_level=0.9)
            with page(settings) as other:
                state = other.ask(type="replay", session=text)
                assert state["replaying"] == 6 and state["frames"] == 0
                for _ in range(5):
                    other.act()
                assert np.array_equal(other.frame, frames[0])
                other.act()
                assert np.array_equal(other.frame, frames[1])
                assert other.hear() == {"type": "replayed", "as": "same"}


def test_sessions_of_another_world_or_none_are_refused(settings: PlayConfig) -> None:
    with page(replace(settings, seed=1)) as visitor:
        visitor.act()
        visitor.send(type="save")
        text = visitor.hear()["text"]
    with page(settings) as visitor:
        before = visitor.frame
        assert "another world" in visitor.ask(type="replay", session=text)["text"]
        for wrong in (text[:-5], text + "AAAA", text.swapcase(), "", "x" * 100_000, "\u00e9"):
            assert visitor.ask(type="replay", session=wrong)["text"].startswith("session: ")
        assert np.array_equal(visitor.frame, before)


def test_packed_bombs_are_not_unpacked() -> None:
    import base64
    import zlib

    bomb = base64.urlsafe_b64encode(zlib.compress(bytes(500 << 20), 9)).decode()
    with pytest.raises(ValueError, match="too long"):
        tape.read(bomb)


def test_a_replay_ends_where_a_key_is_pressed(settings: PlayConfig) -> None:
    with page(settings) as visitor:
        for _ in range(4):
            visitor.act("ArrowUp")
        visitor.send(type="save")
        visitor.ask(type="replay", session=visitor.hear()["text"])
        visitor.act()
        assert visitor.shown.content["action"] == [2]
        visitor.act("ArrowLeft")
        visitor.act()
        assert visitor.shown.content["action"] == [6], "nothing is replayed any more"


def test_recording_is_turned_off_and_on(settings: PlayConfig, tmp_path: Path) -> None:
    with page(replace(settings, out=tmp_path)) as visitor:
        visitor.act("ArrowUp")
        assert visitor.ask(type="set", record=False)["record"] is False
        visitor.act("ArrowUp")
        visitor.ask(type="set", record=True)
        visitor.act("ArrowUp")
        visitor.act("ArrowUp")
    steps = [read_steps(tmp_path, name, Recording.load(tmp_path)).num_frames for name in ("000001", "000002")]
    assert steps == [2, 3]
    with page(settings) as visitor:
        assert not visitor.state["can_record"]
        assert "give --out" in visitor.ask(type="set", record=True)["text"]


def test_a_world_that_ships_is_played_without_anything_else(tmp_path: Path) -> None:
    with (
        serving(PlayConfig(world="minigrid", port=0, device="cpu")) as server,
        Page(server.address) as visitor,
    ):
        assert visitor.state["starts"] == ["clip", "nothing", "picture", "game"]
        assert visitor.state["world"] == "minigrid" and visitor.state["tasks"] == ["reach_goal"]
        assert visitor.act("ArrowUp").shape == (40, 40, 3)


def test_a_world_from_elsewhere_starts_no_game(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its manifest may name any module, which would run with its import."""
    (tmp_path / "planted.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "foreign"
    shutil.copytree(SHIPPED / "minigrid", folder)
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(manifest | {"env": "gym:planted:Game-v0"}))
    assert real_game(PlayConfig(world=str(folder)), load_world(folder)) == (None, {}, None)
    assert (
        "was recorded in 'gym:planted:Game-v0'" in capsys.readouterr().err and not (tmp_path / "ran").exists()
    )
    assert (
        real_game(PlayConfig(world="minigrid"), load_world("world:minigrid"))[0]
        == "minigrid-empty-random-5x5"
    )
