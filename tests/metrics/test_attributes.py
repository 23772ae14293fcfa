"""Scores of attributes against scikit-learn and SciPy, and attributes without a score."""

import numpy as np
import pytest
from scipy.stats import pearsonr
from sklearn.metrics import average_precision_score, roc_auc_score

from dbae_jax.errors import DataError
from dbae_jax.metrics.attributes import auroc, average_precision, pearson, squared_error


@pytest.fixture(scope="module")
def attributes():
    """Labels of 2 to 60 percent positives, and scores with many ties in half of the columns."""
    rng = np.random.default_rng(0)
    labels = rng.uniform(size=(500, 6)) < np.array([0.02, 0.1, 0.2, 0.3, 0.45, 0.6])
    scores = rng.standard_normal(labels.shape) + labels
    scores[:, ::2] = np.round(scores[:, ::2])
    return labels, scores


def test_average_precision_is_scikit_learns(attributes):
    labels, scores = attributes
    want = [average_precision_score(a, b) for a, b in zip(labels.T, scores.T, strict=True)]
    got = average_precision(labels, scores)
    np.testing.assert_allclose(got.values, want, rtol=1e-14)
    assert got.mean == pytest.approx(np.mean(want)) and got.excluded == 0
    # By hand: the positives are at ranks 1 and 3, and in a tie of ranks 4 and 5.
    by_hand = average_precision(
        np.array([[1, 0, 1, 1, 0]]).T, np.array([[9.0, 8.0, 7.0, 1.0, 1.0]]).T
    )
    assert by_hand.mean == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)


def test_auroc_is_scikit_learns_for_every_pair(attributes):
    labels, scores = attributes
    want = [[roc_auc_score(a, b) for b in scores.T] for a in labels.T]
    np.testing.assert_allclose(auroc(labels, scores), want, rtol=1e-14)
    np.testing.assert_allclose(auroc(labels, -scores), 1 - np.array(want), rtol=1e-13)


def test_pearson_is_scipys_and_ignores_scale():
    rng = np.random.default_rng(1)
    target = rng.standard_normal((300, 4))
    predicted = target + np.array([0.1, 1, 3, 10]) * rng.standard_normal(target.shape)
    want = [pearsonr(a, b).statistic for a, b in zip(predicted.T, target.T, strict=True)]
    np.testing.assert_allclose(pearson(predicted, target).values, want, rtol=1e-13)
    moved = 3 - 1e3 * predicted
    np.testing.assert_allclose(pearson(moved, target).values, -np.array(want), rtol=1e-11)
    error = squared_error(predicted, target)
    assert error.mean == pytest.approx(np.mean((predicted - target) ** 2))
    assert error.values.shape == (4,)


def test_attributes_without_a_score_are_left_out_and_counted(attributes):
    labels, scores = attributes
    empty = labels.copy()
    empty[:, 2] = False
    got, whole = average_precision(empty, scores), average_precision(labels, scores)
    assert got.excluded == 1 and np.isnan(got.values[2])
    assert got.mean == pytest.approx(np.delete(whole.values, 2).mean())
    empty[:, 3] = True
    areas = auroc(empty, scores)
    assert np.isnan(areas[2:4]).all() and np.isfinite(np.delete(areas, [2, 3], axis=0)).all()

    predicted = scores.copy()
    predicted[:, 1] = 0.1  # its mean is not 0.1 to the last bit
    got = pearson(predicted, scores)
    assert got.excluded == 1 and np.isnan(got.values[1]) and got.mean == pytest.approx(1)


def test_inputs_without_any_score_are_refused(attributes):
    labels, scores = attributes
    broken = scores.copy()
    broken[7, 2] = np.nan
    for function, arguments, words in (
        (average_precision, (np.zeros_like(labels), scores), "none of the 6 attributes has pos"),
        (average_precision, (labels, broken), "1 rows, first in row 7"),
        (average_precision, (labels, scores[:, :3]), "same shape"),
        (average_precision, (2 * labels - 1, scores), "0 or 1"),
        (auroc, (labels[:100], scores), r"\[500, K\]"),
        (pearson, (np.ones((5, 2)), np.ones((5, 2))), "none of the 2 attributes varies"),
        (pearson, (scores[:1], scores[:1]), "2 rows or more"),
        (pearson, (scores, scores[:100]), "same shape"),
        (squared_error, (scores, scores[:, :2]), "same width"),
    ):
        with pytest.raises(DataError, match=words):
            function(*arguments)
