"""Scores of generated images: their values with a known network, and their names."""

import dataclasses

import numpy as np
import pytest

from dbae_jax.errors import DataError
from dbae_jax.metrics import generation
from dbae_jax.metrics.distributions import classifier_score, kernel_distance, precision_recall
from dbae_jax.metrics.frechet import frechet_distance, moments
from dbae_jax.metrics.generation import ImageStatistics
from dbae_jax.metrics.networks.inception import Outputs
from dbae_jax.metrics.networks.published import INCEPTION, FeatureNet, Origin
from tests.helpers import metric_goldens

PUBLISHED = Origin(INCEPTION, ("6726825d" + 56 * "0",))


def _pool(images):
    return np.float32(images).mean(axis=(1, 2)) / 255


def _net(origin, preparation="pytorch"):
    """Returns a network whose features are mean colours, with scaled features as logits."""
    return FeatureNet(origin, 3, lambda x: Outputs(_pool(x), 9 * _pool(x)), preparation)


@pytest.fixture(scope="module")
def images():
    return metric_goldens.images(16, 90), metric_goldens.images(8, 70)


def _statistics(net, images, **options):
    found = []
    for some in images:
        found.append(ImageStatistics(net, keep_features=True, batch_size=8, **options))
        found[-1].update(some[:21])
        found[-1].update(some[21:])
    return found


def test_scores_are_those_of_the_features(images):
    """For batches that do not divide the number of images, and a network without a known name."""
    generated, real = _statistics(_net(Origin("colours"), "own"), images)
    x, y = (_pool(some) for some in images)
    np.testing.assert_allclose(generated.features, x)
    score = generation.frechet_score(generated, real)
    assert score.name == "fd_colours"
    assert score.value == pytest.approx(frechet_distance(moments(x), moments(y)), rel=1e-9)
    assert score.details == {
        "net": "colours",
        "weights_sha256": [],
        "preparation": "own",
        "generated_images": 90,
        "real_images": 70,
    }
    kernel = generation.kernel_score(generated, real, subset_size=50)
    want = kernel_distance(x, y, subset_size=50)
    assert (kernel.name, kernel.value, kernel.details["std"]) == ("kd_colours", want.mean, want.std)
    both = generation.precision_recall_scores(generated, real)
    assert [s.name for s in both] == ["precision_colours", "recall_colours"]
    assert tuple(s.value for s in both) == dataclasses.astuple(precision_recall(x, y))
    sure = generation.inception_score(generated)
    assert sure.name == "classifier_score_colours"
    assert sure.value == pytest.approx(classifier_score(9 * x).mean)


def test_well_known_names_are_for_published_weights(images):
    generated, real = _statistics(_net(PUBLISHED), images)
    assert generation.frechet_score(generated, real).name == f"fd_{INCEPTION}"
    assert generation.kernel_score(generated, real, subset_size=50).name == "kid"
    assert generation.inception_score(generated).name == "inception_score"
    both = generation.precision_recall_scores(generated, real)
    assert [s.name for s in both] == ["precision", "recall"]


def test_fid_follows_a_published_protocol_or_is_refused(images, monkeypatch):
    generated, real = _statistics(_net(PUBLISHED), images)
    own = _statistics(_net(Origin("colours")), images)
    with pytest.raises(DataError, match=r"published Inception .* alone, not of colours"):
        generation.fid(*own, "diffae")
    with pytest.raises(DataError, match=r"50000 generated and 50000 real images, got 90 and 70"):
        generation.fid(generated, real, "diffae")
    with pytest.raises(DataError, match=r"'adm' prepares images as 'tensorflow_1'.*'pytorch'"):
        generation.fid(generated, real, "adm")
    with pytest.raises(DataError, match=r"'best'; there are diffae, infodiff10k-clean, adm"):
        generation.fid(generated, real, "best")
    with pytest.raises(DataError, match=r"colours .* inception.*use one network"):
        generation.frechet_score(own[0], real)
    other = _statistics(_net(PUBLISHED, "tensorflow_1"), images)
    with pytest.raises(DataError, match="use one network"):
        generation.frechet_score(generated, other[1])

    small = dataclasses.replace(generation.PRESETS["diffae"], generated=90, real=70)
    monkeypatch.setitem(generation.PRESETS, "diffae", small)
    score = generation.fid(generated, real, "diffae")
    assert (score.name, score.details["preset"]) == ("fid", "diffae")
    assert score.details["weights_sha256"] == list(PUBLISHED.sha256)
    assert score.value == generation.frechet_score(generated, real).value


def test_presets_are_as_published():
    diffae, infodiff, adm = generation.PRESETS.values()
    assert (diffae.preparation, diffae.generated, diffae.real) == ("pytorch", 50_000, 50_000)
    assert diffae.random_flip and not (infodiff.random_flip or adm.random_flip)
    assert (infodiff.preparation, infodiff.generated) == ("pillow_bicubic", 10_000)
    assert (adm.preparation, adm.generated, adm.real) == ("tensorflow_1", 50_000, None)


def test_halves_split_each_pair_of_images_at_random(images):
    """For any batches; together the halves are all images."""
    net, found = _net(Origin("colours")), []
    for batches, size in (([images[0]], 50), (np.array_split(images[0], 11), 3)):
        statistics = ImageStatistics(net, keep_halves=True, batch_size=size)
        for batch in batches:
            statistics.update(batch)
        found.append(statistics.halves)
    pool = np.asarray(_pool(images[0]))
    chosen = np.array([generation._half(position) for position in range(90)])
    assert (chosen[::2] + chosen[1::2] == 1).all() and 10 < chosen[::2].sum() < 35
    for halves in found:
        for number, half in enumerate(halves):
            want = moments(pool[chosen == number])
            assert half.count == 45
            np.testing.assert_allclose(half.mean, want.mean, rtol=1e-6)
            np.testing.assert_allclose(half.covariance, want.covariance, rtol=1e-5, atol=1e-9)


def test_wrong_images_and_features_are_refused(images):
    net = _net(Origin("colours"))
    statistics = ImageStatistics(net)
    for wrong in (images[0] / 255, images[0][..., :1], images[0][:0], images[0][0]):
        with pytest.raises(DataError, match="uint8 images"):
            statistics.update(wrong)
    with pytest.raises(DataError, match="two images or more, got 0"):
        _ = statistics.moments
    statistics.update(images[0])
    with pytest.raises(DataError, match="no features of colours were kept"):
        _ = statistics.features
    silent = dataclasses.replace(net, apply=lambda x: Outputs(_pool(x), None))
    kept = ImageStatistics(silent, keep_features=True)
    kept.update(images[0])
    with pytest.raises(DataError, match="no logits of colours"):
        generation.inception_score(kept)
    broken = dataclasses.replace(net, apply=lambda x: Outputs(_pool(x) * np.nan, None))
    with pytest.raises(DataError, match="NaN"):
        ImageStatistics(broken).update(images[0])
