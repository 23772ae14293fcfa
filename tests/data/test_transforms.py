"""Decoding, cropping and resizing, compared with direct calls of PIL and JAX."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from dbae_jax.data import transforms
from dbae_jax.errors import ConfigError, DataError
from tests.helpers import datasets


def _antialiased(pixels, height, width):
    """Returns the result of an independent implementation: JAX's antialiased linear resize."""
    shape = (height, width, pixels.shape[-1])
    return jax.image.resize(jnp.float32(pixels), shape, "linear", antialias=True)


def _load(image, crop, size, channels=3):
    return transforms.load(datasets.encode(image), crop=crop, size=size, channels=channels)


def _noise(width, height):
    """Returns white noise, for which a resize without antialiasing is wrong by tens of levels."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return pixels, Image.fromarray(pixels)


@pytest.mark.parametrize(
    "width, height, rows, columns",
    [
        (92, 61, slice(0, 61), slice(16, 77)),  # (92 - 61) / 2 = 15.5, halves to even
        (61, 91, slice(15, 76), slice(0, 61)),
        (64, 64, slice(0, 64), slice(0, 64)),
    ],
)
def test_center_takes_the_central_square(width, height, rows, columns):
    pixels, image = _noise(width, height)
    got = _load(image, "center", 16)
    assert got.dtype == np.uint8 and got.shape == (16, 16, 3)
    np.testing.assert_allclose(got, _antialiased(pixels[rows, columns], 16, 16), atol=1)


def test_d2c_takes_the_rows_and_columns_of_celeba():
    pixels, image = _noise(178, 218)
    face = pixels[57:185, 25:153]
    np.testing.assert_array_equal(_load(image, "d2c", 128), face)
    np.testing.assert_allclose(_load(image, "d2c", 64), _antialiased(face, 64, 64), atol=1)
    # Without antialiasing the result is very different.
    aliased = jax.image.resize(jnp.float32(face), (64, 64, 3), "linear", antialias=False)
    assert np.abs(_load(image, "d2c", 64) - aliased).max() > 20
    with pytest.raises(DataError, match=r"aligned CelebA .* 178x218, this image has 64x64"):
        _load(_noise(64, 64)[1], "d2c", 32)


@pytest.mark.parametrize("crop, short", [("short", 64), ("zoom", 70)])
def test_short_and_zoom_resize_before_they_crop(crop, short):
    pixels, image = _noise(178, 218)
    tall = int(short * 218 / 178)
    resized = _antialiased(pixels, tall, short)
    top, left = round((tall - 64) / 2), round((short - 64) / 2)
    want = resized[top : top + 64, left : left + 64]
    np.testing.assert_allclose(_load(image, crop, 64), want, atol=1)
    square = Image.fromarray(pixels[:178])
    assert _load(square, crop, 128).shape == (128, 128, 3)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_every_mode_becomes_colour_or_gray(mode):
    image = datasets.picture(0, 16, 16, "RGB").convert(mode)
    data = datasets.encode(image, "tiff" if mode == "CMYK" else "png")
    again = Image.open(io.BytesIO(data))
    for channels, kind in ((3, "RGB"), (1, "L")):
        got = transforms.load(data, crop="center", size=16, channels=channels)
        want = np.asarray(again.convert(kind)).reshape(16, 16, channels)
        np.testing.assert_array_equal(got, want)
    gray = mode in ("1", "L", "LA")
    assert transforms.channels_of(transforms.decode(data)) == (1 if gray else 3)


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_images_that_cannot_be_decoded(kind):
    data = datasets.encode(_noise(64, 64)[1], kind)
    for broken in (data[: len(data) // 2], data[:20], b"", b"no image"):
        with pytest.raises(DataError, match="cannot be decoded") as caught:
            transforms.decode(broken)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_photographs_are_rotated_upright_once(kind):
    exif = Image.Exif()
    exif[274] = 6  # camera held upright: rows of the file are columns of the scene
    lying = datasets.encode(datasets.picture(0, 60, 40), kind, exif=exif)
    want = np.rot90(np.asarray(Image.open(io.BytesIO(lying)).convert("RGB")), -1)
    upright = transforms.decode(lying)
    np.testing.assert_array_equal(upright.convert("RGB"), want)
    again = transforms.decode(transforms.shrink(upright, 40, "png"))
    np.testing.assert_array_equal(again, want[10:50])


def test_postscript_is_refused_and_runs_no_program(monkeypatch):
    """Pillow tells formats by their content, and gives PostScript to Ghostscript."""
    drawing = io.BytesIO()
    Image.new("RGB", (20, 20), "red").save(drawing, "eps")
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *args: pytest.fail("a program ran"))
    with pytest.raises(DataError, match="no supported image format"):
        transforms.decode(drawing.getvalue())
    assert {"PNG", "JPEG", "WEBP", "GIF", "TIFF", "PPM", "BMP"} <= set(transforms.formats())


def test_more_than_eight_bits_are_refused():
    deep = Image.fromarray(np.full((8, 8), 40_000, np.uint16))
    with pytest.raises(DataError, match=r"mode I;16, 16 or 32 bits .* 8 bits"):
        transforms.decode(datasets.encode(deep))


def test_unknown_crops_and_channels():
    data = datasets.encode(datasets.picture(0, 16, 16))
    with pytest.raises(ConfigError, match=r"crop='middle' .* center, d2c, zoom, short"):
        transforms.load(data, crop="middle", size=16, channels=3)
    with pytest.raises(ConfigError, match="channels=4"):
        transforms.load(data, crop="center", size=16, channels=4)


def test_shrink_is_lanczos_and_never_enlarges():
    image = datasets.picture(0, 90, 60)
    small = Image.open(io.BytesIO(transforms.shrink(image, 40, "png")))
    want = image.resize((60, 40), Image.Resampling.LANCZOS).crop((10, 0, 50, 40))
    np.testing.assert_array_equal(small, want)
    square = datasets.picture(0, 40, 40)
    assert transforms.shrink(square, 40, "png") is None
    assert transforms.shrink(square, 64, "webp") is None
    cropped = Image.open(io.BytesIO(transforms.shrink(image, 80, "png")))
    np.testing.assert_array_equal(cropped, image.crop((15, 0, 75, 60)))
    again = Image.open(io.BytesIO(transforms.shrink(image, 40, "webp")))
    assert again.format == "WEBP" and again.size == (40, 40)
    difference = np.abs(np.float32(again) - np.float32(want))
    assert 0 < difference.mean() < 4  # lossy
