"""The Frechet distance between two sets of features, taken for Gaussians (Dowson and Landau 1982); all in float64."""

from dataclasses import dataclass, field

import numpy as np


@dataclass
class FeatureStatistics:
    """Mean and covariance of D features, gathered batch by batch in constant memory (Chan, Golub, LeVeque 1979).

    scatter  (D, D), the sum over samples of the outer product of their deviations from the mean
    """

    dimensions: int
    n: int = 0
    mean: np.ndarray = field(init=False)
    scatter: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.mean = np.zeros(self.dimensions)
        self.scatter = np.zeros((self.dimensions, self.dimensions))

    def add(self, features: np.ndarray) -> None:
        """Counts (M, D) samples in."""
        x = np.asarray(features, np.float64)
        if not len(x):
            return
        mean = x.mean(0)
        shift, total = mean - self.mean, self.n + len(x)
        deviations = x - mean
        self.scatter += deviations.T @ deviations + np.outer(shift, shift) * (self.n * len(x) / total)
        self.mean = self.mean + shift * (len(x) / total)
        self.n = total

    @property
    def covariance(self) -> np.ndarray:
        """(D, D), with n - 1 in the denominator. Has full rank from D + 1 samples on."""
        if self.n < 2:
            raise ValueError(f"a covariance needs at least two samples, got {self.n}")
        return self.scatter / (self.n - 1)


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)) for means m and covariances S.

    S_a S_b has the eigenvalues of S_a^(1/2) S_b S_a^(1/2), which is symmetric: no complex roots, no offset for singular matrices.
    """
    root = _square_root(a.covariance)
    eigenvalues = np.linalg.eigvalsh(root @ b.covariance @ root)
    shared = np.sqrt(eigenvalues.clip(min=0)).sum()
    apart = np.square(a.mean - b.mean).sum() + np.trace(a.covariance) + np.trace(b.covariance)
    return float(max(apart - 2 * shared, 0.0))


def _square_root(covariance: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
