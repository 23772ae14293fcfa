"""Scores of predictions, one an attribute: average precision, AUROC, Pearson r, squared error.

Attributes for which a score does not exist (no positives, a constant prediction) hold NaN in
`values`, do not enter the mean, and are counted.
"""

import dataclasses

import numpy as np
from scipy.stats import rankdata

from dbae_jax.errors import DataError
from dbae_jax.metrics import checks


@dataclasses.dataclass(frozen=True)
class AttributeScores:
    """Scores of K attributes. values: [K], NaN where the score does not exist."""

    values: np.ndarray

    @property
    def mean(self) -> float:
        """Mean over the attributes that have a score."""
        return float(np.nanmean(self.values))

    @property
    def excluded(self) -> int:
        """Number of attributes without a score."""
        return int(np.isnan(self.values).sum())


def average_precision(labels: np.ndarray, scores: np.ndarray) -> AttributeScores:
    """Returns the area under precision against recall as a step function, an attribute each.

    Examples of equal score enter together, as in scikit-learn; a column without positives has no
    score (scikit-learn gives 0).

    Args:
      labels: [N, K], 0 or 1.
      scores: [N, K], any monotonic function of the probability (logits).

    Raises:
      DataError: for other shapes or labels, scores not finite, or no attribute with positives.
    """
    labels, scores = _same_columns(*checks.labelled(labels, scores, "scores"))
    order = np.argsort(-scores, axis=0, kind="stable")
    labels, scores = (np.take_along_axis(a, order, axis=0) for a in (labels, scores))
    places = np.arange(len(scores))[:, None]
    last_of_equals = np.ones(scores.shape, bool)
    last_of_equals[:-1] = scores[1:] != scores[:-1]
    ends = np.where(last_of_equals, places, len(scores))
    ends = np.minimum.accumulate(ends[::-1], axis=0)[::-1]  # of the group that a row belongs to
    precision = np.take_along_axis(np.cumsum(labels, axis=0), ends, axis=0) / (ends + 1)
    return _scores(np.sum(labels * precision, axis=0), labels.sum(axis=0), "has positives")


def auroc(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Returns the area under the ROC curve of every score for every attribute.

    The probability that a positive scores above a negative, equal scores counting half.

    Args:
      labels: [N, K], 0 or 1.
      scores: [N, D].

    Returns:
      [K, D], float64; NaN in the rows of constant attributes.

    Raises:
      DataError: for other shapes or labels, or scores that are not finite.

    Source: Mann and Whitney (1947), by ranks.
    """
    labels, scores = checks.labelled(labels, scores, "scores")
    positives = labels.sum(axis=0)[:, None].astype(np.float64)
    rank_sums = labels.T.astype(np.float64) @ rankdata(scores, axis=0)
    above = rank_sums - positives * (positives + 1) / 2
    with np.errstate(invalid="ignore"):
        return above / (positives * (len(labels) - positives))


def pearson(predicted: np.ndarray, target: np.ndarray) -> AttributeScores:
    """Returns the linear correlation of predictions and targets, an attribute each.

    A column that is constant to rounding, in predictions or targets, has no score.

    Args:
      predicted: [N, K].
      target: [N, K].

    Raises:
      DataError: for different shapes, values not finite, or nothing but constant columns.
    """
    centred, norms = [], []
    for values in _regression_pair(predicted, target):
        mean = values.mean(axis=0)
        centred.append(values - mean)
        norm = np.linalg.norm(centred[-1], axis=0)
        constant = norm <= 1e-13 * np.sqrt(len(values)) * np.abs(mean)
        norms.append(np.where(constant, 0, norm))
    product, norm = np.sum(centred[0] * centred[1], axis=0), norms[0] * norms[1]
    return _scores(product, norm, "varies in predictions and targets")


def squared_error(predicted: np.ndarray, target: np.ndarray) -> AttributeScores:
    """Returns the mean squared error of each attribute, in the square of its own unit.

    Args:
      predicted: [N, K].
      target: [N, K].

    Raises:
      DataError: for different shapes, or values not finite.
    """
    predicted, target = _regression_pair(predicted, target)
    return AttributeScores(np.mean((predicted - target) ** 2, axis=0))


def _scores(above: np.ndarray, below: np.ndarray, needed: str) -> AttributeScores:
    if not np.any(below):
        raise DataError(f"none of the {len(below)} attributes {needed}; there is no score.")
    return AttributeScores(
        np.divide(above, below, out=np.full(len(below), np.nan), where=below > 0)
    )


def _same_columns(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if labels.shape != scores.shape:
        raise DataError(
            f"labels and scores must have one shape [N, K], "
            f"got {list(labels.shape)} and {list(scores.shape)}."
        )
    return labels, scores


def _regression_pair(predicted: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pair = checks.feature_pair(predicted, target, ("predictions", "targets"))
    if pair[0].shape != pair[1].shape:
        raise DataError(
            f"predictions and targets must have one shape [N, K], "
            f"got {list(pair[0].shape)} and {list(pair[1].shape)}."
        )
    return pair
