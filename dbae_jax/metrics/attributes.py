"""Scores of predictions per attribute: average precision, AUROC, Pearson r and squared error.

Some attributes have no score, for example without positives or with a constant prediction. Their
entry in `values` is NaN. They are left out of the mean and counted.
"""

import dataclasses

import numpy as np
from scipy.stats import rankdata

from dbae_jax.errors import DataError
from dbae_jax.metrics import checks


@dataclasses.dataclass(frozen=True)
class AttributeScores:
    """Scores of K attributes. values: [K], NaN for attributes without a score."""

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
    """Returns the area under the step function of precision against recall, per attribute.

    Examples with equal scores are added together, as in scikit-learn. A column without positives
    has no score (scikit-learn returns 0).

    Args:
      labels: labels 0 or 1, [N, K].
      scores: an increasing function of the predicted probability, such as the logits, [N, K].

    Raises:
      DataError: if shapes or labels are wrong, if a score is not finite, or if no attribute has
        positives.
    """
    labels, scores = checks.labelled(labels, scores, "scores")
    _require_same_shape(labels, scores, "labels and scores")
    order = np.argsort(-scores, axis=0, kind="stable")
    labels, scores = (np.take_along_axis(a, order, axis=0) for a in (labels, scores))
    last_of_equals = np.ones(scores.shape, bool)
    last_of_equals[:-1] = scores[1:] != scores[:-1]
    ends = np.where(last_of_equals, np.arange(len(scores))[:, None], len(scores))
    ends = np.minimum.accumulate(ends[::-1], axis=0)[::-1]  # last row with the same score
    precision = np.take_along_axis(np.cumsum(labels, axis=0), ends, axis=0) / (ends + 1)
    return _scores(np.sum(labels * precision, axis=0), labels.sum(axis=0), "has positives")


def auroc(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Returns the area under the ROC curve of every score for every attribute.

    The area is the probability that a positive scores above a negative; equal scores count half.

    Args:
      labels: labels 0 or 1, [N, K].
      scores: scores to compare with the labels, [N, D].

    Returns:
      Areas [K, D], float64; NaN in the rows of constant attributes.

    Raises:
      DataError: if shapes or labels are wrong, or if a score is not finite.

    Source: Mann and Whitney (1947), computed from ranks.
    """
    labels, scores = checks.labelled(labels, scores, "scores")
    positives = labels.sum(axis=0)[:, None].astype(np.float64)
    rank_sums = labels.T.astype(np.float64) @ rankdata(scores, axis=0)
    above = rank_sums - positives * (positives + 1) / 2
    with np.errstate(invalid="ignore"):
        return above / (positives * (len(labels) - positives))


def pearson(predicted: np.ndarray, target: np.ndarray) -> AttributeScores:
    """Returns the linear correlation of predictions and targets, per attribute.

    A column has no score if its predictions or targets are constant up to rounding.

    Args:
      predicted: predicted values, [N, K].
      target: true values, [N, K].

    Raises:
      DataError: if the shapes differ, if a value is not finite, or if all columns are constant.
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
    """Returns the mean squared error of each attribute, in the square of the attribute's unit.

    Args:
      predicted: predicted values, [N, K].
      target: true values, [N, K].

    Raises:
      DataError: if the shapes differ, or if a value is not finite.
    """
    predicted, target = _regression_pair(predicted, target)
    return AttributeScores(np.mean((predicted - target) ** 2, axis=0))


def _scores(above: np.ndarray, below: np.ndarray, needed: str) -> AttributeScores:
    """Returns above / below [K], NaN where `below` is 0; raises DataError if it is 0 everywhere."""
    if not np.any(below):
        raise DataError(f"none of the {len(below)} attributes {needed}; there is no score.")
    return AttributeScores(
        np.divide(above, below, out=np.full(len(below), np.nan), where=below > 0)
    )


def _require_same_shape(x: np.ndarray, y: np.ndarray, names: str) -> None:
    if x.shape != y.shape:
        raise DataError(
            f"{names} must have the same shape [N, K], got {list(x.shape)} and {list(y.shape)}."
        )


def _regression_pair(predicted: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pair = checks.feature_pair(predicted, target, ("predictions", "targets"))
    _require_same_shape(*pair, "predictions and targets")
    return pair
