"""The README.md of an export: what shards hold, for people."""

from collections.abc import Iterable, Sequence
from math import inf

from reverie.data.actions import Binary, Categorical, Component, Continuous
from reverie.data.shards.index import ShardIndex
from reverie.data.shards.tables import task_rows

FILES = {
    "episodes.csv": "a row an episode: split, source, length, tasks accomplished, shards",
    "clips.csv": "a row a clip: where it begins and ends, where it lies",
    "tasks.csv": "a row a task: how often, in how many episodes",
    "skipped.csv": "what was left out, and why",
    "actions.yaml": "actions and tasks, as `reverie prepare` reads them",
    "export.json": "what this was exported from",
}
_MOST_NAMES = 16


def card(index: ShardIndex, name: str, steps: str | None, videos: str | None) -> str:
    """Markdown; `steps` and `videos`: in which form logs and videos were exported, None if they were not."""
    height, width = index.frame_size
    kind = "Video" if index.latent_shape is None else f"Latents {index.latent_shape} of video"
    parts = [
        f"# {_cell(name)}",
        f"{kind} of {height} x {width} pixels at {index.fps:g} frames a second, stored {_quality(index)}.",
        _table(["split", "episodes", "with actions", "clips", "frames", "hours"], _splits(index)),
        "## Actions",
        _actions(index),
        "## Tasks",
        _tasks(index),
        "## Sources",
        f"{len(index.content.get('sources', []))} used, {len(index.content.get('skipped', []))} skipped.",
        "## Files",
        _files(steps, videos),
        "## How it was prepared",
        _table(["setting", "value"], sorted(index.content.get("identity", {}).items())),
        f"Hash of the index: `{index.hash()}`",
    ]
    return "\n\n".join(parts) + "\n"


def _splits(index: ShardIndex) -> Iterable[Sequence[object]]:
    for split in index.splits:
        episodes = index.episodes(split)
        frames = sum(episode.n for episode in episodes)
        labelled = sum(episode.labelled for episode in episodes)
        hours = f"{frames / index.fps / 3600:.3f}"
        yield split, len(episodes), labelled, len(index.samples(split)), frames, hours


def _actions(index: ShardIndex) -> str:
    components = index.action_space.components
    if not components:
        return "None are logged."
    rows = [(name, *_describe(component)) for name, component in components.items()]
    return _table(["component", "kind", "n", "range or classes", "names"], rows)


def _describe(component: Component) -> tuple[object, ...]:
    names = ", ".join(component.names[:_MOST_NAMES]) + (", ..." if len(component.names) > _MOST_NAMES else "")
    match component:
        case Categorical():
            return "categorical", component.n, f"0 to {component.n - 1}, null {component.null}", names
        case Binary():
            return "binary", component.n, "0 or 1", names
        case Continuous():
            return "continuous", component.n, f"{component.low:g} to {component.high:g}", names


def _tasks(index: ShardIndex) -> str:
    if not index.tasks:
        return "None are logged."
    return _table(["task", "events", "episodes with one"], (row[:3] for row in task_rows(index)))


def _files(steps: str | None, videos: str | None) -> str:
    lines = [f"- `{name}`: {text}" for name, text in FILES.items()]
    if videos is not None:
        lines.append(f"- `episodes/**.mp4`: a video an episode, {videos}")
    if steps is not None:
        lines.append(
            f"- `episodes/**.{steps}`: a row a frame: the action taken at it, what arriving at it brought"
        )
    if videos is not None:
        lines.append("\n`reverie prepare --source` this folder makes shards of it again.")
    return "\n".join(lines)


def _quality(index: ShardIndex) -> str:
    if "storage_mse" not in index.content:
        return "with unknown loss"
    psnr = index.storage_psnr
    return "bit-exact" if psnr == inf else f"at PSNR {psnr:.1f} dB"


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(value: object) -> str:
    """Text that cannot end its cell or its line."""
    return " ".join(str(value).split()).replace("\\", "\\\\").replace("|", "\\|")
