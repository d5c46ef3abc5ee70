"""A chart of one figure over the variants of a sweep, as SVG text: means with their intervals, and every single run."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from reverie.evaluation.charts import COLOURS, STYLE, svg
from reverie.evaluation.statistics import Estimate


def variants_chart(
    title: str, estimates: Mapping[str, Estimate], points: Mapping[str, Sequence[float]]
) -> str:
    """One row a variant: a dot for each run, the mean as a bar mark, its interval where there are several.

    estimates, points: variant -> mean over runs, and the runs' figures.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 1.1 + 0.36 * len(estimates)), layout="constrained")
        axis = figure.subplots()
        for row, (variant, estimate) in enumerate(estimates.items()):
            runs = list(points[variant])
            axis.scatter(runs, [row] * len(runs), s=14, color=COLOURS["copy"], alpha=0.6, linewidths=0)
            if np.isfinite([estimate.low, estimate.high]).all():
                axis.plot([estimate.low, estimate.high], [row, row], color=COLOURS["model"], linewidth=2)
            axis.plot(estimate.value, row, "|", color=COLOURS["model"], markersize=13, markeredgewidth=2.5)
        axis.set_yticks(np.arange(len(estimates)), list(estimates))
        axis.set_ylim(len(estimates) - 0.4, -0.6)
        axis.grid(False, axis="y")
        axis.set_title(title, loc="left", fontsize=11, fontweight="bold")
        return svg(figure)
