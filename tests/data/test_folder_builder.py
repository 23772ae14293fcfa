"""Builder of a folder of images: splits, labels and attributes."""

import numpy as np
import pytest
from PIL import Image

from dbae_jax.data.builders.folder import Folder
from dbae_jax.errors import ConfigError
from tests.helpers import datasets

BILINEAR = Image.Resampling.BILINEAR


def _ids(source):
    return [source[i]["id"] for i in range(len(source))]


def test_folder_with_splits_labels_and_attributes(tmp_path):
    root = tmp_path / "flowers"
    names = ["train/rose/a.png", "train/aster/b.jpg", "test/rose/c.webp", "val/rose/d.bmp"]
    for i, name in enumerate(names):
        image = datasets.picture(i, 40, 30)
        kind = {"jpg": "jpeg"}.get(name[-3:], name.rpartition(".")[2])
        datasets.write(root / name, datasets.encode(image, kind))
    datasets.write(root / "train" / "notes.txt", "no image")
    rows = [
        ["file", "size", "red"],
        ["d.bmp", 0, 1],
        *([name, i, 0] for i, name in enumerate(names[:3])),
    ]
    datasets.write_csv(root / "attributes.csv", rows)
    datasets.build(Folder, root, tmp_path / "data")
    train = datasets.read("folder", tmp_path / "data", crop="short")
    assert _ids(train) == ["train/aster/b.jpg", "train/rose/a.png"]
    assert train.class_names == ("aster", "rose") and train.attribute_names == ("size", "red")
    assert [train[i]["label"] for i in (0, 1)] == [0, 1]
    np.testing.assert_array_equal(train[0]["attributes"], np.array([1, 0], np.float32))
    want = datasets.picture(0, 40, 30).resize((21, 16), BILINEAR).crop((2, 0, 18, 16))
    np.testing.assert_array_equal(train[1]["image"], want)
    assert _ids(datasets.read("folder", tmp_path / "data", "test")) == ["test/rose/c.webp"]
    assert datasets.read("folder", tmp_path / "data", "validation")[0]["attributes"][1] == 1


def test_folder_without_splits_is_split_by_the_hash_of_names(tmp_path):
    for i in range(60):
        image = datasets.encode(datasets.picture(i, 16, 16, "L"))
        datasets.write(tmp_path / "in" / f"{i}.png", image)
    datasets.build(Folder, tmp_path / "in", tmp_path / "data")
    held_out = set(_ids(datasets.read("folder", tmp_path / "data", "test", channels=1)))
    train = datasets.read("folder", tmp_path / "data", channels=1)
    assert held_out == {"1.png", "20.png", "21.png"}  # does not depend on the other images
    assert len(train) == 60 - len(held_out) and held_out.isdisjoint(_ids(train))
    np.testing.assert_array_equal(train[0]["image"][..., 0], datasets.picture(0, 16, 16, "L"))
    assert "label" not in train[0]
    with pytest.raises(ConfigError, match=r"channels=3 .* of folder have 1"):
        datasets.read("folder", tmp_path / "data")
