"""What a run shows while it trains: pictures and films in event files, and what is said where a service's package is missing."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from reverie.data.errors import UserError
from reverie.pipelines.runs.run import RunFolder
from reverie.pipelines.training.boards import gif, open_board, require_logger
from reverie.pipelines.training.metrics import MetricsLog, read_metrics


def events(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    found.Reload()
    return found


def film() -> np.ndarray:
    """Flat frames of three colours, which an animated GIF keeps exactly."""
    return np.stack([np.full((20, 30, 3), level, np.uint8) for level in (0, 120, 255)])


def test_numbers_pictures_and_films_come_back(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    log = MetricsLog(RunFolder(tmp_path), 0)
    log.write(5, {"train/loss": 0.5})
    log.show(5, {"heldout/reconstruction": picture, "heldout/rollout": film()})
    log.close()
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 5, "train/loss": 0.5}]
    board = events(tmp_path / "tensorboard")
    assert [(x.step, x.value) for x in board.Scalars("train/loss")] == [(5, 0.5)]
    shown = board.Images("heldout/reconstruction")[0]
    assert np.array_equal(
        np.asarray(Image.open(io.BytesIO(shown.encoded_image_string)).convert("RGB")), picture
    )
    moving = Image.open(io.BytesIO(board.Images("heldout/rollout")[0].encoded_image_string))
    assert moving.n_frames == 3 and moving.size == (30, 20)
    for number, frame in enumerate(film()):
        moving.seek(number)
        assert np.array_equal(np.asarray(moving.convert("RGB")), frame)


@pytest.mark.parametrize("logger", ["wandb", "trackio"])
def test_a_missing_package_is_one_sentence(logger: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, logger, None)  # as Python marks a module that cannot be imported
    with pytest.raises(
        UserError, match=rf"{logger}: the package {logger} is not installed; run `pip install"
    ):
        require_logger(logger)  # type: ignore[arg-type]
    require_logger("tensorboard")


@pytest.mark.slow
@pytest.mark.parametrize("key", ["", "a" * 40])
def test_wandb_without_a_key_or_without_the_network_keeps_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    pytest.importorskip("wandb")
    for name in ("WANDB_MODE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_API_KEY", key)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # where nobody answers
    monkeypatch.setattr("reverie.pipelines.training.boards._PATIENCE", 2.0)
    fill("wandb", tmp_path / "run")
    assert "`wandb sync` sends it" in capsys.readouterr().err
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))


def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    fill("wandb", tmp_path)
    runs = list((tmp_path / "wandb").glob("offline-run-*"))
    assert len(runs) == 1 and list(runs[0].glob("*.wandb"))
    media = [path for path in runs[0].rglob("*") if path.suffix in (".png", ".gif")]
    assert {path.suffix for path in media} == {".png", ".gif"}


def test_trackio_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    pytest.importorskip("trackio")
    fill("trackio", tmp_path)
    assert list(tmp_path.rglob("*.gif")) and list((tmp_path / "home").rglob("*.db"))


def fill(logger: str, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    board = open_board(logger, RunFolder(folder), 0)  # type: ignore[arg-type]
    board.numbers(1, {"train/loss": 0.5})
    board.picture(1, "heldout/reconstruction", film()[1])
    board.film(2, "heldout/rollout", film())
    board.close()


def test_a_gif_plays_without_end() -> None:
    assert Image.open(io.BytesIO(gif(film()))).info["loop"] == 0
