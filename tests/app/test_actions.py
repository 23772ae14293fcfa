"""What the app does with a model, and how results become HTML; gradio is not needed."""

import base64
import functools
import io
import re

import numpy as np
import pytest
from PIL import Image

import dbae_jax
from dbae_jax.api.dbae import DBAE
from dbae_jax.app import actions, figures, pictures, results
from dbae_jax.data.images import to_float
from dbae_jax.data.sources import digits
from dbae_jax.errors import CheckpointError, DataError
from tests.helpers import tiny

NFE = 3


@functools.cache
def model():
    return DBAE.load("digits")


@functools.cache
def able():
    return actions.abilities(model(), None)


def image(place):
    return digits("test", 16).images[place]


@functools.cache
def encoded():
    return actions.encode(model(), image(0), NFE)


def test_every_choice_is_the_number_of_network_evaluations():
    for overrides, recommended in (({}, 5), (tiny.DISTILLED, 2)):
        some = DBAE(tiny.config(**overrides), {})
        choices = actions.evaluations(some)
        assert [some.nfe(steps=nfe) for nfe in choices] == list(choices)
        assert some.nfe() == recommended and recommended in choices


def test_a_picture_is_reconstructed_with_its_error():
    found = encoded()
    np.testing.assert_array_equal(found.x_T, model().endpoint(found.z[None])[0])
    np.testing.assert_array_equal(found.z, model().encode(image(0))[0])
    exact = model().decode(found.z[None], steps=NFE)[0]
    np.testing.assert_array_equal(found.reconstruction, dbae_jax.to_uint8(exact))
    mse = np.mean((exact / 2 - np.asarray(to_float(image(0))) / 2) ** 2)
    np.testing.assert_allclose(found.mse, mse, rtol=1e-4)
    np.testing.assert_allclose(found.psnr, -10 * np.log10(mse), rtol=1e-4)
    assert found.mse < 0.005


def test_sliders_at_zero_give_the_reconstruction():
    z = actions.move(able(), encoded().z, dict.fromkeys(able().directions, 0.0), 3, 0.0)
    np.testing.assert_array_equal(z, encoded().z)
    edited = actions.edit(model(), encoded(), z, NFE)
    np.testing.assert_array_equal(edited.image, encoded().reconstruction)
    np.testing.assert_array_equal(edited.x_T, encoded().x_T)


def test_attributes_and_dimensions_move_z_and_x_T_follows():
    step = able().directions["7"]
    z = actions.move(able(), encoded().z, {"7": 0.5, "1": 0.0}, 2, -1.5)
    moved = z - encoded().z
    expected = 0.5 * step
    expected[2] -= 1.5 * able().spread[2]
    np.testing.assert_allclose(moved, expected, atol=1e-6)
    edited = actions.edit(model(), encoded(), z, NFE)
    assert np.abs(edited.image.astype(int) - encoded().reconstruction).max() > 30
    np.testing.assert_array_equal(edited.x_T, model().endpoint(z[None])[0])


def test_a_dimension_that_z_does_not_have_is_refused():
    with pytest.raises(DataError, match="no dimension 16: they are 0 to 15"):
        actions.move(able(), encoded().z, {}, 16, 1.0)


def test_a_mix_begins_and_ends_with_the_reconstructions():
    mixed = actions.mix(model(), image(0), image(1), "linear", NFE)
    assert mixed.images.shape == (actions.POINTS, 16, 16, 1)
    ends = model().encode(np.stack([image(0), image(1)]))
    np.testing.assert_allclose(mixed.z[[0, -1]], ends, atol=1e-6)
    np.testing.assert_allclose(mixed.z[5], ends.mean(axis=0), atol=1e-5)
    difference = mixed.images[0].astype(int) - encoded().reconstruction
    assert np.abs(difference).max() <= 1  # rounding in batches of another size


def test_samples_depend_on_the_seed_alone():
    drawn = actions.draw(model(), 16, 5, NFE)
    assert drawn.z.shape == (16, 16) and drawn.images.shape == (16, 16, 16, 1)
    again = actions.draw(model(), 16, 5, NFE)
    np.testing.assert_array_equal(again.images, drawn.images)
    assert np.abs(actions.draw(model(), 16, 6, NFE).z - drawn.z).max() > 0.1


def test_what_a_model_lacks_is_explained():
    config = tiny.config()
    bare = DBAE(config, tiny.variables(config))
    without = actions.abilities(bare, None)
    assert not without.directions and "dbae_jax.editing" in without.no_directions
    assert "train one" in without.no_prior and "need a latent prior" in without.no_spread
    with pytest.raises(DataError, match="need a latent prior"):
        actions.move(without, np.zeros(8), {}, 0, 1.0)
    with pytest.raises(CheckpointError, match="no latent prior"):
        actions.draw(bare, 1, 0, NFE)
    images = tiny.images(12)
    source = [{"image": one} for one in images]
    spread = actions.abilities(bare, source).spread
    np.testing.assert_allclose(spread, bare.encode(images).std(axis=0), rtol=1e-5)


def test_the_x_T_of_diffae_is_inferred_and_stays():
    config = tiny.config(**{"bridge.endpoint": "free", "bridge.beta_d": 19.9})
    diffae = DBAE(config, tiny.variables(config))
    found = actions.encode(diffae, image(0), NFE)
    np.testing.assert_allclose(found.x_T, diffae.invert(image(0))[0], atol=1e-5)
    edited = actions.edit(diffae, found, found.z + 1, NFE)
    np.testing.assert_array_equal(edited.x_T, found.x_T)
    assert actions.mix(diffae, image(0), image(1), "spherical", NFE).z.shape == (11, 8)


def save(pixels, path, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


def test_pictures_are_cropped_and_resized_like_the_data_set(tmp_path):
    gray, colour = tiny.config().data, tiny.config(**{"data.channels": 3}).data
    wide = np.zeros((40, 60, 3), np.uint8)
    wide[:, 10:50] = (200, 100, 50)  # the central square
    path = save(wide, tmp_path / "wide.png")
    np.testing.assert_array_equal(
        pictures.read(path, colour), np.broadcast_to(np.uint8([200, 100, 50]), (16, 16, 3))
    )
    assert pictures.read(path, gray).shape == (16, 16, 1)
    one = save(image(3)[..., 0], tmp_path / "one.png")
    np.testing.assert_array_equal(pictures.read(one, gray), image(3))
    assert pictures.read(one, colour).shape == (16, 16, 3)


@pytest.mark.parametrize("side", [16, 40])
def test_transparent_pictures_have_the_background_of_the_model(tmp_path, side):
    path = tmp_path / "clear.png"
    Image.new("RGBA", (side, side), (255, 0, 0, 0)).save(path)
    for background, value in (("white", 255), ("black", 0)):
        data = tiny.config(**{"data.channels": 3, "data.background": background}).data
        assert (pictures.read(path, data) == value).all()


def test_pictures_of_the_models_size_are_not_cropped_again(tmp_path):
    zoom = tiny.config(**{"data.crop": "zoom"}).data
    path = save(image(3)[..., 0], tmp_path / "one.png")
    np.testing.assert_array_equal(pictures.read(path, zoom), image(3))


def test_large_and_broken_pictures_are_refused_with_a_sentence(tmp_path, monkeypatch):
    data = tiny.config().data
    text = tmp_path / "text.png"
    text.write_text("no picture")
    with pytest.raises(DataError, match="not an image that can be read"):
        pictures.read(text, data)
    with pytest.raises(DataError, match="No such file or directory"):
        pictures.read(tmp_path / "gone.png", data)
    flat = save(np.zeros((8_000, 7_000), np.uint8), tmp_path / "flat.png", compress_level=1)
    with pytest.raises(DataError, match="7000 x 8000 pixels, and the app takes at most 50 million"):
        pictures.read(flat, data)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000_000)  # PIL itself refuses the double
    with pytest.raises(DataError, match="too many pixels"):
        pictures.read(flat, data)
    with text.open("wb") as file:
        file.truncate(pictures.MOST_BYTES + 2**19)
    with pytest.raises(DataError, match=r"has 20.5 MB, and the app takes at most 20 MB"):
        pictures.read(text, data)


def test_x_T_is_shown_from_its_minimum_to_its_maximum():
    x = np.float32([[[-3.5], [0.5]], [[4.5], [-3.5]]])
    np.testing.assert_array_equal(pictures.stretched(x)[..., 0], [[0, 128], [255, 0]])
    assert (pictures.stretched(np.ones((2, 2, 1))) == 0).all()


def _saved(page, suffix):
    """Returns the files of a page that a click saves: name -> bytes."""
    found = re.findall(r'href="data:[^,]+,([^"]+)" download="([^"]+)"', page)
    return {name: base64.b64decode(url) for url, name in found if name.endswith(suffix)}


def test_results_can_be_saved_as_they_are():
    z = actions.move(able(), encoded().z, {"7": 0.5}, 0, 0.0)
    edited = actions.edit(model(), encoded(), z, NFE)
    page = results.of_edit(encoded(), edited, "<words>")
    files = _saved(page, ".png")
    assert list(files) == ["image.png", "x_T.png", "reconstruction.png", "edited.png"]
    shown = np.asarray(Image.open(io.BytesIO(files["edited.png"])))
    np.testing.assert_array_equal(shown, edited.image[..., 0])
    kept = np.load(io.BytesIO(_saved(page, ".npz")["latent_code.npz"]))
    np.testing.assert_array_equal(kept["z"], encoded().z)
    np.testing.assert_array_equal(kept["z_edited"], z)
    assert f"own scale, from {edited.x_T.min():.2f} to {edited.x_T.max():.2f}" in page
    assert f"MSE {encoded().mse:.5f}" in page and f"PSNR {encoded().psnr:.1f} dB" in page


def test_rows_of_images_can_be_saved_as_one():
    many = actions.Decoded(np.zeros((16, 4)), np.zeros((16, 16, 16, 3), np.uint8))
    for page, size in (
        (results.of_samples(many, 3, ""), (8 * 18 + 2, 2 * 18 + 2)),
        (results.of_mix(many, "linear", ""), (16 * 18 + 2, 18 + 2)),
    ):
        *_, last = _saved(page, ".png").values()
        assert Image.open(io.BytesIO(last)).size == size and page.count("<figure>") == 16


def test_words_are_not_html():
    assert "<script>" not in figures.problem("<script>") + figures.sentence("<script>")
