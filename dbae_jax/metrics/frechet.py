"""The Frechet distance between Gaussians fitted to features, and moments of features in batches."""

import dataclasses

import numpy as np

from dbae_jax.errors import DataError, TooFewError
from dbae_jax.metrics import checks


@dataclasses.dataclass(frozen=True)
class Moments:
    """Mean [D] and unbiased covariance [D, D] of `count` feature vectors, float64."""

    count: int
    mean: np.ndarray
    covariance: np.ndarray


class MomentsOfBatches:
    """Moments of features that arrive in batches, without keeping the features.

    The sums are about the running mean, so features far from 0 lose no digits.

    Source: Chan, Golub and LeVeque (1979).
    """

    def __init__(self, width: int):
        self._count = 0
        self._mean = np.zeros(width)
        self._scatter = np.zeros((width, width))

    def update(self, features: np.ndarray) -> None:
        """Adds a batch of features [B, D].

        Raises:
          DataError: if the width is different, or if a value is not finite.
        """
        features = checks.feature_matrix(features, "features", at_least=1)
        if features.shape[1] != len(self._mean):
            raise DataError(f"features must be [B, {len(self._mean)}], got {features.shape}.")
        count, mean = len(features), features.mean(axis=0)
        total = self._count + count
        centred, step = features - mean, mean - self._mean
        self._scatter += centred.T @ centred
        self._scatter += np.outer(step, step) * (self._count * count / total)
        self._mean = self._mean + step * (count / total)
        self._count = total

    def result(self) -> Moments:
        """Returns the moments of all features so far.

        Raises:
          TooFewError: if there are fewer than two features.
        """
        if self._count < 2:
            raise TooFewError(f"a covariance needs two images or more, got {self._count}.")
        return Moments(self._count, self._mean, self._scatter / (self._count - 1))


def moments(features: np.ndarray) -> Moments:
    """Returns the moments of features [N, D]."""
    batches = MomentsOfBatches(checks.feature_matrix(features, "features").shape[1])
    batches.update(features)
    return batches.result()


def frechet_distance(x: Moments, y: Moments) -> float:
    """Returns |m_x - m_y|^2 + tr(S_x + S_y - 2 (S_x S_y)^(1/2)).

    S_x S_y has the eigenvalues of the symmetric matrix S_x^(1/2) S_y S_x^(1/2), so only symmetric
    matrices need a square root. There may be fewer features than dimensions. The distance is then
    far too large, and depends on the number of features.

    The network that computed the features decides what the number may be called; see `generation`.

    Raises:
      DataError: if the moments have different widths, or if a value is not finite.

    Source: Dowson and Landau (1982).
    """
    if x.mean.shape != y.mean.shape:
        raise DataError(f"moments must have the same width, got {len(x.mean)} and {len(y.mean)}.")
    for values in (x.mean, x.covariance, y.mean, y.covariance):
        if not np.isfinite(values).all():
            raise DataError("the moments contain values that are not finite.")
    values, vectors = np.linalg.eigh(x.covariance)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    product = root @ y.covariance @ root
    shared = np.sqrt(np.linalg.eigvalsh((product + product.T) / 2).clip(min=0)).sum()
    mean = np.sum((x.mean - y.mean) ** 2)
    return float(mean + np.trace(x.covariance) + np.trace(y.covariance) - 2 * shared)
