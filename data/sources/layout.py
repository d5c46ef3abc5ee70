"""How pictures and arrays lie in files of a layout of the user's own: by flags, or in `layout.yaml` beside the data."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from math import inf
from pathlib import Path
from typing import Any

from reverie.data.errors import UserError
from reverie.data.files.documents import printable, read_yaml
from reverie.data.sources.listing import leads_out

FILE = "layout.yaml"
_REMEDY = "it should hold fps, frames, action, ... (docs/data/arrays.md)"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the parts of an episode are; what is left out is found by usual names. Also read from `layout.yaml`."""

    fps: float | None = None
    """Pictures a second of folders of pictures and of arrays; default: what the data says, else --fps."""
    episodes: str | None = None
    """HDF5: path of the groups that are episodes, such as data/*; default: those of known layouts, else the whole file."""
    frames: str | None = None
    """HDF5, npz, Minari: the array of pictures in an episode, such as obs/agentview_image; needed where there are several."""
    action: str | None = None
    """HDF5, npz: the arrays that are actions, separated by commas; each is a component of that name."""
    reward: str | None = None
    """HDF5, npz: the array of rewards."""
    terminal: str | None = None
    """HDF5, npz: the array that is 1 where an episode ended for good."""
    timeout: str | None = None
    """HDF5: the array that is 1 where an episode was cut off."""
    led_to: bool | None = None
    """HDF5, npz: row i holds the action that LED to frame i, not the one taken there; default: true for npz episodes."""

    def __post_init__(self) -> None:
        if self.fps is not None and not 0 < self.fps < inf:
            raise UserError(f"layout.fps: must be above 0, got {self.fps}.")

    def rate(self, place: Path, told: float | None, fallback: float | None) -> float:
        """The chosen rate, else what the data told, else `fallback`. Raises `UserError` naming `place` where there is none."""
        found = self.fps or told or fallback
        if found is None:
            raise UserError(f"{place}: says nothing of its rate; give the pictures a second with --fps.")
        return found


def layout_of(folder: Path, chosen: Layout) -> Layout:
    """`chosen`, and where it says nothing what the layout.yaml of `folder` says. Raises `UserError` where that is damaged."""
    path = folder / FILE
    if not path.is_file():
        return chosen
    if leads_out(path, folder):
        raise UserError(f"{path}: is a link that leads out of the folder; copy the file into it instead.")
    declared = _checked(read_yaml(path, _REMEDY), path)
    return replace(
        chosen, **{name: value for name, value in declared.items() if getattr(chosen, name) is None}
    )


def _checked(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    names = [field.name for field in fields(Layout)]
    unknown = [name for name in content if name not in names]
    if unknown or not printable(content):
        listed = ", ".join(names)
        raise UserError(f"{path}: has an unknown field {str(unknown or '')[:60]}; the fields are {listed}.")
    for name, value in content.items():
        if not _fits(name, value):
            raise UserError(f"{path}: {name} is {value!r:.60}, which does not fit; {_REMEDY}.")
    return dict(content)


def _fits(name: str, value: Any) -> bool:
    if name == "fps":
        return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < inf
    return isinstance(value, bool) if name == "led_to" else isinstance(value, str) and bool(value)
