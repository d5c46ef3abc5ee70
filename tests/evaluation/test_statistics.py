"""Intervals against published values and closed forms."""

from math import isnan, sqrt

import numpy as np
import pytest

from reverie.evaluation.statistics import (
    Estimate,
    bootstrap,
    differs,
    mean,
    paired_difference,
    rate_difference,
    success_rate,
)


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_values_of_newcombe_1998_table_1(k: int, n: int, low: float, high: float) -> None:
    estimate = success_rate([True] * k + [False] * (n - k))
    assert (estimate.value, estimate.n) == (k / n, n)
    assert estimate.low == pytest.approx(low, abs=5e-5)
    assert estimate.high == pytest.approx(high, abs=5e-5)


@pytest.mark.parametrize(
    ("a", "b", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((10, 10), (0, 20), 0.6791, 1.0),
    ],
)
def test_rate_differences_are_those_of_newcombe_1998_method_10(
    a: tuple[int, int], b: tuple[int, int], low: float, high: float
) -> None:
    rates = [success_rate([True] * k + [False] * (n - k)) for k, n in (a, b)]
    difference = rate_difference(*rates)
    assert difference.value == pytest.approx(a[0] / a[1] - b[0] / b[1])
    assert difference.low == pytest.approx(low, abs=5e-5)
    assert difference.high == pytest.approx(high, abs=5e-5)


def test_wilson_keeps_its_ends() -> None:
    always = success_rate([True] * 20)
    assert (always.value, always.high) == (1.0, 1.0) and always.low == pytest.approx(1 - 0.1611, abs=5e-5)
    assert isnan(success_rate([]).value)


def test_mean_has_the_t_interval_of_the_textbook() -> None:
    values = [1.0, 2.0, 3.0, 4.0, 5.0]
    half = 2.776445 * sqrt(2.5) / sqrt(5)  # t(0.975, 4 degrees of freedom), from tables
    estimate = mean(values)
    assert estimate.value == 3.0
    assert estimate.low == pytest.approx(3 - half, abs=1e-5)
    assert estimate.high == pytest.approx(3 + half, abs=1e-5)


def test_one_value_has_no_interval() -> None:
    estimate = mean([2.0])
    assert estimate.value == 2.0 and isnan(estimate.low)
    assert estimate.to_json() == {"value": 2.0, "low": None, "high": None, "n": 1}
    assert estimate.text() == "2.00" and mean([]).text() == "-"


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    samples = rng.normal(1.0, 2.0, size=(1000, 12))
    covered = np.mean([e.low <= 1.0 <= e.high for e in map(mean, samples)])
    assert 0.93 < covered < 0.97


def test_bootstrap_agrees_with_the_normal_theory_and_is_deterministic() -> None:
    rows = np.random.default_rng(1).normal(size=(400, 3))
    estimates = bootstrap(rows, lambda r: r.mean(0), seed=3)
    assert estimates == bootstrap(rows, lambda r: r.mean(0), seed=3)
    for column, estimate in enumerate(estimates):
        theory = mean(rows[:, column])
        assert estimate.value == pytest.approx(theory.value)
        assert estimate.low == pytest.approx(theory.low, abs=0.02)
        assert estimate.high == pytest.approx(theory.high, abs=0.02)


def test_pairs_cancel_what_they_share() -> None:
    shared = np.array([0.1, 0.9, 0.4, 0.7, 0.2])
    gain = np.array([0.10, 0.12, 0.09, 0.11, 0.08])
    difference = paired_difference(list(shared + gain), list(shared))
    assert difference.value == pytest.approx(0.10)
    assert differs(difference) and not differs(Estimate(0.1, -0.1, 0.3, 5))
    with pytest.raises(ValueError, match="pairs"):
        paired_difference([1.0], [1.0, 2.0])


def test_text_reads_well() -> None:
    assert Estimate(0.85, 0.79, 0.901, 200).text(1, scale=100) == "85.0 [79.0, 90.1]"
