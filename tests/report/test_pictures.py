"""Images of the report: strips, sizes on the screen, and computing them in batches."""

import jax
import numpy as np
import pytest

from dbae_jax.report import pictures
from dbae_jax.runtime import rngs
from tests.helpers.report_workdirs import pixels


@pytest.mark.parametrize(("size", "channels"), [(16, 1), (16, 3), (128, 3), (64, 1)])
def test_a_strip_holds_its_images_side_by_side(size, channels):
    rng = np.random.default_rng(0)
    shades = rng.uniform(-1, 1, (3, 1, 1, channels)).astype(np.float32)
    images = np.broadcast_to(shades, (3, size, size, channels))
    strip = pictures.strip(images)
    shown = pixels(strip.uri).reshape(size, 3 * size, -1)
    assert (strip.count, strip.size) == (3, size)
    exact = pictures.is_lossless(size)
    assert strip.uri.startswith(f"data:image/{'png' if exact else 'jpeg'};base64,")
    want = np.round((shades + 1) * 127.5)
    for i in range(3):  # no image bleeds into its neighbour
        image = shown[:, i * size : (i + 1) * size]
        np.testing.assert_allclose(image, np.broadcast_to(want[i], image.shape), atol=1 - exact)


def test_images_are_shown_at_whole_multiples_of_their_size():
    assert [pictures.shown_size(size, 96) for size in (16, 32, 64, 128, 256)] == [
        *(96, 96, 128, 128, 256)
    ]


def test_batches_do_not_change_the_result_and_have_one_size():
    sizes = []

    def compute(indices, keys):
        sizes.append(len(indices))
        return np.asarray(jax.vmap(jax.random.normal)(keys)) + indices

    made = pictures.in_batches(compute, 7, 3, "Computing", seed=3)
    whole = jax.vmap(jax.random.normal)(
        rngs.per_example(jax.random.key(3), np.arange(7))
    ) + np.arange(7)
    np.testing.assert_allclose(made, whole, rtol=1e-6)
    assert sizes == [3, 3, 3]
