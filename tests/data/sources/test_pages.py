"""The command of each page of docs/data on what the page is about, as it stands there."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reverie.data.shards.index import ShardIndex
from reverie.data.video.codec import encode_video
from reverie.pipelines.cli import main
from tests.data.numbered import picture, pictures, stored

ROOT = Path(__file__).parents[3]
ACTIONS = np.arange(11) % 5


def write_pictures(folder: Path) -> None:
    for episode in range(2):
        for number, frame in enumerate(pictures(episode, ACTIONS)):
            path = folder / f"walk{episode}" / f"frame{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(frame).save(path)


def write_videos(folder: Path) -> None:
    folder.mkdir()
    for episode in range(2):
        encode_video(
            folder / f"{episode}.mp4", [picture(episode, i) for i in range(12)], 10, quality="lossless"
        )


def write_hdf5(folder: Path) -> None:
    h5py = pytest.importorskip("h5py")
    folder.mkdir()
    with h5py.File(folder / "a.hdf5", "w") as file:
        for episode in range(2):
            file[f"episode_{episode}/pixels"] = pictures(episode, ACTIONS)
            file[f"episode_{episode}/actions"] = ACTIONS


def write_npz(folder: Path) -> None:
    folder.mkdir()
    for episode in range(2):
        np.savez(folder / f"{episode}.npz", image=pictures(episode, ACTIONS), action=np.append(0, ACTIONS))


def write_lerobot(folder: Path) -> None:
    pytest.importorskip("pyarrow")
    from tests.data.lerobot_v2_corpus import write

    write(folder)


PAGES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "images": ("my_pictures", write_pictures),
    "videos": ("my_videos", write_videos),
    "arrays": ("my_arrays", write_hdf5),
    "npz": ("my_episodes", write_npz),
    "lerobot": ("my_dataset", write_lerobot),
}


@pytest.mark.parametrize("page", PAGES)
def test_the_command_of_the_page(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, write = PAGES[page]
    monkeypatch.chdir(tmp_path)
    write(Path(source))
    text = (ROOT / "docs/data" / f"{page}.md").read_text()
    (line,) = re.findall(rf"^reverie prepare --source {source} .*$", text, re.MULTILINE)
    words = shlex.split(line)
    main(words[1:])
    index = ShardIndex.load(words[words.index("--out") + 1])
    assert len(stored(index)) >= 2 and not index.content["skipped"]
    if page in ("images", "arrays", "npz"):
        assert all(episode.numbers == list(range(12)) for episode in stored(index).values())
