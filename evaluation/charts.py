"""Charts of the report as SVG text: horizon curves with their intervals, and players' success."""

import io
import re
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reverie.evaluation.curves import Curve
from reverie.evaluation.statistics import Estimate

COLOURS = {
    "model": "#d97706",
    "shuffled": "#7c3aed",
    "copy": "#64748b",
    "tokenizer": "#0f766e",
    "posterior": "#0f766e",
}
NAMES = {
    "model": "model",
    "shuffled": "shuffled actions",
    "copy": "copy last frame",
    "tokenizer": "tokenizer on the truth",
    "posterior": "posterior on the truth",
}
TITLES = {
    "psnr": "PSNR of the mean error, dB",
    "psnr_frame": "PSNR, mean over frames, dB",
    "ssim": "SSIM",
    "lpips": "LPIPS (lower is better)",
    "change": "Share of the change that is right",
    "right": "Frames with every tile right",
    "right_changing": "The same where a tile changes",
}
_INK = "#262a33"
STYLE = {
    "font.family": "sans-serif",
    "font.size": 10,
    "svg.fonttype": "none",
    "svg.hashsalt": "reverie",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#94a3b8",
    "axes.labelcolor": _INK,
    "text.color": _INK,
    "xtick.color": "#475569",
    "ytick.color": "#475569",
    "axes.grid": True,
    "grid.color": "#e2e8f0",
    "axes.axisbelow": True,
}


def horizon_chart(curves: Mapping[str, Mapping[str, Curve]]) -> str:
    """One panel per metric, one line per method over the horizon, with 95 % bands.

    `curves`: method or model -> metric -> curve.
    """
    metrics = list(next(iter(curves.values())))
    columns = 2
    rows = -(-len(metrics) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 3.3 * rows), layout="constrained")
        axes = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel()
        for axis, metric in zip(axes, metrics, strict=False):
            _draw_curves(axis, {name: found[metric] for name, found in curves.items()})
            axis.set_title(TITLES[metric], loc="left", fontsize=11, fontweight="bold")
        for axis in axes[len(metrics) :]:
            axis.set_axis_off()
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
        return svg(figure)


def trust_chart(expected: np.ndarray, error: np.ndarray) -> str:
    """A point per frame: PSNR as the signals let expect it, and as it is, in decibels."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5, 3.6), layout="constrained")
        axis = figure.subplots()
        axis.scatter(expected, error, s=7, color=COLOURS["model"], alpha=0.35, linewidths=0)
        ends = [min(expected.min(), error.min()), max(expected.max(), error.max())]
        axis.plot(ends, ends, color=COLOURS["copy"], linewidth=1)
        axis.set_xlabel("PSNR that the signals let expect, dB")
        axis.set_ylabel("true PSNR, dB")
        return svg(figure)


DRIFT = {
    "distance": "Distance to held-out latents",
    "sharpness": "Sharpness",
    "motion": "Change from frame to frame",
    "spread": "Difference between the videos",
}


def drift_chart(
    frames: Sequence[int], curves: Mapping[str, Sequence[float]], held_out: Mapping[str, float]
) -> str:
    """A panel per measure along a long rollout; dashed, its level in held-out video."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 5.2), layout="constrained")
        for axis, (name, title) in zip(figure.subplots(2, 2).ravel(), DRIFT.items(), strict=True):
            axis.plot(frames, curves[name], color=COLOURS["model"], linewidth=2, label="generated")
            axis.axhline(held_out[name], linestyle="--", color=COLOURS["tokenizer"], label="held-out video")
            axis.set_title(title, loc="left", fontsize=11, fontweight="bold")
            axis.set_ylim(bottom=0)
            axis.set_xlabel("generated frames")
        handles, labels = axis.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
        return svg(figure)


def success_chart(success: Mapping[str, Mapping[str, Estimate]], tasks: Sequence[str]) -> str:
    """Horizontal bars: per task, each player's success in per cent with its interval. `success`: player -> task."""
    players = list(success)
    height = 0.8 / len(players)
    with matplotlib.rc_context(STYLE):
        rows = min(0.28 * len(players), 0.7) * len(tasks)
        figure = Figure(figsize=(10, 0.9 + max(rows, 0.7)), layout="constrained")
        axis = figure.subplots()
        palette = matplotlib.colormaps["viridis"](np.linspace(0.15, 0.85, len(players)))
        for i, player in enumerate(players):
            estimates = [success[player][task] for task in tasks]
            values = [100 * e.value for e in estimates]
            errors = [
                [100 * (e.value - e.low) for e in estimates],
                [100 * (e.high - e.value) for e in estimates],
            ]
            places = np.arange(len(tasks)) + (i - (len(players) - 1) / 2) * height
            axis.barh(
                places, values, height * 0.86, xerr=errors, color=palette[i], label=player, ecolor="#475569"
            )
        axis.set_yticks(np.arange(len(tasks)), tasks)
        axis.invert_yaxis()
        axis.set_xlim(0, 102)
        axis.set_xlabel("episodes in which the task was accomplished, %")
        axis.grid(False, axis="y")
        figure.legend(loc="outside upper center", ncols=min(len(players), 5), frameon=False)
        return svg(figure)


def _draw_curves(axis: Axes, methods: Mapping[str, Curve]) -> None:
    others = matplotlib.colormaps["viridis"](np.linspace(0.15, 0.85, len(methods)))
    for i, (name, curve) in enumerate(methods.items()):
        steps = np.arange(1, len(curve) + 1)
        style, colour = "--" if name in ("tokenizer", "posterior") else "-", COLOURS.get(name, others[i])
        label = NAMES.get(name, name)
        axis.plot(steps, [e.value for e in curve], style, color=colour, label=label, linewidth=2)
        low, high = [e.low for e in curve], [e.high for e in curve]
        axis.fill_between(steps, low, high, color=colour, alpha=0.14, linewidth=0)
    axis.set_xlabel("frames after the context")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def svg(figure: Figure) -> str:
    """The figure as text, the same for the same figure."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "reverie"}):  # else its ids are random
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    text = buffer.getvalue()
    return re.sub(r"^.*?(?=<svg)", "", text, flags=re.S)
