"""Films of an evaluation as one animated picture."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reverie.data.video.codec import encode_video
from reverie.evaluation.animation import main


def film(path: Path, n: int, width: int = 64) -> Path:
    """n grey frames, each brighter than the one before."""
    encode_video(path, [np.full((32, width, 3), 40 * i, np.uint8) for i in range(n)], 8, quality="lossless")
    return path


def test_films_play_one_above_the_other_and_rest_on_their_last_frame(tmp_path: Path) -> None:
    films = [film(tmp_path / "long.mp4", 5), film(tmp_path / "short.mp4", 3)]
    assert main([str(tmp_path / "both.gif"), *map(str, films)]) == 0
    with Image.open(tmp_path / "both.gif") as image:
        assert image.n_frames == 5 and image.info["loop"] == 0
        for i in range(5):
            image.seek(i)
            picture = np.asarray(image.convert("RGB"))
            assert picture[:32].mean() == pytest.approx(40 * i, abs=2)
            assert picture[-32:].mean() == pytest.approx(40 * min(i, 2), abs=2)
        assert image.info["duration"] > 1500


def test_what_cannot_be_one_picture_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    films = [film(tmp_path / "narrow.mp4", 2), film(tmp_path / "wide.mp4", 2, width=128)]
    assert main([str(tmp_path / "a.gif"), *map(str, films)]) == 1
    assert "differ in width (64, 128)" in capsys.readouterr().err
    assert main([str(tmp_path / "a.gif"), str(tmp_path / "missing.mp4")]) == 1
    assert "missing.mp4" in capsys.readouterr().err
    assert main([str(tmp_path / "a.txt"), str(films[0])]) == 2
