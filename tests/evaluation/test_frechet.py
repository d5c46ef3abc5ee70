"""The Frechet distance against closed forms and scipy, its statistics against numpy."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from reverie.evaluation.frechet import FeatureStatistics, frechet_distance


def gaussian(mean: np.ndarray, covariance: np.ndarray) -> FeatureStatistics:
    statistics = FeatureStatistics(len(mean), n=2)
    statistics.mean, statistics.scatter = np.asarray(mean, np.float64), np.asarray(covariance, np.float64)
    return statistics


def spd(rng: np.random.Generator, size: int) -> np.ndarray:
    x = rng.normal(size=(size, 2 * size))
    return x @ x.T / size


@pytest.mark.parametrize("batches", [[200], [1] * 200, [3, 0, 97, 1, 99]])
def test_streamed_statistics_are_numpys(batches: list[int]) -> None:
    x = np.random.default_rng(0).normal(1e4, 3.0, size=(200, 7)) @ np.diag([1, 2, 3, 1e-3, 5, 6, 7])
    statistics = FeatureStatistics(7)
    for part in np.split(x, np.cumsum(batches)[:-1]):
        statistics.add(part.astype(np.float64))
    assert statistics.n == 200
    np.testing.assert_allclose(statistics.mean, x.mean(0), rtol=1e-13)
    np.testing.assert_allclose(statistics.covariance, np.cov(x, rowvar=False), rtol=1e-8, atol=1e-12)


def test_a_covariance_needs_two_samples() -> None:
    statistics = FeatureStatistics(3)
    statistics.add(np.ones((1, 3)))
    with pytest.raises(ValueError, match="at least two"):
        _ = statistics.covariance


def test_one_dimension_is_the_closed_form() -> None:
    a, b = gaussian(np.array([1.0]), np.array([[4.0]])), gaussian(np.array([-2.0]), np.array([[9.0]]))
    assert frechet_distance(a, b) == pytest.approx(3.0**2 + (2.0 - 3.0) ** 2, abs=1e-12)


def test_covariances_with_common_axes_have_a_closed_form() -> None:
    rng = np.random.default_rng(1)
    axes, _ = np.linalg.qr(rng.normal(size=(50, 50)))
    a, b = rng.uniform(0.1, 5, 50), rng.uniform(0.1, 5, 50)
    means = rng.normal(size=(2, 50))
    found = frechet_distance(
        gaussian(means[0], axes @ np.diag(a) @ axes.T), gaussian(means[1], axes @ np.diag(b) @ axes.T)
    )
    expected = np.square(means[0] - means[1]).sum() + np.square(np.sqrt(a) - np.sqrt(b)).sum()
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("size", [2, 30, 400])
def test_it_is_scipys_square_root(size: int) -> None:
    rng = np.random.default_rng(size)
    a, b, means = spd(rng, size), spd(rng, size), rng.normal(size=(2, size))
    expected = np.square(means[0] - means[1]).sum() + np.trace(a + b - 2 * sqrtm(a @ b).real)
    found = frechet_distance(gaussian(means[0], a), gaussian(means[1], b))
    assert found == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(gaussian(means[1], b), gaussian(means[0], a)) == pytest.approx(found, rel=1e-9)


def test_singular_covariances_need_no_offset() -> None:
    a, b = np.diag([4.0, 0.0, 1.0]), np.diag([0.0, 9.0, 4.0])
    assert frechet_distance(gaussian(np.zeros(3), a), gaussian(np.zeros(3), b)) == pytest.approx(4 + 9 + 1)
    same = FeatureStatistics(30)
    same.add(np.random.default_rng(0).normal(size=(10, 30)))
    assert frechet_distance(same, same) == pytest.approx(0, abs=1e-6)
