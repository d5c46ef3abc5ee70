"""Figures with 95 % intervals.

Success rates have Wilson's, means Student's t, everything else the bootstrap. Episodes of one run and runs
of several seeds are different samples: an interval over episodes says how well one agent was measured, an
interval over seeds (of one figure per run) how well the method does, and `paired_difference` compares two
stages there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, nan, sqrt
from statistics import NormalDist

import numpy as np
from scipy import stats

Statistic = Callable[[np.ndarray], np.ndarray]
CONFIDENCE = 0.95
BOOTSTRAP_SAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A figure, its 95 % interval and the number of independent observations; nan where there are too few."""

    value: float
    low: float
    high: float
    n: int

    def to_json(self) -> dict[str, float | int | None]:
        """`{"value", "low", "high", "n"}`, with None for figures that are not finite (JSON has no nan)."""
        finite = {name: _finite(getattr(self, name)) for name in ("value", "low", "high")}
        return {**finite, "n": self.n}

    def text(self, digits: int = 2, scale: float = 1.0, signed: bool = False) -> str:
        """`0.85 [0.79, 0.90]`; `scale=100` writes rates as per cent, `signed` shows a plus."""
        if not np.isfinite(self.value):
            return "-"
        value = f"{self.value * scale:{'+' if signed else ''}.{digits}f}"
        if not np.isfinite([self.low, self.high]).all():
            return value
        return f"{value} [{self.low * scale:.{digits}f}, {self.high * scale:.{digits}f}]"


def success_rate(successes: Sequence[bool] | np.ndarray) -> Estimate:
    """The share of True with Wilson's score interval, which is right at 0 and at n successes too."""
    n, k = len(successes), int(np.sum(successes))
    if n == 0:
        return Estimate(nan, nan, nan, 0)
    p, z = k / n, NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # Exact at the ends, where rounding could otherwise leave p outside its own interval.
    return Estimate(p, 0.0 if k == 0 else centre - half, 1.0 if k == n else centre + half, n)


def rate_difference(a: Estimate, b: Estimate) -> Estimate:
    """The difference a - b of two success rates with Newcombe's hybrid score interval (1998, method 10).

    Unlike a t interval it keeps its width where both players always fail or always succeed. It takes the rates
    for independent; episodes in the same worlds make it a little too wide rather than too narrow.
    """
    value = a.value - b.value
    below = sqrt((a.value - a.low) ** 2 + (b.high - b.value) ** 2)
    above = sqrt((a.high - a.value) ** 2 + (b.value - b.low) ** 2)
    return Estimate(value, value - below, value + above, min(a.n, b.n))


def mean(values: Sequence[float] | np.ndarray) -> Estimate:
    """The mean with Student's t interval. One value has no interval."""
    x = np.asarray(values, np.float64)
    if len(x) < 2:
        return Estimate(float(x[0]) if len(x) else nan, nan, nan, len(x))
    half = stats.t.ppf((1 + CONFIDENCE) / 2, len(x) - 1) * x.std(ddof=1) / sqrt(len(x))
    return Estimate(float(x.mean()), float(x.mean() - half), float(x.mean() + half), len(x))


def bootstrap(rows: np.ndarray, statistic: Statistic, seed: int = 0) -> list[Estimate]:
    """Percentile intervals of `statistic` when whole rows are drawn again with replacement.

    rows       (n, ...) one row per independent observation (a clip); what belongs together stays together
    statistic  maps (n, ...) rows to (m,) figures
    Returns m estimates, the same for the same seed.
    """
    value = np.atleast_1d(statistic(rows))
    if len(rows) < 2:
        return [Estimate(float(v), nan, nan, len(rows)) for v in value]
    rng = np.random.default_rng(seed)
    draws = rng.integers(len(rows), size=(BOOTSTRAP_SAMPLES, len(rows)))
    drawn = np.stack([np.atleast_1d(statistic(rows[draw])) for draw in draws])
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
    figures = zip(value, low, high, strict=True)
    return [Estimate(float(v), float(a), float(b), len(rows)) for v, a, b in figures]


def paired_difference(a: Sequence[float], b: Sequence[float]) -> Estimate:
    """Mean of a - b with its t interval; a[i] and b[i] share a seed, and with it data and worlds."""
    if len(a) != len(b):
        raise ValueError(f"paired figures must come in pairs, got {len(a)} and {len(b)}")
    return mean(np.subtract(a, b, dtype=np.float64))


def differs(estimate: Estimate) -> bool:
    """The interval leaves zero out."""
    return bool(estimate.low > 0 or estimate.high < 0)


def _finite(value: float) -> float | None:
    return float(value) if -inf < value < inf else None
