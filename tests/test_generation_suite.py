"""The evaluator of generated images: names, reasons, floors, protocols, and folders of samples."""

import dataclasses
import json

import numpy as np
import pytest

from dbae_jax import files
from dbae_jax.data import sources
from dbae_jax.errors import DataError, TooFewError
from dbae_jax.evaluators import generation
from dbae_jax.evaluators.label_net import LabelNet
from dbae_jax.images import save_image
from dbae_jax.metrics import generation as metric
from dbae_jax.metrics.networks import label_net as network
from dbae_jax.metrics.networks.inception import Outputs
from dbae_jax.metrics.networks.published import INCEPTION, FeatureNet, Origin
from dbae_jax.sample_files import batches
from tests import metric_goldens

PUBLISHED = Origin(INCEPTION, ("6726825d" + 56 * "0",))


def _colours(images):
    pool = np.float32(images).mean(axis=(1, 2)) / 255
    return Outputs(pool, 9 * pool)


def _net(origin=PUBLISHED, preparation="pytorch"):
    return FeatureNet(origin, 3, _colours, preparation)


def _look(images, net=None, name="some"):
    parts = np.array_split(images, 3)
    return generation.look(name, parts, net or _net(), batch_size=16)


@pytest.fixture(scope="module")
def images():
    return metric_goldens.images(16, 90), metric_goldens.images(8, 70)


@pytest.fixture(scope="module")
def judge():
    """A network that reads the label off the first pixel: 0 where it is dark, 1 where bright."""
    params = {k: np.zeros(v, np.float32) for k, v in network.shapes(16, 1, 2).items()}
    params["conv0.weight"][0, 0, 0, 0] = 1  # pixel (0, 0) at the first place
    params["conv0.bias"][0] = 1
    params["conv1.weight"][0, 0, 0, 0] = 1
    params["hidden.weight"][0, 0] = 4
    params["labels.weight"][0, 1] = 1
    params["labels.bias"][0] = 4
    return LabelNet("labelnet-first", "classes", ("0", "1"), (16, 16, 1), params, {})


def _pixels(bright, count):
    """Images of which the first `bright` are bright at the first pixel."""
    found = np.random.default_rng(bright).integers(0, 256, (count, 16, 16, 1)).astype(np.uint8)
    found[:, 0, 0] = 0
    found[:bright, 0, 0] = 255
    return found


def test_scores_of_published_weights_have_their_names(images):
    generated, real = (_look(some) for some in images)
    found = generation.inception_scores(generated, real)
    assert set(found) == {f"fd_{INCEPTION}", "kid", "precision", "recall", "inception_score"}
    want = metric.frechet_score(generated.statistics, real.statistics)
    assert found[f"fd_{INCEPTION}"]["value"] == want.value
    assert found[f"fd_{INCEPTION}"]["details"] == want.details
    assert found["recall"]["better"] == "higher"
    # 90 images make no subset of 1000.
    assert found["kid"]["value"] is None
    assert "needs 1000 rows or more, got 90" in found["kid"]["details"]["reason"]
    other = [_look(some, _net(Origin("colours"))) for some in images]
    found = generation.inception_scores(*other)
    assert set(found) == {
        f"{n}_colours" for n in ("fd", "kd", "precision", "recall", "classifier_score")
    }
    assert found["kd_colours"]["details"]["subset_size"] == 35


def test_a_protocol_is_kept_or_refused(images, monkeypatch):
    generated, real = (_look(some) for some in images)
    with pytest.raises(DataError, match="of 50000 generated and 50000 real images, got 90 and 70"):
        generation.inception_scores(generated, real, preset="diffae")
    with pytest.raises(DataError, match=r"50000 real images, here are 90 and 70: draw as many"):
        generation.check_preset("diffae", 90, 70)
    with pytest.raises(DataError, match="'best'; there are diffae"):
        generation.check_preset("best", 90, 70)
    generation.check_preset("", 90, 70)
    small = dataclasses.replace(metric.PRESETS["diffae"], generated=90, real=60)
    monkeypatch.setitem(metric.PRESETS, "diffae", small)
    generation.check_preset("diffae", 90, 70)
    seen = metric.preset_images(np.array_split(images[1], 4), "diffae", seed=1)
    found = generation.inception_scores(
        generated, generation.look("real", seen, _net()), preset="diffae"
    )
    assert found["fid"]["details"]["preset"] == "diffae" and "kid" in found
    assert found["fid"]["details"]["real_images"] == 60


def test_real_images_of_a_protocol_are_mirrored_where_it_says_so(images, monkeypatch):
    real = images[1]
    monkeypatch.setitem(
        metric.PRESETS, "diffae", dataclasses.replace(metric.PRESETS["diffae"], real=60)
    )
    seen = np.concatenate(list(metric.preset_images(np.array_split(real, 4), "diffae")))
    mirrored = (seen == real[:60, :, ::-1]).all(axis=(1, 2, 3))
    assert ((seen == real[:60]).all(axis=(1, 2, 3)) ^ mirrored).all()
    assert 18 < mirrored.sum() < 42
    again = np.concatenate(list(metric.preset_images([real], "diffae")))  # whatever the batches
    np.testing.assert_array_equal(seen, again)
    other = np.concatenate(list(metric.preset_images([real], "diffae", seed=1)))
    assert (seen != other).any()
    (plain,) = metric.preset_images([real], "adm")
    np.testing.assert_array_equal(plain, real)
    with pytest.raises(TooFewError, match="of 60 real images, there are 50"):
        list(metric.preset_images([real[:50]], "diffae"))


def test_too_few_images_and_nan_features_say_so(images):
    net = dataclasses.replace(_net(Origin("colours")), width=3)
    few = _look(images[0][:3], net)
    found = generation.inception_scores(few, _look(images[1], net))
    assert found["fd_colours"]["value"] is None
    assert found["fd_colours"]["details"]["reason"] == (
        "a Frechet distance of 3 features needs more images than features in each set, "
        "got 3 and 70."
    )
    assert found["precision_colours"]["value"] is None
    assert "4 rows or more, got 3" in found["precision_colours"]["details"]["reason"]
    assert "10 rows or more" in found["classifier_score_colours"]["details"]["reason"]
    torn = dataclasses.replace(net, apply=lambda x: Outputs(_colours(x).pool * np.nan, None))
    with pytest.raises(DataError, match="features hold NaN or infinity in 16 rows"):
        _look(images[0], torn)
    with pytest.raises(DataError, match="there are no drawn images"):
        generation.look("drawn", iter(()), net)


def test_grey_images_are_shown_as_grey_colours():
    grey = metric_goldens.images(16, 9)[..., :1]
    some = generation.look("grey", [grey], _net())
    np.testing.assert_allclose(some.statistics.features, _colours(grey.repeat(3, -1)).pool)


def test_class_frequencies_are_compared(judge):
    generated, real = _pixels(30, 100), _pixels(60, 120)
    labels = (np.arange(120) < 60).astype(int)
    sets = [_look(some, judge.features) for some in (generated, real)]
    found = generation.label_net_scores(*sets, judge, real, labels)
    distance = found["class_distance"]
    assert distance["value"] == pytest.approx(0.2) and distance["better"] == "lower"
    assert distance["details"]["generated"] == {"0": 70, "1": 30}
    assert distance["details"]["real"] == {"0": 60, "1": 60}
    # Pearson's statistic of the table with Yates's correction, by hand.
    table = np.array([[70, 30], [60, 60]])
    want = np.outer(table.sum(1), table.sum(0)) / table.sum()
    chi = (((np.abs(table - want) - 0.5) ** 2) / want).sum()
    assert distance["details"]["chi_square"] == pytest.approx(chi)
    assert distance["details"]["p_value"] < 0.01
    sure = 1 / (1 + np.exp(-4))
    assert found["confidence"]["value"] == pytest.approx(sure, abs=1e-6)
    assert found["confidence"]["details"]["on_real"]["accuracy"] == 1
    # 64 features of so simple a network: more than the images of a small set.
    assert found[f"fd_{judge.origin.net}"]["value"] is not None
    few = _look(generated[:60], judge.features)
    found = generation.label_net_scores(few, sets[1], judge, real, labels)
    assert (
        "needs more images than features" in (found[f"fd_{judge.origin.net}"]["details"]["reason"])
    )


def test_attribute_rates_are_compared(judge):
    attributes = dataclasses.replace(judge, kind="attributes", labels=("odd", "bright"))
    generated, real = _pixels(30, 100), _pixels(60, 120)
    sets = [_look(some, attributes.features) for some in (generated, real)]
    labels = np.stack([np.ones(120), np.arange(120) < 60], axis=1).astype(int)
    found = generation.label_net_scores(*sets, attributes, real, labels)
    assert found["class_distance"]["value"] == pytest.approx(0.1)
    assert found["class_distance"]["details"]["generated"] == {"odd": 1.0, "bright": 0.3}
    assert found["confidence"]["details"]["on_real"]["accuracies"]["bright"] == 1


def test_the_floor_is_of_real_images_alone(images):
    net = _net(Origin("colours"))
    real, other = _look(images[0], net), _look(images[1], net)
    halves = generation.noise_floor(real)["fd_colours_floor_halves"]
    assert halves["details"]["images"] == [45, 45] and halves["value"] > 0
    assert generation.noise_floor(real)["fd_colours_floor_halves"] == halves
    assert generation.noise_floor(real, seed=1)["fd_colours_floor_halves"] != halves
    found = generation.noise_floor(real, other, most=50)["fd_colours_floor"]
    assert found["details"]["images"] == [50, 90] and found["better"] is None
    whole = generation.noise_floor(real, other)["fd_colours_floor"]
    want = metric.frechet_score(other.statistics, real.statistics).value
    assert whole["value"] == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize("file_format", ["png", "npz"])
def test_drawn_images_are_read_back_in_order(tmp_path, monkeypatch, file_format):
    monkeypatch.setattr("dbae_jax.sample_files.SHARD", 4)
    drawn = sources.digits("test", 16).images[:11]
    with pytest.raises(DataError, match=r"holds no drawn images: samples.json there"):
        next(batches(tmp_path, 3))
    files.write_json(tmp_path / "samples.json", {"format": file_format, "seed": 0})
    if file_format == "png":
        for i, image in enumerate(drawn):
            save_image(tmp_path / f"{i:06d}.png", image)
        torn = tmp_path / "000005.png"
    else:
        for first, last in ((0, 3), (4, 5), (4, 7), (8, 10)):
            part = {"images": drawn[first : last + 1], "index": np.arange(first, last + 1)}
            files.write_npz(tmp_path / f"{first:06d}-{last:06d}.npz", part)
        torn = tmp_path / "000004-000007.npz"
    for count in (11, 6, 1):
        found = list(batches(tmp_path, count, shape=(16, 16, 1)))
        np.testing.assert_array_equal(np.concatenate(found), drawn[:count])
    with pytest.raises(DataError, match=r"not hold images 8 to 11 whole .* draw 12 images with"):
        list(batches(tmp_path, 12))
    with pytest.raises(DataError, match=r"uint8 \[16, 16, 1\], not uint8 \[16, 16, 3\]"):
        next(batches(tmp_path, 2, shape=(16, 16, 3)))
    torn.write_bytes(torn.read_bytes()[:60])
    with pytest.raises(DataError, match="images 4 to 7 whole"):
        list(batches(tmp_path, 11))
    (tmp_path / "samples.json").write_text(json.dumps({"format": "jpeg"}))
    with pytest.raises(DataError, match="in which of png, npz"):
        next(batches(tmp_path, 2))
