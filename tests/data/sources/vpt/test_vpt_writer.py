"""Episodes of games like Minecraft: what a game says of its player is kept, and VPT's form holds all of it."""

import json
from pathlib import Path

import numpy as np
import pytest

from reverie.data.errors import UserError
from reverie.data.sources.episodes import EpisodeSteps, EpisodeWriter, log_path, read_steps
from reverie.data.sources.status import PlayerStatus, Status, StatusLog
from reverie.data.sources.vpt.minecraft import KEYS, NULL_MOUSE, SPACE
from reverie.data.sources.vpt.recordings import VPTOptions, read_log
from reverie.data.sources.vpt.recordings import read_steps as read_vpt_steps
from reverie.data.sources.vpt.tasks import STATISTICS, TASKS
from reverie.data.sources.vpt.writer import vpt_log

N = 300
LADDER = ("mine_log", "craft_planks", "mine_cobblestone")


def draw_statuses(rng: np.random.Generator, keys: np.ndarray) -> list[Status]:
    """A player that strolls about, opens its inventory, mines and crafts; its slot follows its keys one frame late."""
    stats: dict[str, int] = {"custom:jump": 3}
    slot, told = 0, []
    for row in range(N):
        slots = [number for number in range(8) if row and keys[row - 1, KEYS.index(f"hotbar.{number + 1}")]]
        slot = slots[-1] if slots and rng.random() < 0.8 else slot
        if rng.random() < 0.1:
            name = STATISTICS[LADDER[rng.integers(3)]][rng.integers(2)]
            stats = {**stats, name: stats.get(name, 0) + 1}
        in_gui = row % 50 > 35
        player = PlayerStatus(
            position=(rng.normal() * 100, 64.0, 0.1 * row),
            view=(float(rng.uniform(-180, 180)), float(rng.uniform(-90, 90))),
            slot=slot,
            cursor=(float(rng.integers(1280)), float(rng.integers(720))) if in_gui else (640.0, 360.0),
            in_gui=in_gui,
            in_inventory=in_gui and row % 100 > 50,
        )
        carried = (("oak_log", 1 + row // 40), ("stick", 2)) if row > 20 else ()
        told.append(Status(stats=stats, player=player, inventory=carried))
    return told


def episode(seed: int, rng: np.random.Generator) -> tuple[EpisodeSteps, list[Status]]:
    keys = np.random.default_rng(seed).random((N, len(KEYS))) < 0.2
    mouse = rng.integers(121, size=N)
    keys[-1], mouse[-1] = False, NULL_MOUSE
    told, log = draw_statuses(rng, keys), StatusLog()
    for status in told:
        log.add(status)
    return EpisodeSteps(
        actions={"keys": keys, "mouse": mouse},
        reward=np.zeros(N, np.float32),
        events=np.zeros((N, len(TASKS)), np.uint8),
        is_terminal=False,
        player="drawn",
        statuses=log,
    ), told


def play(steps: EpisodeSteps):  # type: ignore[no-untyped-def]
    yield from np.zeros((N, 36, 64, 3), np.uint8)
    return steps


def writer(folder: Path) -> EpisodeWriter:
    return EpisodeWriter(folder, env="drawn", fps=20, frame_size=(36, 64), action_space=SPACE, tasks=TASKS)


def test_what_a_game_says_survives_storage(tmp_path: Path) -> None:
    steps, told = episode(0, np.random.default_rng(0))
    made = writer(tmp_path)
    made.record("a", play(steps))
    found = read_steps(tmp_path, "a", made.recording)
    assert found.statuses is not None and list(found.statuses) == told
    with np.load(log_path(tmp_path, "a")) as archive:
        arrays = {name: archive[name] for name in archive.files}
    for name, message in [
        ("status/players", "2990 numbers of players"),
        ("status/frames", "has 299 rows, expected 300"),
    ]:
        damaged = arrays | {name: arrays[name] - 1 if name == "status/frames" else arrays[name][1:]}
        if name == "status/frames":
            damaged["status/players"] = arrays["status/players"][1:]
        np.savez(log_path(tmp_path, "a"), **damaged)
        with pytest.raises(UserError, match=rf"a\.npz: its status .*{message}"):
            read_steps(tmp_path, "a", made.recording)


@pytest.mark.parametrize("seed", range(5))
def test_the_importer_reads_the_actions_tasks_and_cursor_that_were_recorded(
    tmp_path: Path, seed: int
) -> None:
    steps, told = episode(seed, np.random.default_rng(seed))
    steps.actions["keys"][0, KEYS.index("attack")] = True  # no stuck button
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"".join(vpt_log(steps)))
    log = read_log(path, VPTOptions(tolerate_damage=False))
    np.testing.assert_array_equal(log.keys, steps.actions["keys"])
    np.testing.assert_array_equal(log.mouse, steps.actions["mouse"])
    np.testing.assert_array_equal(
        log.cursor, [status.player.cursor if status.player.in_gui else (-1, -1) for status in told]
    )
    found = read_vpt_steps(log, path, N, 20.0)
    assert found.action_mask.tolist() == [True] * (N - 1) + [False] and found.reward_mask.all()
    for task in LADDER:
        totals = [sum(status.stats.get(name, 0) for name in STATISTICS[task]) for status in told]
        assert found.events[:, TASKS.index(task)].tolist() == [0, *(np.diff(totals) > 0).astype(int)]
    np.testing.assert_array_equal(found.reward, found.events.sum(axis=1))


def test_a_line_has_the_fields_of_the_contractors(tmp_path: Path) -> None:
    steps, told = episode(1, np.random.default_rng(1))
    lines = [json.loads(line) for line in vpt_log(steps)]
    assert len(lines) == N
    line, status = lines[90], told[90]
    assert list(line) == [
        *(
            "mouse",
            "keyboard",
            "isGuiOpen",
            "isGuiInventory",
            "hotbar",
            "yaw",
            "pitch",
            "xpos",
            "ypos",
            "zpos",
        ),
        *("tick", "milli", "inventory", "serverTick", "serverTickDurationMs", "stats"),
    ]
    assert status.player is not None
    x, y = status.player.cursor
    assert (line["mouse"]["scaledX"], line["mouse"]["scaledY"]) == (x - 640, y - 360)
    assert line["isGuiOpen"] and line["isGuiInventory"] and (line["tick"], line["milli"]) == (90, 4500)
    assert line["inventory"] == [{"type": "oak_log", "quantity": 3}, {"type": "stick", "quantity": 2}]
    assert line["stats"]["minecraft.custom:minecraft.jump"] == 3
    assert {type(row["hotbar"]) for row in lines} == {int}
    for before, row in zip(lines, lines[1:], strict=False):
        assert set(row["keyboard"]["newKeys"]) == set(row["keyboard"]["keys"]) - set(
            before["keyboard"]["keys"]
        )
        assert set(row["mouse"]["newButtons"]) == set(row["mouse"]["buttons"]) - set(
            before["mouse"]["buttons"]
        )
