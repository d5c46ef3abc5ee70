"""`record`, `data export --steps vpt` and `prepare`: the way round gives what was recorded."""

from pathlib import Path

import numpy as np
import pytest

from reverie.data.shards.index import ShardIndex
from reverie.data.shards.reader import read_clip
from reverie.data.shards.steps import Steps
from reverie.data.sources.episodes import Recording, complete_episodes, log_path, read_steps, video_path
from reverie.data.sources.vpt.recordings import VPTOptions, read_log
from reverie.data.sources.vpt.recordings import read_steps as read_vpt_steps
from reverie.data.sources.vpt.tasks import TASKS
from reverie.pipelines.cli import main
from tests.environments.minecraft_doubles import doubles  # noqa: F401


def export(folder: Path, out: Path) -> int:
    return main(["data", "export", str(folder), "--steps", "vpt", "--out", str(out)])


def prepared(source: Path, out: Path) -> list[Steps]:
    """The steps of every clip, in the order of the episodes."""
    given = f"prepare --source {source} --out {out} --size [36,64] --validation_fraction 0 --workers 1"
    assert main(given.split()) == 0
    index = ShardIndex.load(out)
    episodes = sorted(index.episodes("train"), key=lambda episode: episode.name)
    return [read_clip(index, sample).steps for episode in episodes for sample in episode.samples]


def require_same(recorded: Steps, imported: Steps, tasks: tuple[str, ...]) -> None:
    for name, value in recorded.actions.items():
        np.testing.assert_array_equal(imported.actions[name], value)
    for name in ("action_mask", "reward", "reward_mask"):
        np.testing.assert_array_equal(getattr(imported, name), getattr(recorded, name), name)
    columns = imported.events[:, [TASKS.index(task) for task in tasks]]
    np.testing.assert_array_equal(columns, recorded.events)


def test_the_double_of_minecraft_goes_round(doubles: Path, tmp_path: Path, capsys) -> None:  # noqa: F811
    given = "record --env minecraft-minerl --episodes 2 --max_steps 80 --out"
    assert main([*given.split(), str(tmp_path / "episodes"), "--players", "{random: 1}"]) == 0
    assert export(tmp_path / "episodes", tmp_path / "vpt") == 0
    assert sorted(path.name for path in (tmp_path / "vpt").iterdir()) == [
        *("000000.jsonl", "000000.mp4", "000001.jsonl", "000001.mp4", "export.json"),
    ]
    one, two = prepared(tmp_path / "episodes", tmp_path / "a"), prepared(tmp_path / "vpt", tmp_path / "b")
    for recorded, imported in zip(one, two, strict=True):
        require_same(recorded, imported, TASKS)
    assert sum(steps.reward.sum() for steps in two) > 2 and one[0].action_mask[:-1].all()
    before = (tmp_path / "vpt" / "000000.jsonl").stat().st_mtime_ns
    assert export(tmp_path / "episodes", tmp_path / "vpt") == 0  # nothing is left to do
    assert (tmp_path / "vpt" / "000000.jsonl").stat().st_mtime_ns == before
    (tmp_path / "vpt" / "000000.jsonl").unlink()
    log = log_path(tmp_path / "episodes", "000000")
    with np.load(log) as archive:  # as an earlier version wrote it
        old = {name: archive[name] for name in archive.files if not name.startswith("status/")}
    np.savez(log, **old)
    capsys.readouterr()
    assert export(tmp_path / "episodes", tmp_path / "vpt") == 0
    shown = capsys.readouterr().out
    assert (
        "000000.npz: holds no statistics; record this episode again." in shown
        and "vpt: 1 recordings" in shown
    )
    for folder, out, message in [
        (tmp_path / "a", tmp_path / "c", "holds no recorded episodes, which --steps vpt needs"),
        (tmp_path / "episodes", tmp_path / "b", "holds something else already; choose a new folder."),
    ]:
        assert export(folder, out) == 1
        assert message in capsys.readouterr().err


def test_what_is_not_like_vpt_is_refused(tmp_path: Path, capsys) -> None:
    assert main(["record", "--episodes", "1", "--out", str(tmp_path / "room")]) == 0
    assert export(tmp_path / "room", tmp_path / "vpt") == 1
    assert "was not played with Minecraft's keys and mouse" in capsys.readouterr().err
    flags = ["--steps", "vpt", "--videos", "high", "--out", str(tmp_path / "vpt")]
    assert main(["data", "export", str(tmp_path / "room"), *flags]) == 1
    assert "--videos: recordings in VPT's form have the recorded videos" in capsys.readouterr().err


@pytest.mark.slow
def test_luanti_goes_round(tmp_path: Path) -> None:
    pytest.importorskip("Xlib")
    from reverie.environments.luanti import processes

    if not processes.is_installed():
        pytest.skip("Luanti is not installed; `make luanti` installs it")
    given = "record --env luanti --episodes 1 --skill [0.97,0.97] --max_steps 500 --out"
    options = ["--options", '{viewing_range: 24, inventory: {"default:tree": 4}}', "--players", "{expert: 1}"]
    folder = tmp_path / "episodes"
    assert main([*given.split(), str(folder), *options]) == 0
    assert export(folder, tmp_path / "vpt") == 0
    recording, (name,) = Recording.load(folder), complete_episodes(folder)
    steps, path = read_steps(folder, name, recording), tmp_path / "vpt" / f"{name}.jsonl"
    log = read_log(path, VPTOptions())
    found = read_vpt_steps(log, path, steps.num_frames, recording.fps)
    for component, value in steps.actions.items():
        np.testing.assert_array_equal(found.actions[component][:-1], value[:-1])
    np.testing.assert_array_equal(found.reward, steps.reward)
    assert steps.reward.sum() >= 3
    assert video_path(folder, name).read_bytes() == (tmp_path / "vpt" / f"{name}.mp4").read_bytes()
    assert (log.cursor >= 0).any() and (log.cursor < 0).any()  # it has crafted in the inventory
    one, two = prepared(folder, tmp_path / "a"), prepared(tmp_path / "vpt", tmp_path / "b")
    for recorded, imported in zip(one, two, strict=True):
        require_same(recorded, imported, recording.tasks)
