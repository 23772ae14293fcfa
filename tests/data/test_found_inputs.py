"""Inputs that users of this field report: odd EXIF, archives of Windows, tables, single classes."""

import io
import logging
import zipfile

import numpy as np
import pytest
from PIL import Image

from dbae_jax.data import transforms
from dbae_jax.data.builders import annotations
from dbae_jax.data.builders.celeba import Celeba
from dbae_jax.data.builders.folder import Folder
from dbae_jax.data.builders.listing import Options
from dbae_jax.data.files import tables
from dbae_jax.errors import DataError
from tests.helpers import datasets, odd_images


@pytest.mark.parametrize("tag", [odd_images.MAKE, odd_images.RESOLUTION_UNIT])
def test_odd_exif_does_not_matter(tmp_path, tag, caplog):
    data = odd_images.with_odd_exif(tag)
    assert transforms.decode(data).size == (24, 32)  # turned upright
    upright = transforms.decode(odd_images.with_odd_exif(tag, orientation=1))
    turned = transforms.decode(data).transpose(Image.Transpose.ROTATE_90)
    np.testing.assert_array_equal(np.asarray(turned), np.asarray(upright))
    for i in range(11):
        datasets.write(tmp_path / "in" / f"{i}.jpg", datasets.encode(datasets.picture(i, 32, 24)))
    datasets.write(tmp_path / "in" / "photo.jpg", data)
    with caplog.at_level(logging.INFO, "dbae_jax"):
        datasets.build(Folder, tmp_path / "in", tmp_path / "data", expected=12)
    assert "1 are rotated as their EXIF orientation states" in caplog.text


def test_copies_of_images_hold_no_exif():
    image = transforms.decode(odd_images.with_odd_exif(odd_images.MAKE, width=64, height=48))
    for encoding in ("png", "webp"):
        copy = Image.open(io.BytesIO(transforms.shrink(image, 16, encoding)))
        assert not copy.getexif() and copy.size == (16, 16)


def _zipped(path, names, change):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as file:
        for i, name in enumerate(names):
            info = zipfile.ZipInfo("placeholder")
            info.filename = info.orig_filename = change(name)  # as it is, also with "\\"
            file.writestr(info, datasets.encode(datasets.picture(i, 20, 20)))
    return path


def test_a_zip_of_windows_reads_as_another_one(tmp_path):
    names = [
        f"flowers/{split}/{kind}/{i}.png"
        for split in ("train", "test")
        for kind in ("rose", "tulip")
        for i in range(3)
    ]
    slash = Folder.list_images(_zipped(tmp_path / "a" / "x.zip", names, str), Options())
    windows = _zipped(tmp_path / "b" / "x.zip", names, lambda name: name.replace("/", "\\"))
    with zipfile.ZipFile(windows) as file:
        assert "flowers\\train\\rose\\0.png" in {m.orig_filename for m in file.infolist()}
    back = Folder.list_images(windows, Options())
    assert back.class_names == ("rose", "tulip")
    assert {s: list(p.ids) for s, p in back.splits.items()} == {
        s: list(p.ids) for s, p in slash.splits.items()
    }
    assert len(back.splits["train"].ids) == len(back.splits["test"].ids) == 6
    assert back.store.read(back.splits["test"].names[0])


def test_celeba_as_kaggle_hands_it_out(tmp_path):
    published = datasets.celeba(tmp_path / "published")
    kaggle = tmp_path / "kaggle"
    for path in (published / "img_align_celeba").iterdir():
        inner = kaggle / "img_align_celeba" / "img_align_celeba"
        datasets.write(inner / path.name, path.read_bytes())
    lines = (published / "Anno" / "list_attr_celeba.txt").read_text().splitlines()
    rows = [["image_id", *lines[1].split()], *(line.split() for line in lines[2:])]
    datasets.write_csv(kaggle / "list_attr_celeba.csv", rows)
    lines = (published / "Eval" / "list_eval_partition.txt").read_text().splitlines()
    rows = [["image_id", "partition"], *(line.split() for line in lines)]
    datasets.write_csv(kaggle / "list_eval_partition.csv", rows)
    found, want = (Celeba.list_images(p, Options(check=False)) for p in (kaggle, published))
    assert found.attribute_names == want.attribute_names
    for split, part in want.splits.items():
        assert found.splits[split].ids == part.ids
        np.testing.assert_array_equal(found.splits[split].attributes, part.attributes)


def test_invisible_characters_in_tables_of_celeba():
    found = annotations.celeba_attributes(b"image_id,a,b\n1.jpg,\x1d1, -1\n", "list.csv")
    np.testing.assert_array_equal(found.values, [[1, 0]])


ROWS = [["file", "size", "red"], ["a.png", "1", "0"], ["b.png", "2.5", "1"]]


def _csv(rows, separator=","):
    return "\n".join(separator.join(row) for row in rows) + "\n"


@pytest.mark.parametrize(
    "data",
    [
        _csv(ROWS).encode(),
        _csv(ROWS, ";").encode(),
        _csv(ROWS, "\t").encode(),
        _csv(ROWS, ";").replace("2.5", "2,5").encode(),  # as Excel writes it in half of Europe
        _csv(ROWS).replace("\n", "\r\n").encode("utf-8-sig"),
        _csv(ROWS, "\t").encode("utf-16"),
        _csv(ROWS).encode("utf-16-le"),
        _csv(ROWS).encode("utf-16-be"),
        _csv([ROWS[0], ["./a.png", "1", "no"], ["b.png", "2.5", "YES"]]).encode(),
    ],
)
def test_tables_in_other_separators_and_encodings(data):
    found, _ = tables.attributes(tables.read(data, "x.csv"))
    assert found.names == ("size", "red") and found.rows == {"a.png": 0, "b.png": 1}
    np.testing.assert_array_equal(found.values, np.float32([[1, 0], [2.5, 1]]))


def test_a_table_in_latin_1():
    data = "file,größe\nü.png,1\n".encode("latin-1")
    table = tables.read(data, "x.csv")
    assert table.header[1] == "größe" and table.rows[0][1][0] == "ü.png"
    assert table.encoding == "Latin-1 (Windows)"


def test_binary_attributes_in_any_notation():
    words = ["file,a,b,c,d", "x,-1,true,yes,0", "y,1,False,NO,1"]
    found, notes = tables.attributes(tables.read("\n".join(words).encode(), "t.csv"))
    assert found.values.dtype == np.int8
    np.testing.assert_array_equal(found.values, [[0, 1, 1, 0], [1, 0, 0, 1]])
    assert "4 binary attributes" in notes[0]
    assert any("-1 and 1 were read as 0 and 1: 1 columns" in note for note in notes)
    found, notes = tables.attributes(tables.read(b"file,a,b\nx,-1,0.5\ny,1,2\n", "t.csv"))
    np.testing.assert_array_equal(found.values, np.float32([[0, 0.5], [1, 2]]))
    assert "1 real-valued ones (b), so the probe scores all" in notes[0]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"file,a,a\nx,1,2\n", "t.csv has two columns named 'a'"),
        (b"file,a,\nx,1,2\n", "t.csv: column 3 has no name"),
        (b"file,a\nx,1\ny,red\n", r"line 3: 'red' is not a finite number in the column 'a' of 'y'"),
        (b"file,a\nx,\n", "line 2: the cell is empty in the column 'a' of 'x'"),
        (b"file,a\nx,1e999\n", "'1e999' is not a finite"),
        (b"file,a\nx,1_0\n", "'1_0' is not a finite"),
        (b"file,a\nx,1,2\n", "line 2: the row of 'x' has 3 cells, and the header has 2"),
        (b"file,a\nx,1\nx,2\n", "t.csv lists 'x' twice"),
        (b"file\nx\n", "must have a header"),
        (b"", "must have a header"),
        (b"file,k\n" + 200_000 * b"a", "cannot be read as a CSV"),
        (b"\xff\xfe\x00", "is not a text file"),
        (bytes(range(256)), "is not a text file|must have a header"),
    ],
)
def test_errors_of_tables_name_column_and_value(data, words):
    with pytest.raises(DataError, match=words) as caught:
        tables.attributes(tables.read(data, "t.csv"))
    assert "\n" not in str(caught.value)


def test_one_class_is_no_class(tmp_path):
    for i in range(12):
        datasets.write(
            tmp_path / "in" / "flowers" / f"{i}.png", datasets.encode(datasets.picture(i, 20, 20))
        )
    listing = Folder.list_images(tmp_path / "in", Options())
    assert listing.class_names == () and listing.splits["train"].labels is None
    assert any("One class is no class" in note for note in listing.notes)


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [("pgm", "ppm"), ("PGM", "ppm"), ("gif", "gif"), ("JFIF", "jpeg"), ("avif", "avif")],
)
def test_further_kinds_of_files_are_read(tmp_path, suffix, kind):
    mode = "L" if suffix.lower() == "pgm" else "RGB"
    for i in range(3):
        image = datasets.picture(i, 20, 20, mode)
        datasets.write(tmp_path / "in" / "s1" / f"{i}.{suffix}", datasets.encode(image, kind))
    datasets.write(tmp_path / "in" / "notes.txt", "x")
    builder = datasets.build(Folder, tmp_path / "in", tmp_path / "data")
    assert builder.listing.count() == 3
    assert builder.listing.store.aside == {".txt": 1}
    read = datasets.read("folder", tmp_path / "data", channels=1 if mode == "L" else 3)
    assert read[0]["image"].shape[:2] == (16, 16)


def test_a_source_without_images_says_what_it_holds(tmp_path):
    for name in ("a.npy", "b.npy", "sub/c.mat", ".hidden.png", "d"):
        datasets.write(tmp_path / "in" / name, b"x")
    with pytest.raises(DataError, match=r"holds no images but 1 .mat, 2 .npy, 1 hidden, 1 no suf"):
        Folder.list_images(tmp_path / "in", Options())
    datasets.write(tmp_path / "in" / "flowers.zip", b"x")
    with pytest.raises(DataError, match=r"did you mean --source=.*flowers\.zip\?"):
        Folder.list_images(tmp_path / "in", Options())
