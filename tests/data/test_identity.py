"""The identity of a data set tells changed data from the same."""

import numpy as np

from dbae_jax.data import identity, sources
from dbae_jax.data.sources import ArraySource


def test_the_same_data_have_the_same_identity():
    first, second = (sources.digits("test", 16) for _ in range(2))
    assert identity.of(first) == identity.of(second)
    assert identity.differences(identity.of(first), identity.of(second)) == []
    assert identity.describe(identity.of(first)).startswith("360 images of 16x16x1, hash ")


def test_changed_data_have_another_identity():
    images, labels = sources.digits("test", 16).images, np.arange(360)
    known = identity.of(ArraySource(images, labels))
    for changed, keys in (
        (ArraySource(images[:-1], labels[:-1]), {"num_images", "sha256"}),
        (ArraySource(images[:, :8], labels), {"image_shape", "sha256"}),
        (ArraySource(images), {"entries", "sha256"}),
        (ArraySource(images, labels[::-1]), {"sha256"}),
        (ArraySource(255 - images, labels), {"sha256"}),
    ):
        found = identity.differences(known, identity.of(changed))
        assert {text.split()[0] for text in found} == keys
