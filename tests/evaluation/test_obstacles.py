"""Splits that share images are found for every source; no probe is scored on training images."""

import dataclasses

import numpy as np
import pytest

from dbae_jax.data import sources
from dbae_jax.data.prepared import ImageSource, View
from dbae_jax.data.shapes import ShapesSource
from dbae_jax.errors import TooFewError
from dbae_jax.evaluation import dataset_classifier
from dbae_jax.evaluation.classifier.fit import FitSettings
from dbae_jax.evaluation.suites import disentanglement, editing, probe
from tests.helpers import stubs

VIEW = View("center", 16, 1)
LABELS = np.arange(300) % 3


def _images(title, *ranges, view=VIEW):
    return ImageSource(title, ranges, view)


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        (_images("ffhq/128/1.0.0", ("train", 0, 70)), ("train", 0, 10), True),
        (_images("ffhq/128/1.0.0", ("train", 10, 70)), ("train", 0, 10), False),
        (_images("ffhq/128/1.0.0", ("test", 0, 10), ("train", 5, 7)), ("train", 6, 9), True),
        (_images("ffhq/128/1.0.0", ("test", 0, 10)), ("train", 0, 10), False),
        (_images("ffhq.lmdb", ("all", 0, 10)), ("train", 20, 30), True),  # orders may differ
        (_images("celebahq/256/1.0.0", ("train", 0, 10)), ("train", 0, 10), False),
    ],
)
def test_prepared_images_overlap_if_their_ranges_do(first, second, shared):
    other = _images("ffhq/128/1.0.0", second, view=View("short", 16, 1))
    assert sources.overlap(first, other) == sources.overlap(other, first) == shared


def test_other_sources():
    train, test = sources.digits("train", 16), sources.digits("test", 16)
    assert not sources.overlap(train, test)
    assert sources.overlap(test, sources.digits("test", 16))
    faces = _images("celebahq/256/1.0.0", ("train", 0, 10))
    assert sources.overlap(faces, _images("celeb_a/2.1.0", ("test", 0, 10)))
    assert not sources.overlap(faces, train) and not sources.overlap(train, faces)
    shapes = ShapesSource("train", 32)
    assert sources.overlap(shapes, ShapesSource("train", 32, num=7, sampler="correlated"))
    assert not sources.overlap(shapes, ShapesSource("test", 32))

    class Named:
        def __init__(self, name):
            self.name = name

        def __repr__(self):
            return self.name

    assert sources.overlap(Named("a"), Named("a")) and not sources.overlap(Named("a"), Named("b"))


def _context(train=None, test=None, validation=None, name="celebahq"):
    made = {
        split: source or stubs.Data(stubs.images(np.zeros((300, 8))), label=LABELS)
        for split, source in (("train", train), ("test", test), ("validation", validation))
    }
    return stubs.context(made, **{"data.name": name, "eval.validation_split": "val"})


def test_too_few_images_are_found_before_work():
    images = stubs.images(np.zeros((300, 8)))
    few = _context(stubs.Data(images[:199], label=LABELS))
    for suite in (dataset_classifier, editing):
        assert "needs at least 200 training images, and 199 images of" in suite.obstacle(few)
    assert "199 images of celebahq are used" in dataset_classifier.obstacle(few)

    def obstacle(train, test=300, attributes=None, factors=None):
        known = {"attributes": attributes, "factors": factors}
        splits = {
            split: stubs.Data(
                images[:count], **{k: v[:count] for k, v in known.items() if v is not None}
            )
            for split, count in (("train", train), ("test", test))
        }
        return disentanglement.obstacle(stubs.context(splits))

    attributes, factors = np.eye(300, 4, dtype=np.int8), np.eye(300, 9, dtype=np.int32)
    assert (
        obstacle(4, attributes=attributes)
        == "TAD needs 5 images or more, and 4 training images are used"
    )
    assert obstacle(5, attributes=attributes) is None
    assert "all attributes of 9 training" in obstacle(9, attributes=0 * attributes)
    assert "two factors that vary within the 9 train and 10 test" in obstacle(
        9, 10, factors=np.minimum(factors, np.eye(1, 9, dtype=np.int32))
    )
    assert obstacle(3, 3, factors=factors) is None


def test_all_that_changes_scores_of_edits_is_recorded():
    context = _context()
    settings = editing.settings(context)
    assert settings["real_images"] == 300
    assert settings["classifier"] == dataset_classifier.settings(context)
    assert settings["classifier"].items() >= dataclasses.asdict(FitSettings()).items()
    assert settings["classifier"]["images"] == 300


def test_one_class_is_no_label():
    images = stubs.images(np.zeros((300, 8)))
    named = [stubs.Data(images, label=0 * LABELS) for _ in range(3)]
    for data in named:
        data.class_names = ("flowers",)
    context = _context(*named)
    assert "label" not in context.known
    assert "are of one class, 'flowers'" in probe.obstacle(context)
    assert "neither labels nor attributes" in dataset_classifier.obstacle(context)
    # Classes that the images in use do not have are found once the labels have been read.
    unnamed = [stubs.Data(images, label=0 * LABELS) for _ in range(3)]
    with pytest.raises(TooFewError, match=r"training images of celebahq .* are all of one class"):
        probe.measure(_context(*unnamed))


def test_no_classifier_is_trained_on_real_numbers():
    data = stubs.Data(stubs.images(np.zeros((300, 8))), attributes=np.linspace(-1, 1, 300)[:, None])
    assert "are real numbers" in dataset_classifier.obstacle(_context(data, data, data))


def test_nothing_is_scored_on_what_it_learned():
    data = stubs.Data(stubs.images(np.zeros((300, 8))), label=LABELS)
    factors = stubs.Data(data.images, factors=np.eye(300, 9, dtype=np.int32))
    suites = (probe, dataset_classifier, editing)
    assert [s.obstacle(_context()) for s in suites] == [None] * 3
    for suite in suites:
        found = suite.obstacle(_context(data, data))
        assert "data.train_split='train' and config.data.test_split='test' of celebahq" in found
        assert found.endswith("'train[:90%]' --config.data.test_split='train[90%:]'")
    assert "such as --config.data.train_split='train' " in dataset_classifier.obstacle(
        _context(data, data, name="digits")
    )
    assert "share images" in disentanglement.obstacle(_context(factors, factors, factors))
    for other in ({"train": data}, {"test": data}):
        context = _context(validation=data, **other)
        assert "config.eval.validation_split='val' of celebahq" in probe.obstacle(context)
        assert dataset_classifier.obstacle(context) is None
