"""How a folder or an archive is read: splits under any usual name, odd files, links, archives."""

import io
import logging
import os
import tarfile
import unicodedata
import zipfile

import numpy as np
import pytest

from dbae_jax.configuration.sections import DataConfig
from dbae_jax.data import registry
from dbae_jax.data.builders.folder import Folder
from dbae_jax.data.builders.listing import Options
from dbae_jax.data.builders.preparation_file import read_preparation
from dbae_jax.data.files import archives, stores
from dbae_jax.errors import DataError
from tests.helpers import datasets, tiny

IMAGE = datasets.encode(datasets.picture(0, 20, 20))


def _write(root, names):
    for i, name in enumerate(names):
        datasets.write(root / name, datasets.encode(datasets.picture(i, 20, 20)))
    return root


def _splits(root):
    listing = Folder.list_images(root, Options())
    return {name: list(part.ids) for name, part in listing.splits.items()}, listing


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("train", "val", "test"),
        ("Training", "Valid", "Testing"),
        ("TRAIN", "dev", "TEST"),
        ("training", "Validation", "test"),
    ],
)
def test_usual_names_of_splits(tmp_path, train, validation, test):
    folders = (train, validation, test)
    names = [f"{folder}/{kind}/a.png" for folder in folders for kind in ("x", "y")]
    found, listing = _splits(_write(tmp_path / "in", names))
    assert found == {
        split: [f"{folder}/x/a.png", f"{folder}/y/a.png"]
        for split, folder in zip(("train", "validation", "test"), folders, strict=True)
    }
    assert listing.class_names == ("x", "y")
    assert f"{train}/ as train" in listing.notes[0]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["flowers/Training/a.png", "flowers/Test/b.png"], r"flowers/Test, which looks like the s"),
        (["rose/train/a.png", "tulip/train/b.png"], r"rose/train, which looks like the split trai"),
        (["train/a.png", "Train/b.png"], "which both mean the split train"),
        (["bus/a.png", "car/b.png", "train/c.png"], "bus/a.png lies outside .* no split but a cla"),
        (["val/a.png"], "a folder val, and none of training images"),
    ],
)
def test_readings_that_would_spoil_results_are_refused(tmp_path, names, words):
    with pytest.raises(DataError, match=words):
        Folder.list_images(_write(tmp_path / "in", names), Options())


def test_a_class_may_be_named_like_a_split_below_a_split(tmp_path):
    names = ["train/bus/a.png", "train/train/b.png"]
    assert _splits(_write(tmp_path / "in", names))[1].class_names == ("bus", "train")


def test_a_data_set_without_test_images(tmp_path, caplog):
    _write(tmp_path / "in", [f"train/{kind}/{i}.png" for kind in "ab" for i in range(4)])
    datasets.build(Folder, tmp_path / "in", tmp_path / "data")
    data = tiny.config(
        **{"data.name": "folder", "data.channels": 3, "data.data_dir": str(tmp_path / "data")}
    ).data
    assert isinstance(data, DataConfig) and not registry.has_test(data)
    with caplog.at_level(logging.INFO, "dbae_jax"):
        splits = {split: registry.make_source(data, split) for split in ("train", "test")}
        registry.describe(data, splits)
    assert "folder has no split 'test': training images take its place" in caplog.text
    assert "folder at 16x16x3, 8 train images, no other test images" in caplog.text
    assert "2 classes" in caplog.text
    assert splits["test"].overlaps(splits["train"])


def test_what_was_found_is_kept_and_told(tmp_path, caplog):
    _write(tmp_path / "in", [f"rose/{i}.png" for i in range(30)] + ["tulip/a.PNG"])
    datasets.write(tmp_path / "in" / "tulip" / "x.jpg", IMAGE)  # a PNG by its content
    for name in ("notes.txt", "Thumbs.db", ".DS_Store", "@eaDir/b.png", "rose/raw.cr2"):
        datasets.write(tmp_path / "in" / name, IMAGE)
    with caplog.at_level(logging.INFO, "dbae_jax"):
        builder = datasets.build(Folder, tmp_path / "in", tmp_path / "data")
    for line in (
        "Images: 1 .jpg, 31 .png.",
        "Left aside, since they are no images: 1 .cr2, 1 .txt, 2 hidden.",
        "The 2 sub-folders were taken for classes: rose, tulip.",
        "The files are stored as they are; the images are in colour.",
    ):
        assert line in caplog.text, line
    report = read_preparation(builder.final_path)
    assert report["classes"]["train"]["rose"] + report["classes"]["test"]["rose"] == 30
    assert report["seen"] == {"side 16": 32}


def test_odd_files_among_images_are_broken_and_not_the_end(tmp_path):
    _write(tmp_path / "in", [f"{i}.png" for i in range(20)])
    os.mkfifo(tmp_path / "in" / "pipe.png")
    (tmp_path / "in" / "loop.png").symlink_to(tmp_path / "in" / "loop.png")
    (tmp_path / "in" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    datasets.write(tmp_path / "in" / "empty.png", b"")
    (tmp_path / "in" / "folder.png").mkdir()
    with pytest.raises(DataError, match="4 of 24 images are broken"):
        datasets.build(Folder, tmp_path / "in", tmp_path / "data")
    builder = datasets.build(Folder, tmp_path / "in", tmp_path / "data", allow_broken=4)
    broken = {b["name"]: b["reason"] for b in read_preparation(builder.final_path)["broken"]}
    assert "is not a regular file" in broken["pipe.png"]
    assert "the file is empty" in broken["empty.png"]
    assert "No such file" in broken["gone.png"] and "cannot be read" in broken["loop.png"]


def test_a_file_that_goes_away_during_the_preparation_is_broken(tmp_path):
    _write(tmp_path / "in", [f"{i:02}.png" for i in range(40)])
    listing = Folder.list_images(tmp_path / "in", Options())
    builder = Folder(listing=listing, data_dir=tmp_path / "data")
    (tmp_path / "in" / "05.png").unlink()
    with pytest.raises(DataError, match=r"1 of 40 images are broken, such as 05.png"):
        builder.prepare()


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    _write(tmp_path / "in", ["a/x.png", "b/y.png"])
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"the folder .*in/b cannot be read: Permission denied"):
        stores.open_store(tmp_path / "in")


def test_names_in_both_unicode_forms_are_one_class_and_have_one_row(tmp_path):
    composed, decomposed = (unicodedata.normalize(f, "grün") for f in ("NFC", "NFD"))
    _write(tmp_path / "in", [f"{composed}/a.png", f"{decomposed}/b.png", "rot/c.png"])
    rows = [["file", "k"], [f"{decomposed}/a.png", 1], [f"{composed}/b.png", 0], ["c.png", 1]]
    datasets.write_csv(tmp_path / "in" / "attributes.csv", rows)
    _, listing = _splits(tmp_path / "in")
    assert listing.class_names == (composed, "rot")
    assert sum(part.attributes.sum() for part in listing.splits.values()) == 2


def test_two_images_of_one_name_in_two_forms_are_refused(tmp_path):
    names = [unicodedata.normalize(form, "grün.png") for form in ("NFC", "NFD")]
    with pytest.raises(DataError, match=r"two images of the name gr"):
        Folder.list_images(_write(tmp_path / "in", names), Options())


def test_a_table_in_a_zip_is_found_in_upper_case(tmp_path):
    path = tmp_path / "in.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("images/a.png", IMAGE)
        file.writestr("images/Attributes.CSV", "file,k\na.png,1\n")
    assert Folder.list_images(path, Options()).attribute_names == ("k",)


def test_names_with_line_breaks_are_named_in_one_line(tmp_path):
    _write(tmp_path / "in", ["a\nb.png"])
    with pytest.raises(DataError, match=r"has control characters, 'a\\nb.png'; rename it"):
        stores.open_store(tmp_path / "in")


@pytest.mark.parametrize("name", ["x.TAR", "x.tgz", "x.tar.bz2", "x.Tar.Xz", "x.tbz2", "no_suffix"])
def test_compressions_of_tars(tmp_path, name):
    kind = {"z": "gz", "2": "bz2", "x": "gz"}.get(name[-1], "")
    kind = "xz" if name.lower().endswith("xz") else kind
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{kind}" if kind else "w") as tar:
        datasets._add(tar, "./flowers/a.png", IMAGE)
        datasets._add(tar, "/home/me/flowers/b.png", IMAGE)
        for link, target in (("flowers/c.png", "flowers/a.png"), ("flowers/d.png", "../../x")):
            member = tarfile.TarInfo(link)
            member.type, member.linkname = tarfile.LNKTYPE, target
            tar.addfile(member)
        member = tarfile.TarInfo("flowers/e.png")
        member.type, member.linkname = tarfile.SYMTYPE, "../flowers/a.png"
        tar.addfile(member)
    store = archives.open_archive(datasets.write(tmp_path / name, buffer.getvalue()))
    assert store.names == [
        "flowers/a.png",
        "flowers/c.png",
        "flowers/e.png",
        "home/me/flowers/b.png",
    ]
    assert store.read("flowers/e.png") == IMAGE and store.aside["link"] == 1


@pytest.mark.parametrize("name", ["../a.png", "in/../../a.png", "..\\a.png", "C:\\..\\a.png"])
def test_archives_whose_paths_lead_out_are_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        info = zipfile.ZipInfo("x")
        info.filename = info.orig_filename = name
        file.writestr(info, IMAGE)
    with pytest.raises(DataError, match="a path that leads out of the archive; nothing was read"):
        archives.open_archive(tmp_path / "x.zip")


def test_members_without_a_name_and_folders_are_no_files(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        for name in ("", "in\\", "in/", "in/a.png"):
            info = zipfile.ZipInfo("x")
            info.filename = info.orig_filename = name
            file.writestr(info, IMAGE)
    store = archives.open_archive(tmp_path / "x.zip")
    assert store.names == ["in/a.png"] and not sum(store.aside.values())


@pytest.mark.parametrize("kind", [tarfile.FIFOTYPE, tarfile.CHRTYPE, b"\x80"])
def test_pipes_devices_and_unknown_members_of_a_tar_are_left_aside(tmp_path, kind):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        datasets._add(tar, "in/a.png", IMAGE)
        member = tarfile.TarInfo("in/b.png")
        member.type = kind
        tar.addfile(member)
    store = archives.open_archive(tmp_path / "x.tar")
    assert store.names == ["in/a.png"] and store.aside["special"] == 1


def test_files_in_archives_are_bounded(tmp_path, monkeypatch):
    for kind in ("zip", "tar"):
        path = tmp_path / f"x.{kind}"
        if kind == "zip":
            with zipfile.ZipFile(path, "w") as file:
                file.writestr("a.png", IMAGE)
        else:
            with tarfile.open(path, "w") as tar:
                datasets._add(tar, "a.png", IMAGE)
        with monkeypatch.context() as patch:
            patch.setattr(archives, "MOST_FILE_BYTES", 100)
            with pytest.raises(DataError, match="files of at most 100 are read from an archive"):
                archives.open_archive(path).read("a.png")
    monkeypatch.setattr(archives, "MOST_TAR_BYTES", 100)
    with pytest.raises(DataError, match="more than 100 bytes of images"):
        archives.open_archive(tmp_path / "x.tar")


def test_a_thousand_classes_are_told_in_a_line(tmp_path):
    names = [f"{i:04}/a.png" for i in range(1000)]
    for name in names:
        datasets.write(tmp_path / "in" / name, IMAGE)
    found, listing = _splits(tmp_path / "in")
    assert len(listing.class_names) == 1000 and len(found["train"]) > 800
    assert "0008, 0009 and 990 more" in listing.notes[1]
    assert max(len(note) for note in listing.notes) < 200
    np.testing.assert_array_less(-1, listing.splits["train"].labels)
