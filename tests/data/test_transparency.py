"""What lies under transparent pixels is never seen: data.background is."""

import numpy as np
import pytest
from PIL import Image

from dbae_jax.api import images
from dbae_jax.data import transforms
from dbae_jax.data.builders.base import Storage
from dbae_jax.data.builders.folder import Folder
from dbae_jax.errors import DataError
from tests.helpers import datasets, odd_images, tiny

COLORS = {"white": (255, 255, 255), "#102030": (16, 32, 48)}


@pytest.mark.parametrize("mode", ["RGBA", "P"])
@pytest.mark.parametrize("background", COLORS)
@pytest.mark.parametrize("size", [0, 16, 8])
def test_transparent_parts_have_the_background(tmp_path, mode, background, size):
    for i in range(4):
        datasets.write(tmp_path / "in" / f"{i}.png", odd_images.hidden_under_transparency(mode))
    storage = Storage(size) if size else None
    builder = datasets.build(Folder, tmp_path / "in", tmp_path / "data", storage=storage)
    read = datasets.read("folder", tmp_path / "data", background=background)
    pixels = read[0]["image"]
    assert (pixels[:, :2] == COLORS[background]).all()
    assert (pixels[:, 14:] == (0, 0, 255)).all()
    assert pixels[..., 0].max() <= max(COLORS[background])  # no red anywhere, nor at the edge
    assert read.about() == [
        "Of the images, 4 are transparent (shown on config.data.background)"
        + ("; 4 are with a palette of colours (read as colour)." if mode == "P" else ".")
    ] + ["4 images are smaller than 16 pixels and are enlarged."] * (size == 8)
    assert (background in repr(read)) == (background != "white") and builder.estimate.channels == 3


def test_images_given_to_a_model_have_the_background(tmp_path):
    data = tiny.config(**{"data.channels": 3, "data.background": "#102030"}).data
    path = datasets.write(tmp_path / "a.png", odd_images.hidden_under_transparency())
    for given in (path, str(path), transforms.decode(path.read_bytes())):
        pixels = images.as_batch(given, data)[0]
        assert (pixels[:, :6] == (16, 32, 48)).all() and (pixels[:, 10:] == (0, 0, 255)).all()


def test_webp_copies_keep_transparency():
    image = transforms.decode(odd_images.hidden_under_transparency(size=64))
    copy = transforms.decode(transforms.shrink(image, 32, "webp"))
    pixels = np.asarray(transforms.convert(copy, 3, "#102030"))
    assert (pixels[:, :12] == (16, 32, 48)).all()


@pytest.mark.parametrize("kind", ["gif", "webp", "png", "tiff"])
def test_of_several_pictures_the_first_is_read(tmp_path, kind):
    options = {"lossless": True} if kind == "webp" else {}
    data = odd_images.animated(kind, **options)
    found = transforms.examine(data)
    assert "several" in found.findings
    pixels = np.asarray(transforms.convert(found.image, 3))
    assert abs(int(pixels.mean()) - 20) <= 1


def test_what_is_done_to_an_image_is_told(tmp_path, caplog):
    data = tiny.config(**{"data.channels": 3, "data.background": "black"}).data
    path = datasets.write(tmp_path / "a.png", odd_images.hidden_under_transparency(size=12))
    other = datasets.write(tmp_path / "b.jpg", odd_images.with_odd_exif(odd_images.MAKE))
    with caplog.at_level("INFO", "dbae_jax"):
        images.as_batch([path, other], data)
    assert f"{path} (12x12) was put on black, enlarged to 16x16." in caplog.text
    assert f"{other} (24x32) was cropped by the rule 'center', reduced to 16x16." in caplog.text


def test_pil_images_are_read_as_files(tmp_path):
    data = tiny.config(**{"data.channels": 3}).data
    path = datasets.write(tmp_path / "b.jpg", odd_images.with_odd_exif(odd_images.MAKE))
    with Image.open(path) as opened:
        np.testing.assert_array_equal(images.as_batch(opened, data), images.as_batch(path, data))
    path.write_bytes(path.read_bytes()[:-60])
    with Image.open(path) as opened, pytest.raises(DataError, match="the image cannot be decoded"):
        images.as_batch(opened, data)
