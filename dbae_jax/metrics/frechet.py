"""The Frechet distance of Gaussians fitted to features, and their moments, batch by batch."""

import dataclasses

import numpy as np

from dbae_jax.errors import DataError, TooFewError
from dbae_jax.metrics import checks


@dataclasses.dataclass(frozen=True)
class Moments:
    """Mean [D] and unbiased covariance [D, D] of `count` features, float64."""

    count: int
    mean: np.ndarray
    covariance: np.ndarray


class MomentsOfBatches:
    """Moments of features that come in batches, never held together.

    Sums are kept about the running mean, so nothing cancels however far the features are from 0.

    Source: Chan, Golub and LeVeque (1979).
    """

    def __init__(self, width: int):
        self._count = 0
        self._mean = np.zeros(width)
        self._scatter = np.zeros((width, width))

    def update(self, features: np.ndarray) -> None:
        """Takes a batch of features [B, D] in.

        Raises:
          DataError: for another width, or values that are not finite.
        """
        features = checks.feature_matrix(features, "features", at_least=1)
        if features.shape[1] != len(self._mean):
            raise DataError(f"features must be [B, {len(self._mean)}], got {features.shape}.")
        mean = features.mean(axis=0)
        centred = features - mean
        self._join(len(features), mean, centred.T @ centred)

    def merge(self, other: "MomentsOfBatches") -> None:
        """Takes in what another has seen: of another process, or another part of the data."""
        if other._mean.shape != self._mean.shape:
            raise DataError(f"widths {len(self._mean)} and {len(other._mean)} cannot be merged.")
        self._join(other._count, other._mean, other._scatter)

    def result(self) -> Moments:
        """Returns the moments of everything seen.

        Raises:
          TooFewError: if that is fewer than two features.
        """
        if self._count < 2:
            raise TooFewError(f"a covariance needs two images or more, got {self._count}.")
        return Moments(self._count, self._mean, self._scatter / (self._count - 1))

    def _join(self, count: int, mean: np.ndarray, scatter: np.ndarray) -> None:
        total = self._count + count
        if not count:
            return
        step = mean - self._mean
        self._scatter += scatter
        self._scatter += np.outer(step, step) * (self._count * count / total)
        self._mean = self._mean + step * (count / total)
        self._count = total


def moments(features: np.ndarray) -> Moments:
    """Returns the moments of features [N, D]."""
    batches = MomentsOfBatches(checks.feature_matrix(features, "features").shape[1])
    batches.update(features)
    return batches.result()


def frechet_distance(x: Moments, y: Moments) -> float:
    """Returns |m_x - m_y|^2 + tr(S_x + S_y - 2 (S_x S_y)^(1/2)).

    The eigenvalues of S_x S_y are those of the symmetric S_x^(1/2) S_y S_x^(1/2), so no square root
    of a matrix that is not symmetric is needed. Covariances of fewer features than dimensions are
    allowed; the distance is then far too large, and depends on the number of features.

    Whose features these are decides what the number may be called; see `generation`.

    Raises:
      DataError: for moments of different widths, or not finite.

    Source: Dowson and Landau (1982).
    """
    if x.mean.shape != y.mean.shape:
        raise DataError(f"moments must have one width, got {len(x.mean)} and {len(y.mean)}.")
    for values in (x.mean, x.covariance, y.mean, y.covariance):
        if not np.isfinite(values).all():
            raise DataError("moments hold values that are not finite.")
    values, vectors = np.linalg.eigh(x.covariance)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    product = root @ y.covariance @ root
    shared = np.sqrt(np.linalg.eigvalsh((product + product.T) / 2).clip(min=0)).sum()
    mean = np.sum((x.mean - y.mean) ** 2)
    return float(mean + np.trace(x.covariance) + np.trace(y.covariance) - 2 * shared)
