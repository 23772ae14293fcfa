"""TAD, MIG and DCI against loops over scikit-learn, closed forms, and known codes."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import mutual_info_score, roc_auc_score
from sklearn.model_selection import KFold
from sklearn.preprocessing import StandardScaler

from dbae_jax.errors import DataError
from dbae_jax.metrics import disentanglement
from dbae_jax.metrics.disentanglement import dci, mig, mutual_information, tad, tad_of_folds

RATES = np.array([0.05, 0.2, 0.4, 0.5, 0.6])


@pytest.fixture(scope="module")
def coded():
    """Returns codes with three of five attributes; the last two attributes are mostly equal."""
    rng = np.random.default_rng(0)
    y = rng.uniform(size=(1500, 5)) < RATES
    y[:, 4] = np.where(rng.uniform(size=len(y)) < 0.9, y[:, 3], y[:, 4])
    z = rng.standard_normal((len(y), 8))
    z[:, 0] += 3 * y[:, 1]
    z[:, 1] -= 4 * y[:, 2]
    z[:, 2] += 4 * y[:, 3]
    z[:, 3] = np.round(z[:, 3] + 0.5 * y[:, 0])  # ties
    return z, y


def _tad_by_loops(z, y):
    """Returns TAD and ATTRS by the definition, one attribute and one dimension at a time."""
    total, count = 0, 0
    for k in range(y.shape[1]):
        areas = sorted(
            max(roc_auc_score(y[:, k], column), roc_auc_score(y[:, k], -column)) for column in z.T
        )
        others = [mutual_info_score(y[:, k], y[:, j]) for j in range(y.shape[1]) if j != k]
        redundancy = max(others) / stats.entropy(np.bincount(y[:, k]))
        if areas[-1] >= 0.75 and redundancy <= 0.2:
            total, count = total + areas[-1] - areas[-2], count + 1
    return total, count


def test_tad_follows_its_definition(coded):
    z, y = coded
    measured = tad(z, y)
    total, count = _tad_by_loops(z, y)
    assert measured.tad == pytest.approx(total, rel=1e-12) and measured.attrs == count == 2
    # The code holds the last two attributes, but they are redundant: each explains the other.
    assert measured.best[3] > 0.95
    assert (measured.redundancy[3:] > 0.4).all() and (measured.redundancy[:3] < 0.05).all()
    np.testing.assert_array_equal(measured.captured, [False, True, True, False, False])


def test_tad_does_not_depend_on_sign_scale_or_order_of_dimensions(coded):
    z, y = coded
    moved = (z * np.array([-2, 1, 10, -0.5, 1, 1, 1, 1]) + 7)[:, ::-1]
    assert tad(moved, y).tad == pytest.approx(tad(z, y).tad, rel=1e-12)
    # With a copy of the best dimension, the gap is 0.
    copies = np.concatenate([z, z[:, :3]], axis=1)
    assert tad(copies, y).tad == 0 and tad(copies, y).attrs == 2


def test_constant_attributes_are_left_out_of_tad_and_counted(coded):
    z, y = coded
    more = np.concatenate([y, np.ones((len(y), 1)), np.zeros((len(y), 1))], axis=1)
    measured = tad(z, more)
    assert measured.excluded == 2 and measured.tad == tad(z, y).tad
    assert np.isnan(measured.redundancy[5:]).all()


def test_tad_of_folds_is_that_of_standardised_codes(coded):
    z, y = coded
    folds = KFold(5, shuffle=True, random_state=0).split(z)
    gaps = [tad(StandardScaler().fit_transform(z[kept]), y[kept]).tad for kept, _ in folds]
    got = tad_of_folds(z, y)
    assert [fold.tad for fold in got] == pytest.approx(gaps, rel=1e-12) and np.std(gaps) > 0
    assert [fold.attrs for fold in got] == 5 * [2]


@pytest.fixture(scope="module")
def factors():
    rng = np.random.default_rng(2)
    return np.stack([rng.integers(0, n, 1200) for n in (3, 4, 5)], axis=1)


def _rotated(factors):
    whitened = (factors - factors.mean(axis=0)) / factors.std(axis=0)
    return whitened @ stats.ortho_group.rvs(3, random_state=1)


def test_mutual_information_is_scikit_learns(factors):
    rng = np.random.default_rng(3)
    a = factors[:, 2] + (rng.uniform(size=len(factors)) < 0.3)
    assert mutual_information(a, factors[:, 2]) == pytest.approx(
        mutual_info_score(a, factors[:, 2]), rel=1e-12
    )


def test_mig_of_known_codes(factors):
    rng = np.random.default_rng(4)
    assert mig(factors, factors) > 0.98  # 1, except for chance correlations of independent factors
    assert mig(np.concatenate([factors, -2 * factors], axis=1), factors) == pytest.approx(0)
    assert mig(rng.standard_normal((len(factors), 6)), factors) < 0.02
    noisy = factors + 0.3 * factors.std(axis=0) * rng.standard_normal(factors.shape)
    assert mig(_rotated(factors), factors) < 0.3 < 0.5 < mig(noisy, factors) < 0.9


def test_mig_is_the_gap_over_the_entropy_by_hand():
    """For two bits: one dimension holds both bits, the other dimension only the first."""
    bits = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]).repeat(10, axis=0)
    z = np.stack([2 * bits[:, 0] + bits[:, 1], bits[:, 0]], axis=1)
    assert mig(z, bits) == pytest.approx((0 + 1) / 2)


def test_mig_divides_the_range_into_cells_of_equal_width():
    """For forty values in twenty cells: each cell is a class, so no information is lost."""
    value = np.arange(40).repeat(3)
    z = np.stack([0.1 * value - 7, np.zeros(120)], axis=1)
    assert mig(z, value[:, None] // 2) == pytest.approx(1)
    assert mig(z, value[:, None] // 2, bins=10) == pytest.approx(np.log(10) / np.log(20))


def test_dci_of_known_codes(factors):
    def measure(z):
        return dci(z[:800], factors[:800], z[800:], factors[800:], trees=5)

    exact = measure(factors)
    assert min(exact.disentanglement, exact.completeness) > 0.99 and exact.informativeness == 1
    assert exact.importance.shape == (3, 3)
    rotated = measure(_rotated(factors))
    assert max(rotated.disentanglement, rotated.completeness) < 0.6
    assert rotated.informativeness > 0.7
    doubled = measure(np.concatenate([factors, factors + 0.5 * (factors > 1)], axis=1))
    assert doubled.disentanglement > 0.99 > doubled.completeness


def test_dci_of_importances_follows_the_entropies():
    importance = np.array([[3.0, 0, 0], [0, 1, 1], [0, 0, 0], [1, 1, 0]])
    eps = 1e-11
    rows = 1 - stats.entropy(importance.T + eps, base=3)
    columns = 1 - stats.entropy(importance + eps, base=4)
    want = (
        rows @ importance.sum(axis=1) / importance.sum(),
        columns @ importance.sum(axis=0) / importance.sum(),
    )
    assert disentanglement.dci_of_importance(importance) == pytest.approx(want, rel=1e-12)
    assert disentanglement.dci_of_importance(np.eye(4)) == pytest.approx((1, 1))
    assert disentanglement.dci_of_importance(np.ones((4, 3))) == pytest.approx((0, 0), abs=1e-12)


def test_what_cannot_be_measured_is_refused(coded, factors):
    z, y = coded
    broken = z.copy()
    broken[0, 0] = np.nan
    for function, arguments, words in (
        (tad, (z[:, :1], y), "single dimension"),
        (tad, (broken, y), "first in row 0"),
        (tad, (z, np.ones_like(y)), "all 5 attributes are constant"),
        (tad, (z[:100], y), r"\[100, K\]"),
        (tad_of_folds, (z[:3], y[:3]), "3 examples cannot be split into 5"),
        (mig, (factors[:, :1], factors), "single dimension"),
        (mig, (factors, 0 * factors), "factor 0 of the codes is constant"),
        (mig, (factors, factors[:10]), r"\[1200, K\]"),
        (dci, (factors, factors, factors[:, :2], factors), "same dimensions"),
        (disentanglement.dci_of_importance, (np.zeros((2, 2)),), "above 0"),
    ):
        with pytest.raises(DataError, match=words):
            function(*arguments)
