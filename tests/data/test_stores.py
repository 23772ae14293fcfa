"""Stores: wrapping folders of archives, attribute tables, links and unreadable files."""

import io
import os
import tarfile
import zipfile

import numpy as np
import pytest

from dbae_jax.data.builders.folder import Folder
from dbae_jax.data.builders.listing import Options
from dbae_jax.data.files import stores
from dbae_jax.errors import DataError
from tests.helpers import datasets

PLAIN = ("rose/a.png", "rose/b.png", "aster/c.png")
SPLIT = ("train/rose/a.png", "train/aster/b.png", "test/rose/c.png")


def _image(seed=0):
    return datasets.encode(datasets.picture(seed, 16, 16))


def _table(names):
    rows = [f"{name},{i},1" for i, name in enumerate(names)]
    return "\n".join(["file,size,red", *rows]).encode()


def _entries(names):
    return {name: _image(i) for i, name in enumerate(names)} | {"attributes.csv": _table(names)}


def _pack(path, entries, kind):
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as file:
            for name, data in entries.items():
                file.writestr(name, data)
        return path
    with tarfile.open(path, "w:gz") as file:
        for name, data in entries.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize("names", [PLAIN, SPLIT])
@pytest.mark.parametrize("wrapper", ["", "flowers/", "./"])
@pytest.mark.parametrize("kind", ["zip", "tgz"])
def test_an_archive_gives_the_listing_of_its_folder(tmp_path, names, wrapper, kind):
    if (wrapper, kind) == ("./", "zip"):
        pytest.skip("tar writes such names")
    entries = _entries(names)
    for name, data in entries.items():
        datasets.write(tmp_path / "in" / name, data)
    packed = {wrapper + name: data for name, data in entries.items()}
    want = Folder.list_images(tmp_path / "in", Options())
    archive = _pack(tmp_path / f"x.{kind}", packed, kind)
    got = Folder.list_images(archive, Options())
    assert got.class_names == want.class_names == ("aster", "rose")
    assert got.attribute_names == want.attribute_names == ("size", "red")
    assert list(got.splits) == list(want.splits)
    for name, part in want.splits.items():
        assert got.splits[name].ids == part.ids
        np.testing.assert_array_equal(got.splits[name].labels, part.labels)
        np.testing.assert_array_equal(got.splits[name].attributes, part.attributes)
        for there, here in zip(got.splits[name].names, part.names, strict=True):
            assert got.store.read(there) == want.store.read(here)
            assert got.store.size(there) == want.store.size(here) == len(want.store.read(here))


def test_the_folder_of_a_split_is_no_wrapping_folder(tmp_path):
    path = _pack(tmp_path / "x.zip", {"train/rose/a.png": _image()}, "zip")
    assert Folder.list_images(path, Options()).splits["train"].ids == ["train/rose/a.png"]


def test_a_folder_that_links_lead_to_is_listed_once(tmp_path):
    datasets.write(tmp_path / "in" / "rose" / "a.png", _image())
    datasets.write(tmp_path / "elsewhere" / "b.png", _image(1))
    (tmp_path / "in" / "rose" / "up").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "again").symlink_to(tmp_path / "in" / "rose")
    (tmp_path / "in" / "more").symlink_to(tmp_path / "elsewhere")
    assert stores.open_store(tmp_path / "in").names == ["more/b.png", "rose/a.png"]
    (tmp_path / "in" / "c.png").symlink_to(tmp_path / "nowhere")
    store = stores.open_store(tmp_path / "in")
    assert store.names[0] == "c.png" and store.size("c.png") is None


def _patch(path, change):
    """Changes both headers of the first file of a zip: next to the file and in the directory."""
    data = bytearray(path.read_bytes())
    for signature, start in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        change(data, data.index(signature) + start)
    path.write_bytes(data)


def _encrypt(data, flags):
    data[flags] |= 1


def _set_method_97(data, flags):
    data[flags + 2] = 97  # an unknown compression method


BROKEN_ZIPS = {
    "encrypted": (lambda path: _patch(path, _encrypt), "encrypted"),
    "compression": (
        lambda path: _patch(path, _set_method_97),
        "compression method is not supported",
    ),
    "changed": (
        lambda path: path.write_bytes(path.read_bytes().replace(b"the table", b"The table")),
        "Bad CRC-32",
    ),
}


@pytest.mark.parametrize("name", BROKEN_ZIPS)
def test_errors_of_unreadable_zips_are_one_sentence(tmp_path, name):
    damage, words = BROKEN_ZIPS[name]
    path = _pack(tmp_path / "x.zip", {"list.txt": b"the table", "a.png": _image()}, "zip")
    damage(path)
    store = stores.open_store(path)
    for read in (store.read, store.find, store.extra):
        with pytest.raises(DataError, match=rf"list.txt in .*x.zip cannot be read: .*{words}"):
            read("list.txt")


def test_file_names_that_are_not_utf8(tmp_path):
    datasets.write(tmp_path / "in" / "a.png", _image())
    (tmp_path / "in" / os.fsdecode(b"b\xff.png")).write_bytes(_image())
    with pytest.raises(DataError, match=r"name is not UTF-8, b.*ff\.png; rename it") as caught:
        stores.open_store(tmp_path / "in")
    str(caught.value).encode()
