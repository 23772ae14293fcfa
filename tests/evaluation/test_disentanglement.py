"""The evaluator of disentanglement on codes that are understood, and on the shapes' factors."""

import numpy as np
import pytest

from dbae_jax.data import shapes
from dbae_jax.errors import DataError, TooFewError
from dbae_jax.evaluation import registry
from dbae_jax.evaluation.protocols.disentanglement import (
    Settings,
    attribute_scores,
    factor_scores,
    rotate,
    standardised,
)
from dbae_jax.evaluation.suites.disentanglement import SUITE
from dbae_jax.metrics.disentanglement import tad_of_folds
from tests.helpers import stubs

SMALL = Settings(rows=2000, rotations=3, dci_rows=400, trees=3)


@pytest.fixture(scope="module")
def known():
    """Factors and attributes of 2,400 shapes, and codes: the factors under a little noise."""
    factors = shapes.factors(0, np.arange(2400))
    noise = np.random.default_rng(0).standard_normal(factors.shape)
    return factors, shapes.attributes(factors), 3.0 * factors + 0.1 * noise


def test_true_factors_are_disentangled_and_rotated_ones_are_not(known):
    _, attributes, z = known
    found = attribute_scores(z, attributes, shapes.ATTRIBUTE_NAMES, SMALL)
    # Of what a single factor orders: shape 0 and 3, scale, x, angle, stripes, light 0 and 3. Hues
    # are circles that warm colours lie on both ends of, and the walls' pair is redundant.
    captured = {"round", "cross", "large", "left", "tilted", "striped", "bright", "dim"}
    assert captured <= found["attrs"]["details"]["captured"].keys()
    assert {"warm_wall", "red_wall", "matching"}.isdisjoint(found["attrs"]["details"]["captured"])
    assert all(found["attrs"]["details"]["captured"][name] == 5 for name in captured)
    assert len(found["tad"]["values"]) == 5 and len(found["tad_rotated"]["values"]) == 3
    assert found["tad"]["value"] > max(3, 4 * found["tad_rotated"]["value"])
    assert found["tad"]["details"]["rows"] == 2000
    large = found["tad"]["details"]["attributes"]["large"]
    assert large["best"] > 0.99 and large["gap"] > 0.4 and large["redundancy"] < 0.05
    want = [fold.tad for fold in tad_of_folds(z[:2000], attributes[:2000])]
    assert found["tad"]["value"] == pytest.approx(np.mean(want), rel=1e-12)
    assert found["tad"]["std"] == pytest.approx(np.std(want, ddof=1), rel=1e-9)


def test_factors_have_dimensions_to_themselves_or_do_not(known):
    factors, _, z = known
    train, test = (z[:2000], factors[:2000]), (z[2000:], factors[2000:])
    found = factor_scores(train, test, shapes.FACTOR_NAMES, SMALL)
    for name in ("mig", "dci_disentanglement", "dci_completeness", "dci_informativeness"):
        assert found[name]["value"] > 0.9, name
        assert found[f"{name}_rotated"]["value"] < 0.6, name
        assert (found[name]["better"], found[f"{name}_rotated"]["better"]) == ("higher", None)
    details = found["mig"]["details"]
    assert list(details["factors"]) == list(shapes.FACTOR_NAMES) and "left_out" not in details
    assert np.mean(list(details["factors"].values())) == pytest.approx(found["mig"]["value"])
    strongest = found["dci_disentanglement"]["details"]["strongest"]
    assert [v["dimension"] for v in strongest.values()] == list(range(9))
    assert found["dci_completeness"]["details"]["rows"] == [400, 400]


def test_constant_factors_and_attributes_are_left_out_and_named(known):
    factors, attributes, z = known
    still = factors.copy()
    still[:, 1] = 4
    some = slice(0, 4)
    pair = (z[:400, some], still[:400, some])
    found = factor_scores(pair, pair, shapes.FACTOR_NAMES[some], SMALL)
    assert found["mig"]["details"]["left_out"] == ["wall_hue"]
    assert list(found["mig"]["details"]["factors"]) == ["shape", "floor_hue", "object_hue"]
    with pytest.raises(TooFewError, match=r"two factors that vary; only 1 of 2 do in 400"):
        factor_scores((z[:400], still[:400, :2]), (z[:400], still[:400, :2]), ("a", "b"), SMALL)
    attributes = attributes.copy()
    attributes[:, 3] = 1
    found = attribute_scores(z, attributes, shapes.ATTRIBUTE_NAMES, SMALL)
    assert found["tad"]["details"]["excluded"] == 1
    assert found["tad"]["details"]["attributes"]["large"]["best"] is None


def test_rotation_keeps_distances_and_constants_are_standardised_to_0():
    z = np.random.default_rng(0).standard_normal((50, 6))
    rotated = rotate(z, 1)
    np.testing.assert_allclose(rotated @ rotated.T, z @ z.T, atol=1e-12)
    assert np.abs(rotated - rotate(z, 2)).max() > 0.1
    drawn = np.stack([rotate(np.eye(3), seed) for seed in range(2000)])
    # Every entry of a random rotation has mean 0 and mean square 1/3.
    np.testing.assert_allclose(drawn.mean(axis=0), 0, atol=0.05)
    np.testing.assert_allclose((drawn**2).mean(axis=0), 1 / 3, atol=0.03)
    found = standardised(np.column_stack([5 * z[:, 0] + 2, np.full(50, 7.0)]))
    np.testing.assert_allclose(found.std(axis=0), [1, 0], atol=1e-12)


def test_what_will_not_do_is_refused(known):
    _, attributes, z = known
    names = shapes.ATTRIBUTE_NAMES
    with pytest.raises(DataError, match=r"attributes must be \[N, 2\]"):
        attribute_scores(z, attributes, names[:2], SMALL)
    with pytest.raises(TooFewError, match="4 examples cannot be split into 5 folds"):
        attribute_scores(z[:4], attributes[:4], names, SMALL)
    with pytest.raises(DataError, match="NaN or infinity in 1 rows, first in row 3"):
        attribute_scores(np.where(np.arange(len(z))[:, None] == 3, np.nan, z), attributes, names)
    with pytest.raises(DataError, match="a single dimension"):
        attribute_scores(z[:, :1], attributes, names, SMALL)


def test_the_suite_measures_codes_where_it_can(known):
    factors, attributes, z = known
    images = stubs.images(np.clip(z[:, :8] / 30, -1, 1))
    parts = {"train": slice(0, 300), "test": slice(300, 500)}
    splits = {
        split: stubs.Data(
            images[rows], shapes.ATTRIBUTE_NAMES, attributes=attributes[rows], factors=factors[rows]
        )
        for split, rows in parts.items()
    }
    context = stubs.context(splits)
    assert SUITE.obstacle(context) is None and registry.SUITES["disentanglement"] is SUITE
    assert SUITE.settings(context)["images"] == [300, 200]
    measured = SUITE.measure(context)
    assert measured.counts == {"train": 300, "test": 200}
    assert {"tad", "attrs_rotated", "mig", "dci_completeness_rotated"} <= measured.scores.keys()
    assert measured.scores["mig"]["value"] > 2 * measured.scores["mig_rotated"]["value"]
    assert measured.scores["tad"]["details"]["attributes"].keys() == set(shapes.ATTRIBUTE_NAMES)

    digits = {s: stubs.Data(images[:9], label=np.arange(9)) for s in parts}
    assert "neither attributes nor factors" in SUITE.obstacle(stubs.context(digits))
    margins = {s: stubs.Data(images[:9], attributes=z[:9]) for s in parts}
    assert "are real numbers" in SUITE.obstacle(stubs.context(margins))
    assert "a single one" in SUITE.obstacle(stubs.context(splits, **{"model.latent_dim": 1}))
