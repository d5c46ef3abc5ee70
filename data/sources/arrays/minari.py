"""Minari datasets, of its formats hdf5, arrow and parquet: what `metadata.json` says, and where the episodes lie.

    metadata.json            data_format, total_episodes, observation_space and action_space as text
    main_data.hdf5           episode_<i>/{observations, actions, rewards, terminations, truncations}
    <i>/part-0.arrow         the same as columns; or .parquet

An episode of n steps has n + 1 observations and n rows of the rest. The library itself is not asked: for datasets without
spaces it makes the game, and so runs whatever module the dataset names.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reverie.data.actions import Binary, Categorical, Component, Continuous
from reverie.data.errors import UserError
from reverie.data.files.documents import parse_json, printable, read_json
from reverie.data.sources.arrays.arrow import ArrowReader, arrow_entries
from reverie.data.sources.arrays.hdf5 import HDF5Reader, opened
from reverie.data.sources.arrays.reader import Entry, Listed, Reader, Told
from reverie.data.sources.images.listing import natural_order
from reverie.data.sources.layout import Layout

METADATA, _MAIN = "metadata.json", "main_data.hdf5"
_AGAIN = "download the dataset again"
_MOST_EPISODES = 1_000_000
_FINITE = 1e6


@dataclass(frozen=True, kw_only=True)
class _Dataset:
    """One metadata.json: where it lies, and what it says."""

    path: Path
    content: Mapping[str, Any]

    def space(self, role: str) -> Mapping[str, Any]:
        """The space of observations or actions, as its JSON has it."""
        try:
            text = self.content[f"{role}_space"]
            space = parse_json(text) if isinstance(text, str) else text
            if not isinstance(space, dict) or not printable(space):
                raise ValueError("is no object")
        except (KeyError, ValueError) as error:
            raise UserError(
                f"{self.path}: has no usable {role}_space ({error}), and no game is made to learn it; {_AGAIN}."
            ) from None
        return space


def find_minari(folder: Path, files: Listed, layout: Layout) -> Reader | None:
    """The episodes of the one dataset among `files`; None where there is none.

    Raises `UserError` where its metadata is damaged, or there are several.
    """
    found = [
        path for name, path, problem in files if path.name == METADATA and not problem and _is_dataset(path)
    ]
    if not found:
        return None
    if len(found) > 1:
        places = ", ".join(str(path.parent.parent.relative_to(folder)) for path in found[:4])
        raise UserError(f"{folder}: holds {len(found)} Minari datasets; give one of them: {places}.")
    dataset = _Dataset(path=found[0], content=read_json(found[0], _AGAIN))
    kind = dataset.content.get("data_format", "hdf5")
    components, starts = _components(dataset.space("action"), found[0])
    told = Told(kind=f"a Minari dataset ({kind})", components=components, starts=starts)
    beside = [file for file in files if file[1].is_relative_to(found[0].parent)]
    if kind == "hdf5":
        return HDF5Reader(entries=_hdf5_entries(beside, dataset), told=told, left_out=("infos",))
    if kind in ("arrow", "parquet"):
        shapes = dict(_shapes(dataset.space("observation"), "observations"))
        shapes |= dict(_shapes(dataset.space("action"), "actions"))
        entries = arrow_entries(beside, found[0].parent, kind)
        return ArrowReader(entries=_counted(entries, dataset), told=told, kind=kind, shapes=shapes)
    raise UserError(f"{found[0]}: has data_format {kind!r:.40}; hdf5, arrow and parquet are read.")


def _is_dataset(path: Path) -> bool:
    """Whether a metadata.json is that of a dataset, also where it is damaged: what lies beside it tells."""
    if (path.parent / _MAIN).is_file():
        return True
    try:
        content = read_json(path, _AGAIN)
    except (OSError, UserError):
        return False
    return "data_format" in content and "total_episodes" in content


def _hdf5_entries(files: Listed, dataset: _Dataset) -> dict[str, Entry]:
    mains = [(path, problem) for _, path, problem in files if path.name == _MAIN]
    if not mains or mains[0][1]:
        problem = mains[0][1] if mains else f"{dataset.path.parent / _MAIN}: is missing; {_AGAIN}."
        return {_MAIN: Entry(file=dataset.path.parent / _MAIN, problem=problem)}
    path = mains[0][0]
    try:
        with opened(path) as file:
            names = sorted(
                (n for n in file if n.startswith("episode_")), key=lambda n: natural_order(Path(n))
            )
    except UserError as error:
        return {_MAIN: Entry(file=path, problem=str(error))}
    return _counted({name: Entry(file=path, group=name) for name in names}, dataset)


def _counted(entries: dict[str, Entry], dataset: _Dataset) -> dict[str, Entry]:
    """The entries, and those that the metadata counts but are not there."""
    total = dataset.content.get("total_episodes")
    if not isinstance(total, int) or isinstance(total, bool) or not 0 <= total <= _MOST_EPISODES:
        return entries
    lost = [f"episode_{number}" for number in range(total) if f"episode_{number}" not in entries]
    if lost:
        problem = (
            f"{dataset.path}: counts {total} episodes, {lost[0]} and {len(lost) - 1} more are not there."
        )
        entries = {**entries, METADATA: Entry(file=dataset.path, problem=problem)}
    return entries


def _components(space: Mapping[str, Any], path: Path) -> tuple[dict[str, Component], dict[str, int]]:
    """Component -> kind, where the space tells it, and -> first class where that is not 0."""
    components: dict[str, Component] = {}
    starts: dict[str, int] = {}
    try:
        for name, leaf in _leaves(space, "action"):
            component, start = _component(leaf)
            if component is not None:
                components[name] = component
            if start:
                starts[name] = start
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{path}: has an action_space that is not understood ({error}); {_AGAIN}.") from None
    return components, starts


def _component(space: Mapping[str, Any]) -> tuple[Component | None, int]:
    match space["type"]:
        case "Discrete":
            n, start = int(space["n"]), int(space.get("start", 0))
            return Categorical(n) if 1 <= n <= 1 << 16 else None, start
        case "MultiBinary" if isinstance(space["n"], int):
            return Binary(space["n"]), 0
        case "Box":
            low, high = _numbers(space["low"]), _numbers(space["high"])
            is_usual = low and high and -_FINITE <= min(low) < max(high) <= _FINITE
            return Continuous(len(low), min(low), max(high)) if is_usual else None, 0
        case _:
            return None, 0  # what the rows show counts


def _leaves(space: Mapping[str, Any], name: str) -> list[tuple[str, Mapping[str, Any]]]:
    """(name of the component, space) of every part of a space."""
    match space["type"]:
        case "Dict":
            inner = space["subspaces"].items()
        case "Tuple":
            inner = [(f"_index_{number}", part) for number, part in enumerate(space["subspaces"])]
        case _:
            return [(name, space)]
    return [leaf for key, part in inner for leaf in _leaves(part, key)]


def _shapes(space: Mapping[str, Any], place: str) -> list[tuple[str, tuple[int, ...]]]:
    """(path, shape of a row) of every box of a space, in the paths of arrow's columns."""
    match space.get("type"):
        case "Dict":
            inner = list(space["subspaces"].items())
        case "Tuple":
            inner = [(str(number), part) for number, part in enumerate(space["subspaces"])]
        case "Box":
            return [(place, tuple(int(n) for n in space["shape"]))]
        case _:
            return []
    return [found for key, part in inner for found in _shapes(part, f"{place}/{key}")]


def _numbers(value: Any) -> list[float]:
    """All numbers of nested lists."""
    if isinstance(value, list):
        return [number for part in value for number in _numbers(part)]
    return [float(value)]
