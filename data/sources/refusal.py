"""The answer where nothing in a folder is read: what was found, what is readable, and the shortest way in."""

from collections import Counter
from pathlib import Path

from reverie.data.sources.listing import list_files

READABLE = (
    "videos (mp4, mkv, webm, ...), folders of pictures (png, jpg, webp), LeRobot and Minari datasets, HDF5 and npz "
    "episodes, VPT recordings and recorded episodes"
)
_MOST_NAMED = 4


def nothing_fits(folder: Path) -> str:
    """One sentence about a folder of which nothing can be read."""
    kinds = Counter(file.path.suffix.lower() or "files without a suffix" for file in list_files(folder))
    named = [
        f"{count} {kind if ' ' in kind else '*' + kind}" for kind, count in kinds.most_common(_MOST_NAMED)
    ]
    more = f" and {len(kinds) - len(named)} more kinds" if len(kinds) > len(named) else ""
    found = ", ".join(named) + more or "nothing"
    return (
        f"{folder}: holds no videos, nor anything else that is read; found {found}; readable are {READABLE}; the "
        f"shortest way in for anything else is reverie.data.EpisodeWriter (docs/data/own-program.md)."
    )
