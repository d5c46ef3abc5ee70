"""A person at the keyboard: what keys and mouse become, when an episode ends, and the recording of it."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pygame
import pytest

from reverie.data.errors import UserError
from reverie.data.sources.episodes import Recording, complete_episodes, read_steps
from reverie.data.sources.vpt.minecraft import KEYS, NULL_MOUSE, decode_camera
from reverie.environments.game import GameEnv
from reverie.environments.human import Desk, EpisodeOver, Turns, instructions
from reverie.environments.make import make_env
from reverie.environments.players import GamePlayer, make_player
from reverie.pipelines.cli import main, parse
from tests.environments.minecraft_doubles import doubles  # noqa: F401


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A display of memory alone."""
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    pygame.display.quit()
    yield
    Desk.close()


def press(key: int, kind: int = pygame.KEYDOWN) -> None:
    pygame.event.post(pygame.event.Event(kind, key=key))


def human(game: GameEnv) -> GamePlayer:
    game.reset(seed=0)
    player = make_player("human", game, np.random.default_rng(0))
    player.act()
    return player


def names(action: dict[str, np.ndarray]) -> set[str]:
    return {name for name, down in zip(KEYS, action["keys"], strict=True) if down}


def test_minecrafts_keys_and_buttons(desk: None, doubles: Path) -> None:  # noqa: F811
    player = human(make_env("minecraft-minerl"))
    for key in (
        pygame.K_w,
        pygame.K_LSHIFT,
        pygame.K_LCTRL,
        pygame.K_SPACE,
        pygame.K_3,
        pygame.K_ESCAPE,
        pygame.K_F3,
    ):
        press(key)
    pygame.event.post(pygame.event.Event(pygame.MOUSEBUTTONDOWN, button=1))
    pygame.event.post(pygame.event.Event(pygame.MOUSEBUTTONDOWN, button=3))
    action = player.act()
    assert names(action) == {"forward", "sneak", "sprint", "jump", "hotbar.3", "ESC", "attack", "use"}
    assert action["mouse"] == NULL_MOUSE
    for key in (pygame.K_LSHIFT, pygame.K_LCTRL, pygame.K_SPACE, pygame.K_3, pygame.K_ESCAPE):
        press(key, pygame.KEYUP)
    pygame.event.post(pygame.event.Event(pygame.MOUSEBUTTONUP, button=1))
    press(pygame.K_e)  # shorter than a step
    press(pygame.K_e, pygame.KEYUP)
    assert names(player.act()) == {"forward", "use", "inventory"}
    pygame.event.post(pygame.event.Event(pygame.WINDOWFOCUSLOST))
    assert names(player.act()) == set()
    for turned, slot in [(-1, 4), (-1, 5), (3, 2), (2, 9)]:  # after the 3 that was pressed
        pygame.event.post(pygame.event.Event(pygame.MOUSEWHEEL, y=turned))
        assert names(player.act()) == {f"hotbar.{slot}"}


def test_the_mouse_becomes_classes_that_add_up_to_its_movement() -> None:
    rng, turns = np.random.default_rng(0), Turns()
    for scale in (1, 5, 30, 200):
        start, wanted, turned = turns.left.copy(), np.zeros(2), np.zeros(2)
        for _ in range(200):
            pixels = np.round(rng.normal(size=2) * scale)
            wanted += pixels[::-1] * 0.15
            turned += decode_camera(np.asarray(turns.take(pixels)))
        np.testing.assert_allclose(start + wanted - turned, turns.left, atol=1e-6)
        rest = [turns.take(np.zeros(2)) for _ in range(200)]
        turned += decode_camera(np.array(rest)).sum(axis=0)
        assert rest[-1] == NULL_MOUSE and (np.abs(start + wanted - turned) < 0.6155).all()
        directions = np.sign(decode_camera(np.array(rest)))  # it comes to rest, and never swings back
        assert all(set(column) <= {0, sign} for column, sign in zip(directions.T, directions[0], strict=True))


def test_the_view_turns_down_and_right_with_the_mouse(desk: None, doubles: Path) -> None:  # noqa: F811
    player = human(make_env("minecraft-minerl"))
    for rel in [(20, 0), (20, 30)]:
        pygame.event.post(pygame.event.Event(pygame.MOUSEMOTION, rel=rel))
    pitch, yaw = decode_camera(player.act()["mouse"])
    assert 0 < pitch <= 30 * 0.15 and 0 < yaw <= 40 * 0.15


def test_a_simple_game_has_a_key_for_every_class(desk: None) -> None:
    game = make_env("minigrid-doorkey")
    space, said = game.action_space_spec, instructions(game)
    (kind,) = space.components.values()
    player = human(game)
    numbers = [number for number in range(kind.n) if number != kind.null]
    for key, number in zip("1234567890", numbers, strict=False):
        press(pygame.key.key_code(key))
        assert player.act() == {"action": number}
        press(pygame.key.key_code(key), pygame.KEYUP)
        assert player.act() == {"action": kind.null} and f"{key} " in said
    assert said.endswith("F10 ends the episode, F12 or closing the window the recording.")
    press(pygame.K_F10)
    with pytest.raises(EpisodeOver):
        player.act()
    with pytest.raises(
        UserError, match="'gym:Pendulum-v1' has actions that keys cannot say; leave human out"
    ):
        make_player("human", make_env("gym:Pendulum-v1"), np.random.default_rng(0))


def test_without_a_display_or_with_two_workers_it_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path, capsys
) -> None:
    pygame.display.quit()
    for name in ("SDL_VIDEODRIVER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert main(["record", "--players", "{human: 1}", "--out", str(tmp_path / "out")]) == 1
    assert "players: human needs a display" in capsys.readouterr().err
    pygame.display.quit()
    monkeypatch.setitem(__import__("sys").modules, "pygame", None)
    with pytest.raises(UserError, match=r"needs the package 'pygame'; run `pip install 'reverie\[human\]'`"):
        make_player("human", make_env("crafter"), np.random.default_rng(0))
    with pytest.raises(UserError, match="workers: one person plays one game at a time"):
        parse("record", ["--players", "{human: 1}", "--workers", "2", "--out", str(tmp_path)])


class Person(threading.Thread):
    """Does something for each episode, `seconds` after the window is there."""

    def __init__(self, *deeds: Callable[[], None], seconds: float) -> None:
        super().__init__(daemon=True)
        self.deeds, self.seconds = deeds, seconds

    def run(self) -> None:
        while Desk.window is None:
            time.sleep(0.05)
        for deed in self.deeds:
            time.sleep(self.seconds)
            deed()


def test_episodes_of_a_person_are_recorded_until_it_leaves(
    desk: None,
    doubles: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    deeds = (
        *(lambda: press(pygame.K_w), lambda: press(pygame.K_F10)),
        lambda: pygame.event.post(pygame.event.Event(pygame.QUIT)),
    )
    Person(*deeds, seconds=1.5).start()
    began = time.monotonic()
    flags = [
        "--env",
        "minecraft-minerl",
        "--episodes",
        "5",
        "--players",
        "{human: 1}",
        "--out",
        str(tmp_path),
    ]
    assert main(["record", *flags]) == 0
    assert complete_episodes(tmp_path) == ["000000", "000001"]
    shown = capsys.readouterr().out
    assert "2 of 5 episodes; the same command goes on." in shown and "F10 ends the episode" in shown
    recording = Recording.load(tmp_path)
    first, second = (read_steps(tmp_path, name, recording) for name in complete_episodes(tmp_path))
    forward = first.actions["keys"][:, KEYS.index("forward")]
    assert forward[:-1].any() and not forward[0] and not second.actions["keys"].any()
    assert first.player == "human" and not first.is_terminal
    # 20 steps a second at most, and the last one is no step.
    assert first.num_frames + second.num_frames < 20 * (time.monotonic() - began) + 4


@pytest.mark.slow
def test_a_person_walks_in_luanti(desk: None, tmp_path: Path) -> None:
    pytest.importorskip("Xlib")
    from reverie.environments.luanti import processes

    if not processes.is_installed():
        pytest.skip("Luanti is not installed; `make luanti` installs it")
    deeds = (
        lambda: (press(pygame.K_w), press(pygame.K_SPACE)),
        lambda: pygame.event.post(pygame.event.Event(pygame.MOUSEMOTION, rel=(400, 0))),
        lambda: press(pygame.K_F12),
    )
    Person(*deeds, seconds=5).start()
    flags = ["--env", "luanti", "--episodes", "1", "--players", "{human: 1}", "--out", str(tmp_path)]
    assert main(["record", *flags, "--options", "{viewing_range: 24}"]) == 0
    steps = read_steps(tmp_path, "000000", Recording.load(tmp_path))
    assert steps.statuses is not None
    players = [status.player for status in steps.statuses if status.player is not None]
    ways = np.array([player.position for player in players])
    assert np.linalg.norm(ways[-1] - ways[0]) > 0.5
    turned = decode_camera(steps.actions["mouse"][:-1])[:, 1].sum()
    assert turned == pytest.approx(60, abs=0.7)
    assert (players[-1].view[0] - players[0].view[0]) % 360 == pytest.approx(turned, abs=0.5)
