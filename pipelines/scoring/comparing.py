"""`reverie report RUN...`: any runs on one page that needs nothing else, see `reverie.evaluation.comparison`.

A run may be the folder of a training stage, of an evaluation, or one that holds such folders, as that of the demo. What cannot be
read, is damaged or is something else costs a sentence on the page, never the page.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open

from reverie.data.errors import UserError
from reverie.data.files.documents import MOST_YAML_BYTES, parse_yaml, read_bounded
from reverie.data.files.durable import write_atomic
from reverie.evaluation.comparison import Comparison, EvaluatedRun, PlayerRow, TrainedRun
from reverie.evaluation.report import Media
from reverie.evaluation.statistics import Estimate
from reverie.pipelines.runs.run import RunFolder, read_provenance
from reverie.pipelines.training.integrity import WEIGHTS, newest_whole
from reverie.pipelines.training.metrics import read_metrics

REPORT = "report.json"
_MOST_REPORT_BYTES = 1 << 28
_MOST_FILMS = 3
_MOST_PLAYED = 2
_DEPTH = 3
"""Folders below a given one that are searched for runs."""
_WRONG = (KeyError, TypeError, ValueError, AttributeError, IndexError)
_NOT_RUNS = ("checkpoints", "tensorboard", "media", "features", "shards", "latents", "episodes")

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Compares runs on one HTML page."""

    runs: list[Path]
    """Folders of training stages, evaluations or baselines, or folders that hold such; may stand without --runs."""
    out: Path = Path("comparison.html")
    """The page."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise UserError("runs: nothing to compare; give folders of runs.")
        if self.out.is_dir():
            raise UserError(
                f"--out {self.out}: is a folder; give the name of a page, such as {self.out}/comparison.html."
            )
        if self.out.suffix not in (".html", ".htm"):
            raise UserError(
                f"--out {self.out}: a browser shows pages that end in .html; give {self.out}.html."
            )


def report(config: ReportConfig) -> None:
    """Writes the page and says where it is. Raises `UserError` where nothing at all can be shown."""
    problems: list[str] = []
    folders = [folder for run in config.runs for folder in _folders(run, problems)]
    names = display_names(folders)
    trained, evaluated = [], []
    for folder in folders:
        if (folder / REPORT).is_file():
            evaluated += _attempt(lambda f=folder: read_evaluated(f, names[f]), problems)  # type: ignore[misc]
        else:
            trained += _attempt(lambda f=folder: read_trained(f, names[f]), problems)  # type: ignore[misc]
    if not trained and not evaluated:
        raise UserError("\n".join(problems) or "no run was found.")
    config.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(config.out, Comparison(trained, evaluated, problems).page().encode())
    for problem in problems:
        print(f"note: {problem}")
    print(f"report: {len(trained)} training runs and {len(evaluated)} evaluations in {config.out}")


def _attempt(read: Callable[[], T], problems: list[str]) -> list[T]:
    try:
        return [read()]
    except UserError as error:
        problems.append(str(error))
        return []


def _folders(path: Path, problems: list[str]) -> list[Path]:
    """The runs at or below `path`, in the order in which they were begun."""
    if not path.is_dir():
        problems.append(f"{path}: no such folder; give the folder of a run.")
        return []
    found = sorted(_below(path, _DEPTH), key=lambda folder: (_began(folder), folder.name))
    if not found:
        problems.append(f"{path}: holds no run (provenance.json or report.json) and is left out.")
    return found


def _below(path: Path, depth: int) -> Iterator[Path]:
    if (path / "provenance.json").is_file() or (path / REPORT).is_file():
        yield path
    elif depth:
        inner = (
            x for x in path.iterdir() if x.is_dir() and x.name not in _NOT_RUNS and not x.name.startswith(".")
        )
        for folder in sorted(inner):
            try:
                yield from _below(folder, depth - 1)
            except OSError:
                continue


def _began(folder: Path) -> str:
    try:
        return str(read_provenance(folder / "provenance.json")["launches"][0]["time"])
    except (UserError, *_WRONG):
        return "~"


def display_names(folders: Sequence[Path]) -> dict[Path, str]:
    """Short names that tell the folders apart: the last parts of their paths, as many as that takes."""
    whole = {folder: folder.resolve().parts[1:] or (str(folder),) for folder in folders}
    names = {}
    for folder, parts in whole.items():
        others = [x for other, x in whole.items() if other != folder]
        taken = next(
            (k for k in range(1, len(parts)) if not any(x[-k:] == parts[-k:] for x in others)), len(parts)
        )
        names[folder] = "/".join(parts[-max(2, taken) :])
    return names


def read_trained(folder: Path, name: str) -> TrainedRun:
    """A training stage's folder. Raises `UserError` where it is none, or its provenance is damaged."""
    run = RunFolder(folder)
    known = read_provenance(run.provenance)
    rows = _lines(read_metrics(run.metrics))
    steps = max((line[-1][0] for line in rows.values() if line), default=0)
    settings = _settings(folder / "config.yaml")
    first, last = _launches(known)
    checkpoint = _newest(folder)
    return TrainedRun(
        name=name,
        kind=str(known["identity"]["kind"]),
        rows=rows,
        steps=max(steps, int(checkpoint.name) if checkpoint is not None else 0),
        parameters=None if checkpoint is None else _parameters(checkpoint / WEIGHTS),
        seconds=_seconds(rows.get("train/steps_per_second", [])),
        speeds={n.partition("/")[2]: median(x for _, x in line) for n, line in rows.items() if _is_speed(n)},
        precision=_precision(settings),
        data=str(settings.get("data", "–")),
        commit=_short(last.get("commit")),
        began=str(first.get("time", "–"))[:16].replace("T", " "),
        command=str(last.get("command", "–")),
    )


def _is_speed(name: str) -> bool:
    return name == "train/steps_per_second" or name.startswith("speed/")


def _lines(rows: Sequence[Mapping[str, float]]) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        for name, value in row.items():
            if name != "step":
                found.setdefault(name, []).append((int(row["step"]), float(value)))
    return found


def _seconds(speeds: Sequence[tuple[int, float]]) -> float | None:
    """From the steps between two rows, at the speed of the later one."""
    before, seconds = 0, 0.0
    for step, speed in speeds:
        seconds += max(0, step - before) / speed if speed > 0 else 0.0
        before = step
    return seconds or None


def _newest(folder: Path) -> Path | None:
    try:
        return newest_whole(folder / "checkpoints")
    except (UserError, OSError):
        return None


def _parameters(weights: Path) -> int | None:
    """Numbers in a safetensors file, from its header."""
    try:
        with safe_open(weights, framework="np") as file:
            return sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    except (OSError, SafetensorError):
        return None


def _settings(path: Path) -> dict[str, Any]:
    try:
        found = parse_yaml(read_bounded(path, MOST_YAML_BYTES))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _precision(settings: Mapping[str, Any]) -> str:
    fabric = settings.get("fabric")
    found = fabric.get("precision", "–") if isinstance(fabric, dict) else settings.get("precision", "–")
    return "32-true" if found == "no" else str(found)  # as Accelerate calls it


def _launches(known: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The first and the last."""
    launches = known["launches"] or [{}]
    return launches[0], launches[-1]


def _short(commit: Any) -> str:
    return "–" if not commit else str(commit)[:10] + ("+changes" if str(commit).endswith("+changes") else "")


def read_evaluated(folder: Path, name: str) -> EvaluatedRun:
    """An evaluation's folder. Raises `UserError` where its report.json is damaged or another's."""
    path = folder / REPORT
    try:
        figures = json.loads(read_bounded(path, _MOST_REPORT_BYTES))
        return _evaluated(folder, name, figures)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); it is left out.") from None
    except (RecursionError, *_WRONG) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else type(error).__name__
        raise UserError(
            f"{path}: is damaged or no report of `evaluate` ({reason}); it is left out."
        ) from None


def _evaluated(folder: Path, name: str, figures: Mapping[str, Any]) -> EvaluatedRun:
    rollouts, games = figures.get("rollouts") or {}, figures.get("games") or {}
    provenance, trust = figures["provenance"], figures.get("trust") or {}
    scores = (figures.get("reconstruction") or {}).get("scores", {})
    return EvaluatedRun(
        name=name,
        title=str(figures["title"]),
        data=str(figures["settings"]["data"]),
        commit=_short(provenance.get("commit")),
        time=str(provenance.get("time", "–"))[:16].replace("T", " "),
        reconstruction={metric: _estimate(x) for metric, x in scores.items() if x is not None},
        windows=int(rollouts.get("windows", 0)),
        context=int(rollouts.get("context", 0)),
        psnr={m: [_estimate(x) for x in found["psnr"]] for m, found in rollouts.get("curves", {}).items()},
        averages={metric: float(x) for metric, x in rollouts.get("averages", {}).items()},
        leads={other: _estimate(lead["average"]) for other, lead in rollouts.get("advantage", {}).items()},
        trust=_estimate(trust["signals"]["expected"]["all"]) if trust.get("signals") else None,
        drift=str(figures["drift"]["verdict"]) if figures.get("drift") else None,
        agreements=[(bool(x["alarm"]), str(x["sentence"])) for x in figures.get("agreements") or []],
        task=games.get("task"),
        tasks=[str(task) for task in games.get("tasks", [])],
        players=[_player(row) for row in games.get("players", [])],
        traces={
            str(player): [_trace(x) for x in found] for player, found in (figures.get("traces") or {}).items()
        },
        pictures=_media(folder, "reconstruction.png", 1, "Held-out frames and their reconstructions"),
        films=[
            *_media(folder, "rollout-*.mp4", _MOST_FILMS, "rollout"),
            *_media(folder, "cloning-*.mp4", _MOST_PLAYED, "cloning, in the game"),
            *_media(folder, "imagination-*.mp4", _MOST_PLAYED, "imagination, in the game"),
        ],
    )


def _player(row: Mapping[str, Any]) -> PlayerRow:
    return PlayerRow(
        player=str(row["player"]),
        learned=bool(row["learned"]),
        episodes=int(row["return"]["n"]),
        success={str(task): _estimate(x) for task, x in row["success"].items()},
        episode_return=_estimate(row["return"]),
        length=_estimate(row["length"]),
    )


def _trace(episode: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "number": int(episode["number"]),
        "rewards": [float(x) for x in episode["rewards"]],
        "values": [float(x) for x in episode["values"]],
        "events": {str(task): int(step) for task, step in episode["events"].items()},
    }


def _estimate(plain: Mapping[str, Any]) -> Estimate:
    """Inverse of `Estimate.to_json`."""
    value, low, high = (
        float("nan") if plain[x] is None else float(plain[x]) for x in ("value", "low", "high")
    )
    return Estimate(value, low, high, int(plain["n"]))


def _media(folder: Path, pattern: str, most: int, caption: str) -> list[Media]:
    """The first files of the run's media/ of a pattern, embedded whatever their size up to `EMBEDDED_BYTES`."""
    found = []
    for path in sorted((folder / "media").glob(pattern))[:most]:
        try:
            media = Media.stored(path, f"{caption}: {path.stem}" if "*" in pattern else caption)
        except OSError:
            continue
        if media.content is not None:  # the page stands alone: longer films stay where they are
            found.append(media)
    return found
