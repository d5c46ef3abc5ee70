"""Charts that compare runs, as SVG text: what they logged, their error over the horizon, values along episodes."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reverie.evaluation.charts import COLOURS, STYLE, svg
from reverie.evaluation.statistics import Estimate

Line = Sequence[tuple[int, float]]
"""(step, value) in order."""
MOST_PANELS = 8
_MOST_POINTS = 400
_MOST_TRACES = 6


def training_chart(panels: Mapping[str, Mapping[tuple[str, str], Line]]) -> str:
    """A panel per metric: metric -> (run, "train" or "heldout") -> line. Thin: training; thick: held-out data."""
    runs = list(dict.fromkeys(run for found in panels.values() for run, _ in found))
    colours = dict(zip(runs, _palette(len(runs)), strict=True))
    with matplotlib.rc_context(STYLE):
        rows = -(-len(panels) // 2)
        figure = Figure(figsize=(10, 2.8 * rows + 0.4), layout="constrained")
        axes = figure.subplots(rows, 2, squeeze=False).ravel()
        for axis, (metric, lines) in zip(axes, panels.items(), strict=False):
            for (run, part), line in lines.items():
                _draw_line(axis, _thinned(line), colours[run], held_out=part == "heldout")
            axis.set_title(metric, loc="left", fontsize=11, fontweight="bold")
            axis.set_xlabel("step")
            if _spans_decades([value for line in lines.values() for _, value in line]):
                axis.set_yscale("log")
        for axis in axes[len(panels) :]:
            axis.set_axis_off()
        for run, colour in colours.items():
            axes[0].plot([], [], color=colour, linewidth=2, label=run)
        figure.legend(loc="outside lower center", ncols=min(len(runs), 3), frameon=False)
        return svg(figure)


def horizon_lines(curves: Mapping[str, Mapping[str, Sequence[Estimate]]]) -> str:
    """PSNR over the horizon: run -> method -> curve. Solid: the model; dashed: copying the last frame. Nothing without runs."""
    if not curves:
        return ""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 3.8), layout="constrained")
        axis = figure.subplots()
        for (run, methods), colour in zip(curves.items(), _palette(len(curves)), strict=True):
            for method, style in (("model", "-"), ("copy", "--")):
                if curve := methods.get(method):
                    steps = np.arange(1, len(curve) + 1)
                    label = run if method == "model" else None
                    axis.plot(steps, [e.value for e in curve], style, color=colour, label=label, linewidth=2)
                    if method == "model":
                        ends = [e.low for e in curve], [e.high for e in curve]
                        axis.fill_between(steps, *ends, color=colour, alpha=0.14, linewidth=0)
        axis.set_xlabel("frames after the context; dashed: the last true frame, copied")
        axis.set_ylabel("PSNR of the mean error, dB")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.legend(loc="outside lower center", ncols=min(len(curves), 3), frameon=False)
        return svg(figure)


def traces_chart(traces: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Value and reward along episodes: player -> episodes as `Traces.to_json` gives them. The first few are drawn."""
    episodes = [(player, episode) for player, found in traces.items() for episode in found][:_MOST_TRACES]
    if not episodes:
        return ""
    with matplotlib.rc_context(STYLE):
        rows = -(-len(episodes) // 2)
        figure = Figure(figsize=(10, 2.4 * rows + 0.4), layout="constrained")
        axes = figure.subplots(rows, 2, squeeze=False).ravel()
        for axis, (player, episode) in zip(axes, episodes, strict=False):
            _draw_trace(axis, episode)
            axis.set_title(
                f"{player}, episode {episode['number']}", loc="left", fontsize=11, fontweight="bold"
            )
        for axis in axes[len(episodes) :]:
            axis.set_axis_off()
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
        return svg(figure)


def _draw_trace(axis: Axes, episode: Mapping[str, Any]) -> None:
    rewards, values = episode["rewards"], episode["values"]
    axis.bar(np.arange(1, len(rewards) + 1), rewards, color=COLOURS["tokenizer"], width=0.8, label="reward")
    axis.plot(np.arange(len(values)), values, color=COLOURS["model"], linewidth=2, label="value")
    for i, (task, step) in enumerate(episode["events"].items()):
        axis.axvline(
            step, color=COLOURS["shuffled"], linewidth=1, linestyle=":", label="task" if not i else None
        )
        axis.text(step, axis.get_ylim()[1], task, fontsize=7, rotation=90, va="top", ha="right")
    axis.set_xlabel("step")


def _draw_line(axis: Axes, line: Line, colour: Any, *, held_out: bool) -> None:
    steps, values = [step for step, _ in line], [value for _, value in line]
    if held_out:
        axis.plot(steps, values, color=colour, linewidth=2.2, marker="o", markersize=3.5)
    else:
        axis.plot(steps, values, color=colour, linewidth=1, alpha=0.55)


def _spans_decades(values: Sequence[float]) -> bool:
    """Whether a logarithmic axis shows more: all above 0, and the largest fifty times the smallest."""
    finite = [value for value in values if np.isfinite(value)]
    return bool(finite) and min(finite) > 0 and max(finite) > 50 * min(finite)


def _thinned(line: Line) -> Line:
    """At most `_MOST_POINTS` finite points, evenly spread, with the last."""
    finite = [point for point in line if np.isfinite(point[1])]
    every = -(-len(finite) // _MOST_POINTS)
    return finite[::every] + finite[-1:] if finite else []


def _palette(n: int) -> list[Any]:
    """Colours of n runs: the report's own for one or two, then a scale that colour-blind people can tell."""
    if n <= 2:
        return [COLOURS["model"], COLOURS["tokenizer"]][:n]
    return list(matplotlib.colormaps["viridis"](np.linspace(0.05, 0.88, n)))
