"""LeRobot datasets of version 2.1, cameras inside the rows, and several cameras in one picture."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow")

from reverie.data.errors import UserError  # noqa: E402
from reverie.data.sources.lerobot.dataset import LeRobotOptions  # noqa: E402
from reverie.data.sources.lerobot.views import grid, tile  # noqa: E402
from tests.damage import damaged_bytes  # noqa: E402
from tests.data import lerobot_corpus as v3  # noqa: E402
from tests.data import lerobot_v2_corpus as v2  # noqa: E402
from tests.data.lerobot_corpus import SIZE, picture, read_picture, rows  # noqa: E402
from tests.data.limits import time_limit  # noqa: E402
from tests.data.numbered import Stored, run, skipped, stored  # noqa: E402

H, W = SIZE


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return v2.write(tmp_path_factory.mktemp("v2"))


def options(**changes: Any) -> LeRobotOptions:
    return LeRobotOptions(**{"camera": "top", "action": "action,mode", **changes})


def require_rows(episode: Stored, number: int, n: int) -> None:
    """Actions at their frames, what they brought at the next."""
    logged = rows(number, n)
    for name in ("action", "mode"):
        np.testing.assert_array_equal(episode.actions[name][:-1], logged[name][:-1])
    np.testing.assert_array_equal(episode.reward[1:], logged["next.reward"][:-1])
    assert episode.reward_mask.tolist() == [False] + [True] * (n - 1)
    assert episode.is_terminal == logged["next.done"][-1]


@pytest.mark.parametrize("camera", range(3))
def test_every_camera_of_version_2(
    dataset: Path, tmp_path: Path, camera: int, capsys: pytest.CaptureFixture[str]
) -> None:
    index = run(dataset, tmp_path / "out", lerobot=options(camera=v2.CAMERAS[camera]))
    told = f"is taken for a LeRobot dataset of version 2: 4 episodes of {v2.CAMERAS[camera]}"
    assert told in capsys.readouterr().out
    for number, n in enumerate(v2.LENGTHS):
        episode = stored(index)[f"episode_{number:06d}"]
        np.testing.assert_array_equal(episode.frames, [picture(camera, number, i) for i in range(n)])
        require_rows(episode, number, n)


@pytest.mark.parametrize("choice", ["wrist,top", "all"])
def test_cameras_are_tiled(dataset: Path, tmp_path: Path, choice: str) -> None:
    index = run(dataset, tmp_path / "out", lerobot=options(camera=choice))
    order = (1, 0) if choice != "all" else (2, 0, 1)  # by name: side, top, wrist
    assert index.frame_size == ((H, 2 * W) if choice != "all" else (2 * H, 2 * W))
    for number, n in enumerate(v2.LENGTHS):
        episode = stored(index)[f"episode_{number:06d}"]
        for place, camera in enumerate(order):
            top, left = place // 2 * H, place % 2 * W
            cells = episode.frames[:, top : top + H, left : left + W]
            assert [read_picture(cell) for cell in cells] == [(camera, number, i) for i in range(n)]
        require_rows(episode, number, n)


def test_cameras_of_version_3_are_tiled(tmp_path: Path) -> None:
    v3.write_dataset(tmp_path / "in")
    index = run(tmp_path / "in", tmp_path / "out", lerobot=options(camera="top,wrist"))
    for number, n in enumerate(v3.LENGTHS):
        episode = stored(index)[f"episode_{number:06d}"]
        for camera in range(2):
            cells = episode.frames[:, :, camera * W : camera * W + W]
            assert [read_picture(cell) for cell in cells] == [(camera, number, i) for i in range(n)]
        require_rows(episode, number, n)


def test_a_grid_is_at_least_as_wide_as_high() -> None:
    assert [grid(n) for n in (1, 2, 3, 4, 5, 6, 7, 9, 10)] == [
        *[(1, 1), (1, 2), (2, 2), (2, 2), (2, 3), (2, 3), (3, 3), (3, 3), (3, 4)]
    ]
    small, large = np.full((4, 8, 3), 9, np.uint8), np.full((16, 16, 3), 200, np.uint8)
    whole = tile([large, small], (16, 16))
    assert whole.shape == (16, 32, 3) and (whole[:, :16] == 200).all()
    assert (whole[4:12, 16:] == 9).all() and not whole[:4, 16:].any() and not whole[12:, 16:].any()


def test_a_camera_that_is_lost_costs_its_episode_alone(tmp_path: Path) -> None:
    folder = v2.write(tmp_path / "in")
    (folder / v2.video_file(1, v2.WRIST)).unlink()
    index = run(folder, tmp_path / "out", lerobot=options(camera="top,wrist"))
    assert set(stored(index)) == {"episode_000000", "episode_000002", "episode_000003"}
    assert "is missing" in skipped(index)["episode_000001"]


LINES = {
    "no json": "{",
    "a list": "[1]",
    "no length": '{"episode_index": 1}',
    "no index": '{"length": 9}',
    "length of text": '{"episode_index": 1, "length": "x"}',
    "length 0": '{"episode_index": 1, "length": 0}',
    "length wrong": '{"episode_index": 1, "length": 5}',
    "length huge": '{"episode_index": 1, "length": 1e18}',
    "index negative": '{"episode_index": -1, "length": 9}',
    "index huge": '{"episode_index": 99999999999, "length": 9}',
    "of another": '{"episode_index": 1, "length": 17}',
    "nan": '{"episode_index": 1, "length": NaN}',
    "deep": "[" * 100_000,
    "empty": "",
}


@pytest.mark.parametrize("kind", LINES)
def test_a_damaged_line_costs_its_episode_alone(dataset: Path, tmp_path: Path, kind: str) -> None:
    folder = copy_meta(dataset, tmp_path / "in")
    path = folder / "meta/episodes.jsonl"
    lines = path.read_text().splitlines()
    lines[1] = LINES[kind]
    path.write_text("\n".join(lines))
    index = run(folder, tmp_path / "out", lerobot=options())
    assert set(stored(index)) == {"episode_000000", "episode_000002", "episode_000003"}
    assert len(skipped(index)) >= 1


@pytest.mark.parametrize("seed", range(30))
def test_damaged_files_cost_themselves(dataset: Path, tmp_path: Path, seed: int) -> None:
    rng, folder = random.Random(seed), copy_meta(dataset, tmp_path / "in")
    path = folder / rng.choice([v2.data_file(1), v2.video_file(1, v2.TOP), v2.video_file(1, v2.WRIST)])
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(damaged_bytes(content, rng))
    with time_limit():
        index = run(folder, tmp_path / "out", lerobot=options(camera=rng.choice(["top", "side", "all"])))
    for number in (0, 2, 3):
        assert len(stored(index)[f"episode_{number:06d}"].frames) == v2.LENGTHS[number]


@pytest.mark.parametrize(
    "template", ["../{episode_index}.parquet", "{x}", "{episode_index!r}", "/etc/passwd", 3]
)
def test_templates_that_lead_elsewhere(dataset: Path, tmp_path: Path, template: Any) -> None:
    folder = copy_meta(dataset, tmp_path / "in")
    info = json.loads((folder / "meta/info.json").read_text())
    (folder / "meta/info.json").write_text(json.dumps({**info, "data_path": template}))
    with pytest.raises(UserError, match="none of its .* can be used"):
        run(folder, tmp_path / "out", lerobot=options())


def copy_meta(dataset: Path, target: Path) -> Path:
    """A copy to damage; hard links for what is only read."""
    for path in dataset.rglob("*"):
        if path.is_file():
            place = target / path.relative_to(dataset)
            place.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix in (".json", ".jsonl"):
                place.write_bytes(path.read_bytes())
            else:
                place.hardlink_to(path)
    return target
