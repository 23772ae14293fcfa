"""Sources, the order of batches, pictures, flops, figures."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from dbae_jax import images
from dbae_jax.data import pipeline, sources
from dbae_jax.evaluators import probe, reconstruction
from dbae_jax.flops import count_flops


def test_digits_are_split_by_index_and_resized_as_pil_does():
    train, test = sources.digits("train", 16), sources.digits("test", 16)
    assert (len(train), len(test)) == (1437, 360)
    scans = load_digits()
    for i, index in ((0, 0), (9, 9), (17, 57)):
        want = Image.fromarray(scans.images[index].astype(np.float32)).resize((16, 16), 2)
        np.testing.assert_allclose(test[i]["image"][..., 0], np.array(want) * 255 / 16, atol=0.51)
        assert test[i]["label"] == scans.target[index]
    assert train[0]["image"].dtype == np.uint8 and train[0]["image"].shape == (16, 16, 1)
    assert train[3]["label"] == scans.target[13]
    assert np.bincount(test.labels).min() >= 34


def _numbered(count, width=4):
    pixels = np.arange(count, dtype=np.uint8)[:, None, None, None]
    return sources.ArraySource(np.tile(pixels, (1, width, width, 1)))


def _take(source, steps, **kwargs):
    batches = pipeline.train_batches(source, seed=kwargs.pop("seed", 0), **kwargs)
    return [batch["image"] for batch in itertools.islice(batches, steps)]


def test_the_order_is_a_function_of_seed_and_step():
    source = _numbered(50)
    whole = _take(source, 20, batch_size=8)
    np.testing.assert_array_equal(_take(source, 20, batch_size=8), whole)
    np.testing.assert_array_equal(_take(source, 8, batch_size=8, start_step=12), whole[12:])
    assert not np.array_equal(_take(source, 20, batch_size=8, seed=1), whole)
    seen = np.concatenate(whole)[:, 0, 0, 0]
    assert sorted(seen[:50]) == list(range(50))  # an epoch holds every image once
    assert list(seen[:50]) != list(seen[50:100])  # and the next is in another order


def test_processes_share_the_global_batch():
    source = _numbered(50)
    whole = _take(source, 5, batch_size=8)
    parts = [_take(source, 5, batch_size=8, process_index=i, process_count=2) for i in (0, 1)]
    for step in range(5):
        joined = np.concatenate([parts[0][step], parts[1][step]])[:, 0, 0, 0]
        assert sorted(joined) == sorted(whole[step][:, 0, 0, 0])


def test_flips_mirror_half_of_the_images():
    pixels = np.tile(np.arange(4, dtype=np.uint8), (400, 4, 1))[..., None]
    source = sources.ArraySource(pixels)
    (plain,) = _take(source, 1, batch_size=400)
    (flipped,) = _take(source, 1, batch_size=400, flip=True)
    np.testing.assert_array_equal(plain, pixels)
    mirrored = flipped[:, 0, 0, 0] == 3
    assert 150 < mirrored.sum() < 250  # five standard errors around 200
    np.testing.assert_array_equal(flipped[mirrored], pixels[mirrored][:, :, ::-1])
    np.testing.assert_array_equal(flipped[~mirrored], pixels[~mirrored])


def test_uint8_and_float_images_round_trip():
    levels = np.arange(256, dtype=np.uint8)
    floats = images.to_float(jnp.asarray(levels))
    assert float(floats.min()) == -1 and float(floats.max()) == 1
    np.testing.assert_array_equal(images.to_uint8(floats), levels)
    np.testing.assert_array_equal(images.to_uint8(floats + 0.9 / 255), levels)  # rounds, not cuts


def test_grids_place_images_in_rows():
    rows = [np.full((3, 4, 4, 1), v, np.float32) for v in (-1.0, 1.0)]
    canvas = images.grid(rows, scale=2, gap=1)
    assert canvas.shape == (2 * 9 + 1, 3 * 9 + 1, 3)
    assert (canvas[1:9, 1:9] == 0).all() and (canvas[10:18, 10:18] == 255).all()
    assert (canvas[0] == 255).all()


def test_pca_is_the_best_linear_code():
    rng = np.random.default_rng(0)
    flat = rng.uniform(40, 60, (200, 3)) @ rng.uniform(0, 1, (3, 16))
    pixels = flat.reshape(200, 4, 4, 1)
    train, test = pixels[:150].astype(np.uint8), pixels[150:].astype(np.uint8)
    three = reconstruction.pca_mse(train, test, 3)  # rounding alone is left
    assert three == pytest.approx(1 / 12 / 255**2, rel=0.5)
    assert reconstruction.pca_mse(train, test, 1) > 3 * three
    assert reconstruction.pca_mse(train, test, 1000) < 1e-20


def test_probe_separates_what_can_be_separated():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    codes = np.eye(3)[labels] * [1, 100, 0.01] + rng.normal(0, [0.1, 10, 0.001], (300, 3))
    assert probe.accuracy(codes[:200], labels[:200], codes[200:], labels[200:]) > 0.95
    shuffled = rng.permutation(labels)
    assert probe.accuracy(codes[:200], shuffled[:200], codes[200:], shuffled[200:]) < 0.6


def test_flops_are_those_of_the_textbook():
    def layers(x, kernel, matrix):
        x = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x, _ = jax.lax.scan(lambda c, _: (jax.jit(jnp.matmul)(c, matrix), None), x, length=3)
        return x

    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((2, 8, 8, 3), (3, 3, 3, 5), (5, 5))]
    assert count_flops(layers, *shapes) == 2 * (2 * 64 * 5 * 27) + 3 * 2 * (2 * 64 * 5 * 5)
