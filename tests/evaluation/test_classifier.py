"""Classifiers of labels: training, files, predictions, and the names of their scores."""

import dataclasses

import numpy as np
import pytest

from dbae_jax.data import shapes, sources
from dbae_jax.errors import DataError
from dbae_jax.evaluation.classifier import fit as fit_module
from dbae_jax.evaluation.classifier import network
from dbae_jax.evaluation.classifier.fit import FitSettings, fit, load_or_fit
from dbae_jax.metrics import generation
from dbae_jax.metrics.generation import ImageStatistics
from dbae_jax.metrics.networks import classifier as layers

QUICK = FitSettings(epochs=12, batch_size=50, learning_rate=3e-3)


@pytest.fixture(scope="module")
def digits():
    return sources.digits("train", 16), sources.digits("test", 16)


@pytest.fixture(scope="module")
def net(digits):
    return fit(digits[0].images, digits[0].labels, name="digits", settings=QUICK)


def test_it_classifies_held_out_digits(net, digits):
    _, test = digits
    found = network.held_out(net, test.images, test.labels)
    assert found["accuracy"] > 0.93 and found["images"] == 360  # 0.98 with the usual settings
    assert 0.85 < found["confidence"] < 1
    logits = net.logits(test.images)
    p = net.probabilities(logits)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    np.testing.assert_allclose(net.confidence(logits), p.max(axis=1))
    mixed = network.held_out(net, test.images, np.roll(test.labels, 5))
    assert mixed["accuracy"] < 0.3
    noise = np.random.default_rng(0).integers(0, 256, test.images.shape).astype(np.uint8)
    assert net.confidence(net.logits(noise)).mean() < found["confidence"] - 0.1


def test_its_scores_have_its_name_and_are_never_called_fid(net, digits):
    sets = []
    for source in digits:
        sets.append(ImageStatistics(net.features, keep_features=True))
        sets[-1].update(source.images[:300])
    name = net.origin.net
    assert name.startswith("classifier-digits-") and net.origin.sha256[0].startswith(name[-8:])
    assert generation.frechet_score(*sets).name == f"fd_{name}"
    assert not net.origin.published
    with pytest.raises(DataError, match=r"published Inception.* not .*classifier-digits"):
        generation.fid(*sets, "adm")
    np.testing.assert_allclose(sets[1].logits, net.logits(digits[1].images[:300]), atol=1e-4)
    other = dataclasses.replace(net, params={k: v + 1 for k, v in net.params.items()})
    assert other.origin.net != name
    with pytest.raises(DataError, match=r"uint8 images \[N, 16, 16, 1\], got uint8 \[4, 16, 16, 3"):
        sets[0].update(np.zeros((4, 16, 16, 3), np.uint8))


def test_the_file_is_used_only_for_the_same_images_and_settings(digits, tmp_path):
    train, test = digits
    settings = FitSettings(epochs=1, batch_size=50)
    arguments = train.images[:200], train.labels[:200]
    path = tmp_path / "net.npz"
    first = load_or_fit(path, *arguments, name="digits", settings=settings)
    written = path.stat().st_mtime_ns
    again = load_or_fit(path, *arguments, name="digits", settings=settings)
    assert path.stat().st_mtime_ns == written and again.origin == first.origin
    np.testing.assert_array_equal(again.logits(test.images), first.logits(test.images))
    assert (again.labels, again.image) == (tuple("0123456789"), (16, 16, 1))
    assert fit(*arguments, name="digits", settings=settings).origin == first.origin
    seeded = dataclasses.replace(settings, seed=1)
    assert load_or_fit(path, *arguments, name="digits", settings=seeded).origin != first.origin
    path.write_bytes(path.read_bytes()[:1000])
    assert load_or_fit(path, *arguments, name="digits", settings=settings).origin == first.origin


def test_a_file_of_a_different_network_is_replaced(digits, tmp_path, monkeypatch):
    """A new version of the network does not read the weights of the old one."""
    settings = FitSettings(epochs=1, batch_size=50)
    arguments = digits[0].images[:200], digits[0].labels[:200]
    path, fitted = tmp_path / "net.npz", []
    train = fit_module.fit
    monkeypatch.setattr(fit_module, "fit", lambda *a, **k: fitted.append(1) or train(*a, **k))
    load_or_fit(path, *arguments, name="digits", settings=settings)
    load_or_fit(path, *arguments, name="digits", settings=settings)
    assert len(fitted) == 1
    shapes = layers.shapes
    monkeypatch.setattr(layers, "shapes", lambda *a: dict(reversed(shapes(*a).items())))
    load_or_fit(path, *arguments, name="digits", settings=settings)
    assert len(fitted) == 2


def test_it_learns_attributes_by_name():
    source = shapes.ShapesSource("train", 32, num=1200)
    known = source.batch(np.arange(1200))
    chosen = [shapes.ATTRIBUTE_NAMES.index(n) for n in ("bright", "green_floor", "warm_wall")]
    names, labels = ("bright", "green_floor", "warm_wall"), known["attributes"][:, chosen]
    settings = FitSettings(epochs=6, batch_size=50)
    net = fit(known["image"][:800], labels[:800], name="s", label_names=names, settings=settings)
    found = network.held_out(net, known["image"][800:], labels[800:])
    assert found["accuracy"] > 0.9 and set(found["accuracies"]) == set(names)
    assert all(area > 0.9 for area in found["auroc"].values())
    assert 0.5 <= found["confidence"] <= 1
    still = network.held_out(net, known["image"][800:820], np.ones_like(labels[800:820]))
    assert set(still["auroc"].values()) == {None}
    with pytest.raises(DataError, match=r"3 attributes: labels of 20 images must be \[20, 3\]"):
        network.held_out(net, known["image"][:20], labels[:20, 0])


def test_invalid_images_and_labels_are_refused(digits):
    images, labels = digits[0].images[:300], digits[0].labels[:300]
    for arguments, words in (
        ((images / 255, labels), "uint8 images"),
        ((images[:, :8], labels), "takes square images"),
        ((images, labels[:5]), r"Labels must be \[300\] or \[300, K\], got \[5\]"),
        ((images, np.ones(300, int)), "All labels of the 300 training images are equal"),
        ((images, np.stack([labels, labels], 1)), "must be 0 or 1"),
        ((images[:90], labels[:90]), "at least 100 images, got 90"),
    ):
        with pytest.raises(DataError, match=words):
            fit(*arguments, name="digits", settings=QUICK)
    with pytest.raises(DataError, match="2 attributes and 1 names"):
        two = np.stack([labels > 4, labels > 2], 1)
        fit(images, two, name="digits", label_names=("big",), settings=QUICK)


def test_training_logs_one_line(digits, caplog):
    settings = FitSettings(epochs=2, batch_size=50)
    with caplog.at_level("INFO", logger="dbae_jax"):
        net = fit(digits[0].images[:200], digits[0].labels[:200], name="digits", settings=settings)
    loss = net.trained["validation_loss"]
    line = f"Classifier of digits: best of 2 epochs, held-out loss {loss:.4f}."
    assert [m for m in caplog.messages if m.startswith("Classifier")] == [line]
