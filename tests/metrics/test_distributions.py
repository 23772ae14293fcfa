"""Distances between feature sets: closed forms, definitions by loops, and torch-fidelity."""

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from scipy.spatial.distance import cdist

from dbae_jax.errors import DataError
from dbae_jax.metrics import distributions
from dbae_jax.metrics.distributions import classifier_score, kernel_distance, precision_recall
from dbae_jax.metrics.frechet import Moments, MomentsOfBatches, frechet_distance, moments
from tests.helpers import metric_goldens, peers


@pytest.fixture(scope="module")
def sets():
    return metric_goldens.features()


def _covariance(rng, width, count):
    x = rng.standard_normal((count, width))
    return x.T @ x / count


def test_frechet_distance_of_gaussians_with_common_axes():
    """Sum over axes of (m - n)^2 + (s - t)^2, in any rotation of space."""
    rng = np.random.default_rng(0)
    m, n, s, t = rng.uniform(0.5, 3, (4, 6))
    rotation = scipy.stats.ortho_group.rvs(6, random_state=1)
    x = Moments(10, rotation @ m, rotation @ np.diag(s**2) @ rotation.T)
    y = Moments(10, rotation @ n, rotation @ np.diag(t**2) @ rotation.T)
    want = np.sum((m - n) ** 2 + (s - t) ** 2)
    assert frechet_distance(x, y) == pytest.approx(want, rel=1e-12)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-12)
    point = Moments(10, rotation @ n, np.zeros((6, 6)))
    assert frechet_distance(x, point) == pytest.approx(np.sum((m - n) ** 2 + s**2))


@pytest.mark.parametrize(("count", "tolerance"), [(200, 1e-11), (20, 1e-6)])
def test_frechet_distance_has_the_trace_of_the_matrix_square_root(count, tolerance):
    """Of full rank, and of fewer features than dimensions."""
    rng = np.random.default_rng(2)
    x, y = (Moments(count, rng.standard_normal(40), _covariance(rng, 40, count)) for _ in range(2))
    eigenvalues = scipy.linalg.eigvals(x.covariance @ y.covariance)
    shared = np.sqrt(eigenvalues.real.clip(min=0)).sum()
    want = np.sum((x.mean - y.mean) ** 2) + np.trace(x.covariance + y.covariance) - 2 * shared
    assert frechet_distance(x, y) == pytest.approx(want, rel=tolerance)
    if count > 40:
        root = scipy.linalg.sqrtm(x.covariance @ y.covariance)
        assert np.trace(root).real == pytest.approx(shared, rel=tolerance)


def test_moments_of_batches_are_those_of_the_whole(sets):
    """For batches of any size, and far from the origin."""
    features = np.float64(sets[0]) + 1e6
    batches = MomentsOfBatches(12)
    for batch in (features[:1], features[1:300], features[300:]):
        batches.update(batch)
    for found in (batches.result(), moments(features)):
        assert found.count == 500
        np.testing.assert_allclose(found.mean, features.mean(axis=0), rtol=1e-13)
        np.testing.assert_allclose(found.covariance, np.cov(features, rowvar=False), rtol=1e-7)


def test_kernel_distance_is_unbiased():
    """As defined, and 0 on average for two sets of one distribution."""
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((5, 4)), rng.standard_normal((5, 4)) + 0.5
    kernel = lambda a, b: (a @ b / 4 + 1) ** 3  # noqa: E731
    pairs = [(i, j) for i in range(5) for j in range(5) if i != j]
    within = [np.mean([kernel(a[i], a[j]) for i, j in pairs]) for a in (x, y)]
    want = sum(within) - 2 * np.mean([kernel(a, b) for a in x for b in y])
    got = kernel_distance(x, y, subsets=2, subset_size=5)
    assert got.mean == pytest.approx(want) and got.std == pytest.approx(0, abs=1e-12)
    same = rng.standard_normal((2, 3000, 4))
    found = kernel_distance(*same, subsets=60, subset_size=100)
    assert abs(found.mean) < 4 * found.std / np.sqrt(30)


def test_the_kernel_distance_of_pairs_is_unbiased():
    """Images and their exact reconstructions have the distance 0, not a negative one."""
    x = np.random.default_rng(4).standard_normal((200, 4))
    found = kernel_distance(x, x, subsets=400, subset_size=100, paired=True)
    biased = kernel_distance(x, x, subsets=400, subset_size=100)
    assert biased.mean < -0.05 and abs(found.mean) < 0.3 * abs(biased.mean)
    with pytest.raises(DataError, match="202 rows or more, got 200"):
        kernel_distance(x, x, subset_size=101, paired=True)


def test_precision_and_recall_follow_their_definition(sets):
    generated, real = (s[:150] for s in sets)

    def fraction(x, manifold):
        radii = np.sort(cdist(manifold, manifold), axis=1)[:, 3]  # column 0: itself
        return np.mean([any(d <= radii) for d in cdist(x, manifold)])

    got = precision_recall(generated, real)
    assert got.precision == pytest.approx(fraction(generated, real))
    assert got.recall == pytest.approx(fraction(real, generated))
    assert 0.2 < got.precision < 0.9


def test_precision_and_recall_of_known_sets(sets):
    _, real = sets
    same = precision_recall(real, real)
    assert (same.precision, same.recall) == (1, 1)
    away = precision_recall(real + 100, real)
    assert (away.precision, away.recall) == (0, 0)
    collapsed = precision_recall(np.repeat(real[:1], 50, axis=0), real)
    assert collapsed.precision == 1 and collapsed.recall <= 2 / len(real)
    # Points on a line, 1 apart: the third neighbour is at distance 2, at the ends of the line 3.
    line = np.arange(10.0)[:, None]
    border = precision_recall(np.array([[12.0], [-3.0], [12.1], [-3.1]]), line)
    assert border.precision == 0.5
    assert precision_recall(np.array([[10.0], [10.5], [99.0]]), line, k=1).precision == 1 / 3
    far = [np.float64(s) + 1e7 for s in sets]  # a distant origin costs no digits
    assert precision_recall(*far) == precision_recall(*sets)


def test_blocks_do_not_change_precision_and_recall(sets, monkeypatch):
    whole = precision_recall(*sets)
    monkeypatch.setattr(distributions, "BLOCK", 7)
    assert precision_recall(*sets) == whole


def test_classifier_score_of_known_logits():
    assert classifier_score(np.full((50, 8), 3.0)).mean == pytest.approx(1)
    sure = 1e4 * np.tile(np.eye(8), (10, 1))
    alone = classifier_score(sure, splits=1)
    assert alone.mean == pytest.approx(8) and alone.std == 0
    never = np.pad(sure, [(0, 0), (0, 1)], constant_values=-1e4)  # a class without images
    assert classifier_score(never, splits=1).mean == pytest.approx(8)
    in_order = classifier_score(1e4 * np.eye(8).repeat(10, axis=0), splits=4, shuffle_seed=None)
    assert in_order.mean == pytest.approx(2)


def _ours(sets):
    fid = frechet_distance(*(moments(s) for s in sets))
    kid = kernel_distance(*sets, subsets=7, subset_size=200)
    both = precision_recall(*sets)
    isc = classifier_score(metric_goldens.logits())
    return {
        "frechet": [fid],
        "kernel": [kid.mean, kid.std],
        "precision_recall": [both.precision, both.recall],
        "classifier": [isc.mean, isc.std],
    }


def test_golden_numbers_of_torch_fidelity(sets):
    golden = metric_goldens.read()
    for name, values in _ours(sets).items():
        tolerance = 1e-6 if name == "precision_recall" else 1e-9  # theirs are float32
        np.testing.assert_allclose(values, golden[name], rtol=tolerance, err_msg=name)


def test_the_golden_numbers_are_torch_fidelitys():
    torch = peers.torch_with_vision()
    pytest.importorskip("torch_fidelity")
    golden = metric_goldens.read()
    for name, values in metric_goldens.of_distributions(torch).items():
        np.testing.assert_allclose(values, golden[name], rtol=1e-9, err_msg=name)


def test_features_that_cannot_be_compared_are_refused(sets):
    generated, real = sets
    broken = generated.copy()
    broken[[3, 5], 0] = np.nan
    few = MomentsOfBatches(12)
    few.update(generated[:1])
    for call, words in (
        (lambda: precision_recall(broken, real), "generated features hold NaN .* 2 rows.* row 3"),
        (lambda: precision_recall(generated[:3], real), "4 rows or more, got 3"),
        (lambda: precision_recall(generated[:, :5], real), "same width, got 5 and 12"),
        (lambda: precision_recall(generated, real, k=0), "k >= 1"),
        (lambda: kernel_distance(generated, real), "1000 rows or more, got 500"),
        (lambda: moments(broken), "NaN"),
        (lambda: moments(generated[0]), r"\[N, D\]"),
        (few.result, "two images or more, got 1"),
        (lambda: few.update(generated[:, :4]), r"\[B, 12\]"),
        (lambda: frechet_distance(moments(generated[:, :4]), moments(real)), "same width"),
        (lambda: classifier_score(metric_goldens.logits()[:5]), "10 rows or more, got 5"),
        (lambda: classifier_score(metric_goldens.logits(), splits=0), "at least one split"),
    ):
        with pytest.raises(DataError, match=words):
            call()
