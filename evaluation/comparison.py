"""What `reverie report` compares: training runs and evaluations, and the page that shows them side by side.

Reading is `pipelines.scoring.comparing`'s; here is what was read, typed, and how it is shown.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reverie.evaluation.charts import NAMES
from reverie.evaluation.report import Media, page_template
from reverie.evaluation.run_charts import MOST_PANELS, Line, horizon_lines, traces_chart, training_chart
from reverie.evaluation.statistics import Estimate

FILM_WIDTH = 420
_SPEEDS = ("steps_per_second", "frames_per_second", "memory_gb", "mfu")


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """A training stage's folder.

    rows        of metrics.jsonl: name -> [(step, value)], such as "train/loss"
    parameters  numbers in the newest checkpoint; None where there is none
    seconds     spent on training steps; None where no speed was logged
    """

    name: str
    kind: str
    rows: Mapping[str, Line]
    steps: int
    parameters: int | None
    seconds: float | None
    speeds: Mapping[str, float]
    precision: str
    data: str
    commit: str
    began: str
    command: str


@dataclass(frozen=True, kw_only=True)
class PlayerRow:
    """A player's score in a game."""

    player: str
    learned: bool
    episodes: int
    success: Mapping[str, Estimate]
    episode_return: Estimate
    length: Estimate


@dataclass(frozen=True, kw_only=True)
class EvaluatedRun:
    """An evaluation's folder, from its report.json; what it did not measure is empty."""

    name: str
    title: str
    data: str
    commit: str
    time: str
    reconstruction: Mapping[str, Estimate] = field(default_factory=dict)
    windows: int = 0
    context: int = 0
    psnr: Mapping[str, Sequence[Estimate]] = field(default_factory=dict)
    averages: Mapping[str, float] = field(default_factory=dict)
    leads: Mapping[str, Estimate] = field(default_factory=dict)
    trust: Estimate | None = None
    drift: str | None = None
    agreements: Sequence[tuple[bool, str]] = ()
    task: str | None = None
    tasks: Sequence[str] = ()
    players: Sequence[PlayerRow] = ()
    traces: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    pictures: Sequence[Media] = ()
    films: Sequence[Media] = ()


@dataclass(frozen=True)
class Comparison:
    """Everything the page shows; `problems` has a sentence for each folder or file that could not be read."""

    trained: Sequence[TrainedRun]
    evaluated: Sequence[EvaluatedRun]
    problems: Sequence[str]

    def page(self) -> str:
        """The HTML, with everything inside it."""
        played = [run for run in self.evaluated if run.players]
        return page_template("comparison.html.j2").render(
            trained=self.trained,
            evaluated=self.evaluated,
            problems=self.problems,
            film_width=FILM_WIDTH,
            names=NAMES,
            training=self._training_charts(),
            horizon=horizon_lines({run.name: run.psnr for run in self.evaluated if run.psnr}),
            leads=_in_order(name for run in self.evaluated for name in run.leads),
            played=played,
            tasks=_in_order(task for run in played for task in run.tasks),
            traces={run.name: traces_chart(run.traces) for run in self.evaluated if run.traces},
            hours=_hours,
            count=_count,
        )

    def _training_charts(self) -> dict[str, str]:
        """Kind of run -> chart of everything that runs of this kind logged."""
        found = {}
        for kind in _in_order(run.kind for run in self.trained):
            runs = [run for run in self.trained if run.kind == kind and run.rows]
            names = _in_order(_base(name) for run in runs for name in run.rows if _is_shown(name))[
                :MOST_PANELS
            ]
            panels = {
                base: {
                    (run.name, part): run.rows[f"{part}/{base}"]
                    for run in runs
                    for part in ("train", "heldout")
                    if f"{part}/{base}" in run.rows
                }
                for base in names
            }
            if panels:
                found[kind] = training_chart(panels)
        return found


def _is_shown(name: str) -> bool:
    return name.startswith(("train/", "heldout/")) and not name.endswith(_SPEEDS)


def _base(name: str) -> str:
    return name.partition("/")[2]


def _in_order(names: Iterable[str]) -> list[str]:
    """The different ones, the first mention first."""
    return list(dict.fromkeys(names))


def _hours(seconds: float | None) -> str:
    """`3 h 05 min`, `4 min`, `12 s`."""
    if seconds is None:
        return "–"
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _count(number: float | None) -> str:
    """`1.52 M`."""
    if number is None:
        return "–"
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"
