"""The evaluator of generated images: names, reasons, floors, protocols, and folders of samples."""

import dataclasses
import json
import types

import jax
import numpy as np
import pytest

from dbae_jax.configuration import sections
from dbae_jax.data import sources
from dbae_jax.data.images import save_image
from dbae_jax.errors import CheckpointError, ConfigError, DataError, TooFewError
from dbae_jax.evaluation import registry, results
from dbae_jax.evaluation.classifier import fit
from dbae_jax.evaluation.classifier.fit import FitSettings
from dbae_jax.evaluation.classifier.network import Classifier
from dbae_jax.evaluation.protocols import generation
from dbae_jax.evaluation.sample_files import batches
from dbae_jax.evaluation.suites.generation import SUITE, sampled_images
from dbae_jax.metrics import generation as metric
from dbae_jax.metrics.networks import classifier as network
from dbae_jax.metrics.networks import published
from dbae_jax.metrics.networks.inception import Outputs
from dbae_jax.metrics.networks.published import INCEPTION, FeatureNet, Origin
from dbae_jax.runtime import files
from tests.helpers import metric_goldens, stubs, tiny

PUBLISHED = Origin(INCEPTION, ("6726825d" + 56 * "0",))


def _colours(images):
    pool = np.float32(images).mean(axis=(1, 2)) / 255
    return Outputs(pool, 9 * pool)


def _net(origin=PUBLISHED, preparation="pytorch"):
    return FeatureNet(origin, 3, _colours, preparation)


def _image_set(images, net=None, name="some"):
    parts = np.array_split(images, 3)
    return generation.image_set(name, parts, net or _net(), batch_size=16)


@pytest.fixture(scope="module")
def images():
    return metric_goldens.images(16, 90), metric_goldens.images(8, 70)


@pytest.fixture(scope="module")
def classifier():
    """A network that reads the label off the first pixel: 0 where it is dark, 1 where bright."""
    params = {k: np.zeros(v, np.float32) for k, v in network.shapes(16, 1, 2).items()}
    params["conv0.weight"][0, 0, 0, 0] = 1  # pixel (0, 0) at the first place
    params["conv0.bias"][0] = 1
    params["conv1.weight"][0, 0, 0, 0] = 1
    params["hidden.weight"][0, 0] = 4
    params["labels.weight"][0, 1] = 1
    params["labels.bias"][0] = 4
    return Classifier("classifier-first", "classes", ("0", "1"), (16, 16, 1), params, {})


def _pixels(bright, count):
    """Images of which the first `bright` are bright at the first pixel."""
    found = np.random.default_rng(bright).integers(0, 256, (count, 16, 16, 1)).astype(np.uint8)
    found[:, 0, 0] = 0
    found[:bright, 0, 0] = 255
    return found


def test_scores_of_published_weights_have_their_names(images):
    generated, real = (_image_set(some) for some in images)
    found = generation.inception_scores(generated, real)
    assert set(found) == {f"fd_{INCEPTION}", "kid", "precision", "recall", "inception_score"}
    want = metric.frechet_score(generated.statistics, real.statistics)
    assert found[f"fd_{INCEPTION}"]["value"] == want.value
    assert found[f"fd_{INCEPTION}"]["details"] == want.details
    assert found["recall"]["better"] == "higher"
    # 90 images make no subset of 1000.
    assert found["kid"]["value"] is None
    assert "needs 1000 rows or more, got 90" in found["kid"]["details"]["reason"]
    other = [_image_set(some, _net(Origin("colours"))) for some in images]
    found = generation.inception_scores(*other)
    assert set(found) == {
        f"{n}_colours" for n in ("fd", "kd", "precision", "recall", "classifier_score")
    }
    assert found["kd_colours"]["details"]["subset_size"] == 35


def test_a_wrong_number_of_images_for_a_preset_is_refused(images, monkeypatch):
    generated, real = (_image_set(some) for some in images)
    with pytest.raises(DataError, match="50000 generated and 50000 real images, got 90 and 70"):
        generation.inception_scores(generated, real, preset="diffae")
    with pytest.raises(DataError, match=r"50000 real images, got 90 and 70; change"):
        generation.check_preset("diffae", 90, 70)
    with pytest.raises(DataError, match="'best'; there are diffae"):
        generation.check_preset("best", 90, 70)
    generation.check_preset("", 90, 70)
    small = dataclasses.replace(metric.PRESETS["diffae"], generated=90, real=60)
    monkeypatch.setitem(metric.PRESETS, "diffae", small)
    generation.check_preset("diffae", 90, 70)
    seen = metric.preset_images(np.array_split(images[1], 4), "diffae", seed=1)
    found = generation.inception_scores(
        generated, generation.image_set("real", seen, _net()), preset="diffae"
    )
    assert found["fid"]["details"]["preset"] == "diffae" and "kid" in found
    assert found["fid"]["details"]["real_images"] == 60


def test_real_images_are_mirrored_if_the_preset_asks_for_it(images, monkeypatch):
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
    with pytest.raises(TooFewError, match="needs 60 real images, got 50"):
        list(metric.preset_images([real[:50]], "diffae"))


def test_too_few_images_and_nan_features_say_so(images):
    net = dataclasses.replace(_net(Origin("colours")), width=3)
    few = _image_set(images[0][:3], net)
    found = generation.inception_scores(few, _image_set(images[1], net))
    assert found["fd_colours"]["value"] is None
    assert found["fd_colours"]["details"]["reason"] == (
        "The Frechet distance needs more images than features (3) in each set, got 3 and 70."
    )
    assert found["precision_colours"]["value"] is None
    assert "4 rows or more, got 3" in found["precision_colours"]["details"]["reason"]
    assert "10 rows or more" in found["classifier_score_colours"]["details"]["reason"]
    torn = dataclasses.replace(net, apply=lambda x: Outputs(_colours(x).pool * np.nan, None))
    with pytest.raises(DataError, match="features hold NaN or infinity in 16 rows"):
        _image_set(images[0], torn)
    with pytest.raises(DataError, match="There are no drawn images"):
        generation.image_set("drawn", iter(()), net)


def test_features_of_the_first_images_are_kept(images):
    """Moments are of all; single images are compared with the first ones."""
    net = _net(Origin("colours"))
    whole, some = _image_set(images[0], net), None
    parts = np.array_split(images[0], 4)
    some = generation.image_set("real", parts, net, most=30, batch_size=16).statistics
    np.testing.assert_array_equal(some.features, whole.statistics.features[:30])
    np.testing.assert_array_equal(some.logits, whole.statistics.logits[:30])
    assert some.moments.count == 90
    np.testing.assert_allclose(some.moments.mean, whole.statistics.moments.mean, rtol=1e-6)


def test_grey_images_are_shown_as_grey_colours():
    grey = metric_goldens.images(16, 9)[..., :1]
    some = generation.image_set("grey", [grey], _net())
    np.testing.assert_allclose(some.statistics.features, _colours(grey.repeat(3, -1)).pool)


def test_class_frequencies_are_compared(classifier):
    generated, real = _pixels(30, 100), _pixels(60, 120)
    labels = (np.arange(120) < 60).astype(int)
    sets = [_image_set(some, classifier.features) for some in (generated, real)]
    found = generation.classifier_scores(*sets, classifier, real, labels)
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
    assert found[f"fd_{classifier.origin.net}"]["value"] is not None
    few = _image_set(generated[:60], classifier.features)
    found = generation.classifier_scores(few, sets[1], classifier, real, labels)
    assert (
        "needs more images than features"
        in (found[f"fd_{classifier.origin.net}"]["details"]["reason"])
    )


def test_attribute_rates_are_compared(classifier):
    attributes = dataclasses.replace(classifier, kind="attributes", labels=("odd", "bright"))
    generated, real = _pixels(30, 100), _pixels(60, 120)
    sets = [_image_set(some, attributes.features) for some in (generated, real)]
    labels = np.stack([np.ones(120), np.arange(120) < 60], axis=1).astype(int)
    found = generation.classifier_scores(*sets, attributes, real, labels)
    assert found["class_distance"]["value"] == pytest.approx(0.1)
    assert found["class_distance"]["details"]["generated"] == {"odd": 1.0, "bright": 0.3}
    assert found["confidence"]["details"]["on_real"]["accuracies"]["bright"] == 1


def test_the_floor_is_of_real_images_alone(images):
    """The floor uses all real images, whether or not their features are kept."""
    net = _net(Origin("colours"))
    other, floors = _image_set(images[1], net), []
    for parts, most in ((3, None), (7, 9)):
        split = np.array_split(images[0], parts)
        real = generation.image_set("real", split, net, most=most, keep_halves=True, batch_size=16)
        floors.append(generation.noise_floor(real) | generation.noise_floor(real, other))
    halves, floor = (floors[0][f"fd_colours_floor{end}"] for end in ("_halves", ""))
    assert halves["details"]["images"] == [45, 45] and halves["value"] > 0
    assert floor["details"]["images"] == [70, 90] and floor["better"] is None
    for name, whole in floors[0].items():
        assert floors[1][name]["value"] == pytest.approx(whole["value"], rel=1e-6), name
        assert floors[1][name]["details"] == whole["details"]
    want = metric.frechet_score(other.statistics, real.statistics).value
    assert floor["value"] == pytest.approx(want, rel=1e-9)
    few = generation.image_set("real", [images[0][:3]], net, keep_halves=True)
    few = generation.noise_floor(few)["fd_colours_floor_halves"]
    assert few["value"] is None and "two images or more, got 1" in few["details"]["reason"]
    with pytest.raises(DataError, match="no halves of colours were kept"):
        generation.noise_floor(other)


@pytest.mark.parametrize("file_format", ["png", "npz"])
def test_sampled_images_are_read_in_order(tmp_path, monkeypatch, file_format):
    monkeypatch.setattr("dbae_jax.evaluation.sample_files.SHARD", 4)
    drawn = sources.digits("test", 16).images[:11]
    with pytest.raises(DataError, match=r"holds no sampled images: samples.json there"):
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
    with pytest.raises(DataError, match=r"not hold valid images 8 to 11 .* sample 12 images with"):
        list(batches(tmp_path, 12))
    with pytest.raises(DataError, match=r"uint8 \[16, 16, 1\], not uint8 \[16, 16, 3\]"):
        next(batches(tmp_path, 2, shape=(16, 16, 3)))
    torn.write_bytes(torn.read_bytes()[:60])
    with pytest.raises(DataError, match="valid images 4 to 7"):
        list(batches(tmp_path, 11))
    (tmp_path / "samples.json").write_text(json.dumps({"format": "jpeg"}))
    with pytest.raises(DataError, match="which of png, npz"):
        next(batches(tmp_path, 2))


class Generator(stubs.Model):
    """A model whose samples are noise in four blocks, which depends on the keys."""

    prior = types.SimpleNamespace(step=3, fingerprint="ba9876543210")

    def __init__(self, config):
        super().__init__(config)
        self.drawn = 0

    def sample(self, num, keys, **how):
        self.drawn += num
        blocks = jax.vmap(lambda key: jax.random.uniform(key, (2, 2, 1)))(keys)
        return 2 * np.asarray(blocks).repeat(8, axis=1).repeat(8, axis=2) - 1


@pytest.fixture
def context(tmp_path, monkeypatch):
    """Returns a function that makes a context of digits, with a classifier of one epoch."""
    quick = FitSettings(epochs=1)
    load_or_fit = fit.load_or_fit
    monkeypatch.setattr(fit, "load_or_fit", lambda *a, **k: load_or_fit(*a, **k, settings=quick))
    splits = {split: sources.digits(split, 16) for split in ("train", "test")}

    def make(model=Generator, **overrides):
        chosen = {"eval.num_generated": 70} | {f"eval.{k}": v for k, v in overrides.items()}
        model = model(tiny.config(**chosen))
        return stubs.context(splits, cache=tmp_path / "cache", model=model, **chosen)

    return make


def test_the_suite_samples_once_and_compares(context, tmp_path):
    """Two sets of images, which the next evaluation finds; more images draw the missing ones."""
    first = context(generated_sets=2)
    settings = SUITE.settings(first)
    assert settings["seeds"] == [0, 1] and settings["how"]["prior_steps"] == 5
    assert settings["real"] == [1437, 360] and "inception" not in settings
    measured = SUITE.measure(first)
    (name,) = (n[3:] for n in measured.scores if n.startswith("fd_") and "floor" not in n)
    assert name.startswith("classifier-digits-")
    expected = {f"{n}_{name}" for n in ("fd", "kd", "precision", "recall")} | {"sharpness_error"}
    expected |= {"confidence", "class_distance", f"fd_{name}_floor", f"fd_{name}_floor_halves"}
    assert measured.scores.keys() == expected and first.model.drawn == 140
    assert measured.counts == {"generated": 70, "test": 360}
    scores = measured.scores
    assert len(scores[f"fd_{name}"]["values"]) == len(scores["confidence"]["values"]) == 2
    assert scores[f"fd_{name}"]["value"] > 5 * scores[f"fd_{name}_floor"]["value"] > 0
    assert scores[f"fd_{name}_floor"]["details"]["images"] == [70, 360]
    folders = sorted((tmp_path / "cache").glob("generated_*"))
    assert [folder.name[-2:] for folder in folders] == ["_0", "_1"]

    again = context()
    one = SUITE.measure(again)
    assert again.model.drawn == 0 and "values" not in one.scores["confidence"]
    assert one.scores["confidence"]["value"] == scores["confidence"]["values"][0]
    more = context(num_generated=300)
    SUITE.measure(more)
    assert more.model.drawn == 300  # whole files are sampled: 256 images and 44
    few = SUITE.measure(context(num_generated=20))
    # Fewer images than the network has features.
    reason = few.scores[f"fd_{name}"]["details"]["reason"]
    assert few.scores[f"fd_{name}"]["value"] is None and reason.endswith("got 20 and 360.")


def test_images_of_different_settings_have_different_folders(context, tmp_path):
    list(sampled_images(context(), 0))
    other = context()
    other.model.step = 8
    list(sampled_images(other, 0))
    assert other.model.drawn == 70 and len(list((tmp_path / "cache").iterdir())) == 2
    other = context()
    other.model.fingerprint = "b"
    list(sampled_images(other, 0))
    other = context()
    other.model.prior = types.SimpleNamespace(step=3, fingerprint="c")
    list(sampled_images(other, 0))
    assert len(list((tmp_path / "cache").iterdir())) == 4
    assert SUITE.settings(other)["prior_fingerprint"] == "c"


def test_missing_requirements_of_the_suite_are_named(context, tmp_path):
    class Bare(stubs.Model):
        @property
        def prior(self):
            raise CheckpointError("This model has no latent prior to sample from.")

    assert SUITE.obstacle(context(Bare)) == "This model has no latent prior to sample from"
    assert SUITE.obstacle(context()) is None
    plain = {split: stubs.Data(_pixels(3, 9)) for split in ("train", "test")}
    unknown = stubs.context(plain, cache=tmp_path / "plain", model=Generator(tiny.config()))
    assert SUITE.obstacle(unknown) is None
    measured = SUITE.measure(unknown)  # power spectra need no network
    assert measured.scores.keys() == {"sharpness_error"} and measured.counts["test"] == 9
    assert "classifier" not in SUITE.settings(unknown)
    inception = {"inception": True, "weights_dir": str(tmp_path)}
    with pytest.raises(CheckpointError, match=r"pt_inception.*download https://github.com"):
        SUITE.settings(context(**inception))
    with pytest.raises(DataError, match=r"10000 generated and all real images, got 70"):
        SUITE.settings(context(**inception, fid_preset="infodiff10k-clean"))
    with pytest.raises(ConfigError, match=r"fid_preset='adm'.*empty unless .*inception is True"):
        context(fid_preset="adm")
    assert set(sections.FID_PRESETS) == set(metric.PRESETS)
    assert registry.SUITES["generation"] is SUITE


def test_inceptions_scores_are_of_training_images(context, monkeypatch):
    """With a stand-in of the published network; and a protocol of few images."""
    monkeypatch.setattr(
        published, "load_inception", lambda where, how, download: _net(PUBLISHED, how)
    )
    small = dataclasses.replace(metric.PRESETS["adm"], generated=70, real=300)
    monkeypatch.setitem(metric.PRESETS, "adm", small)
    asked = context(inception=True, fid_preset="adm")
    settings, measured = SUITE.settings(asked), SUITE.measure(asked)
    assert measured.scores["fid"]["details"]["real_images"] == 300
    assert settings["inception"]["preset"] == "adm"
    assert settings["inception"]["preparation"] == "tensorflow_1"
    assert {"kid", "inception_score", "confidence"} <= measured.scores.keys()
    assert measured.counts == {"generated": 70, "test": 360, "train": 300}
    floor = measured.scores[f"fd_{INCEPTION}_floor_halves"]
    assert floor["details"]["images"] == [150, 150] and floor["value"] > 0  # of all, not of 70

    digest = ("397923af" + 56 * "0",)
    monkeypatch.setattr(
        published, "load_vgg16", lambda where, download: _net(Origin(published.VGG16, digest))
    )
    asked = context(vgg16=True)
    settings, measured = SUITE.settings(asked), SUITE.measure(asked)
    assert {"precision_vgg16", "recall_vgg16"} <= measured.scores.keys()
    assert settings["vgg16"]["weights_sha256"] == list(digest) and "inception" not in settings
    assert measured.counts["train"] == 1437


def test_a_score_that_one_set_lacks_has_none():
    have = {"a": results.score(1.0, "lower", net="n"), "b": results.score(2.0, "lower")}
    lack = {"a": results.score(3.0, "lower", net="n"), "b": results.score(np.nan, None, reason="r")}
    joined = generation.over_sets([have, lack])
    assert joined["a"]["values"] == [1, 3] and joined["a"]["details"] == {"net": "n"}
    assert joined["b"]["value"] is None and joined["b"]["details"]["reason"] == "r"
