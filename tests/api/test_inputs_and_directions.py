"""What `DBAE` takes as images, its directions and edits by name, and its summary."""

import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

from dbae_jax import DBAE
from dbae_jax.api import directions
from dbae_jax.errors import DataError
from dbae_jax.runtime import kept
from tests.helpers import tiny

STEP = np.linspace(-1, 1, 8).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    c = tiny.config()
    return DBAE(c, tiny.variables(c))


def _large(pixels):
    """Returns an image as PIL shows it, each pixel four times as wide and high."""
    return Image.fromarray(pixels[..., 0].repeat(4, axis=0).repeat(4, axis=1))


def test_preprocessed_images_are_what_the_encoder_gets(model, tmp_path):
    images = tiny.images(2)
    Image.fromarray(images[0, ..., 0]).save(tmp_path / "0.png")
    found = model.preprocess([tmp_path / "0.png", images[1]])
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, images / np.float32(127.5) - 1)


def test_single_images_pil_images_paths_and_lists_are_images(model, tmp_path):
    images = tiny.images(2)
    z = model.encode(images)
    paths = [tmp_path / f"{i}.png" for i in range(2)]
    for path, pixels in zip(paths, images, strict=True):
        Image.fromarray(pixels[..., 0]).save(path)
    pil = [Image.fromarray(pixels[..., 0]) for pixels in images]
    alike = (list(images), pil, tuple(paths), [str(p) for p in paths], [images[0], pil[1]])
    for given in (*alike, [images[0] / 127.5 - 1, paths[1]], jax.numpy.asarray(images)):
        np.testing.assert_allclose(model.encode(given), z, atol=1e-5)
    for given in (images[0], pil[0], paths[0], str(paths[0])):
        assert model.encode(given).shape == (1, 8)
        np.testing.assert_allclose(model.encode(given), z[:1], atol=1e-5)
    # Pictures of another size are cropped and resized like the data set.
    large = _large(images[0])
    small = np.asarray(large.resize((16, 16), Image.Resampling.BILINEAR))[..., None]
    np.testing.assert_allclose(model.encode(large), model.encode(small), atol=1e-5)
    assert model.reconstruct(paths[0], steps=2).shape == (1, 16, 16, 1)
    assert model.interpolate(pil[0], paths[1], 3, steps=2).shape == (1, 3, 16, 16, 1)
    assert model.edit(pil, STEP, (0, 1), steps=2).shape == (2, 2, 16, 16, 1)
    assert model.edit(pil[0], STEP, 0.5, steps=2).shape == (1, 16, 16, 1)


COLOUR, DEEP = Image.new("RGB", (16, 16)), Image.new("I;16", (16, 16))
WRONG = {
    "colour": ([COLOUR], "in colour"),
    "deep": (DEEP, "mode I;16"),
    "none": ([], "empty list"),
    "absent": ("no/such.png", "There is no image file no/such.png"),
    "folder": (pathlib.Path("/"), "is a folder"),
    "batch in a list": ([tiny.images(2)], "must be .H, W, C."),
    "text": (__file__, "cannot be decoded"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_images_get_a_sentence(model, name):
    images, words = WRONG[name]
    with pytest.raises(DataError, match=words):
        model.encode(images)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Returns a model whose workdir keeps the direction of the attribute "7"."""
    c, directory = tiny.config(), tmp_path_factory.mktemp("workdir")
    tiny.write_workdir(c, directory)
    model = DBAE.load(directory)
    path = directions.file_of(directory / directions.CACHE, c.data.name)
    path.parent.mkdir()
    content = {"names": np.array(["7"]), "steps": STEP[None]}
    kept.write(path, {"fingerprint": model.fingerprint}, content)
    return model


def test_edits_by_the_name_of_an_attribute(loaded):
    assert list(loaded.directions) == ["7"]
    images, scales = tiny.images(2), (-0.5, 0.5)
    found = loaded.edit(images, attribute="7", scale=scales, steps=2)
    np.testing.assert_array_equal(found, loaded.edit(images, STEP, scales, steps=2))
    one = loaded.edit(images, attribute="7", scale=0.5, steps=2)
    np.testing.assert_allclose(one, found[:, 1], atol=1e-4)
    with pytest.raises(DataError, match="'8'"):
        loaded.edit(images, attribute="8")
    for both in ({}, {"direction": STEP, "attribute": "7"}):
        with pytest.raises(DataError, match="either a direction"):
            loaded.edit(images, **both)


def test_a_damaged_file_of_directions_is_named(tmp_path):
    path = directions.file_of(tmp_path / directions.CACHE, "digits")
    path.parent.mkdir()
    path.write_bytes(b"PK")
    with pytest.raises(DataError, match=r"digits_directions\.npz is damaged: `dbae report`"):
        directions.load(tmp_path, "digits", "0123", "89ab")


def test_directions_belong_to_the_weights(loaded, model, tmp_path):
    with pytest.raises(DataError, match="not loaded from a workdir"):
        _ = model.directions
    with pytest.raises(DataError, match="not loaded from a workdir"):
        _ = loaded.with_variables(loaded.variables).directions
    c = tiny.config()
    with pytest.raises(DataError, match="There are no directions of attributes in"):
        directions.load(tmp_path, c.data.name, "0123", "89ab")
    path = directions.file_of(tmp_path / directions.CACHE, c.data.name)
    path.parent.mkdir()
    content = {"names": np.array(["7"]), "steps": STEP[None]}
    # Files of older versions have the fingerprint of all weights, those of this one the encoder's.
    for known, others in (({"fingerprint": "0123"}, "4567"), ({"encoder": "89ab"}, "cdef")):
        kept.write(path, known, content)
        assert directions.load(tmp_path, c.data.name, "0123", "89ab").keys() == {"7"}
        kept.write(path, dict.fromkeys(known, others), content)
        with pytest.raises(DataError, match="found with another encoder"):
            directions.load(tmp_path, c.data.name, "0123", "89ab")


def test_the_summary_counts_the_parameters_of_every_network(model):
    first, *lines = model.summary().splitlines()
    assert first == repr(model)
    for line, part in zip(lines, ("encoder", "decoder", "unet"), strict=False):
        sizes = [leaf.size for leaf in jax.tree.leaves(model.variables["params"][part])]
        assert line.split()[:2] == [part, f"{sum(sizes):,}"]
    assert "3 steps" in model.summary() and "  prior   none" in lines
