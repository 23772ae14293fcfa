"""Errors of builders for published files that are missing, damaged or changed."""

import pytest

from dbae_jax.data.builders.celeba import Celeba
from dbae_jax.data.builders.celebahq import Celebahq
from dbae_jax.data.builders.emoji import Emoji
from dbae_jax.data.builders.ffhq import Ffhq
from dbae_jax.data.builders.folder import Folder
from dbae_jax.data.builders.lfw import Lfw
from dbae_jax.data.builders.listing import Options
from dbae_jax.data.builders.lsun import Horse
from dbae_jax.errors import DataError
from tests.helpers import datasets


def _edit_file(root, name, change):
    path = next(root.rglob(name))
    path.write_text(change(path.read_text()))


WRONG_SOURCES = {
    "no source": (Ffhq, lambda root: None, "does not exist"),
    "no images": (Ffhq, lambda root: datasets.write(root / "a.txt", "x"), "holds no images"),
    "name without a number": (
        Ffhq,
        lambda root: datasets.write(datasets.ffhq(root) / "thumb.png", b"x"),
        "--source holds thumb.png, which is not named by a number",
    ),
    "image in two folders": (
        Ffhq,
        lambda root: datasets.write(datasets.ffhq(root) / "thumbs" / "09998.png", b"x"),
        "have the same name",
    ),
    "no attributes": (
        Celeba,
        lambda root: next(datasets.celeba(root).rglob("list_attr*")).unlink(),
        "list_attr_celeba.txt or list_attr_celeba.csv is missing .* --annotations",
    ),
    "wrong count": (
        Celeba,
        lambda root: _edit_file(datasets.celeba(root), "list_attr*", lambda t: "11" + t[2:]),
        "states 11 rows but contains 10",
    ),
    "short row": (
        Celeba,
        lambda root: _edit_file(
            datasets.celeba(root), "list_attr*", lambda t: t.rstrip().rpartition(" ")[0] + "\n"
        ),
        "must hold 4 values",
    ),
    "row twice": (
        Celebahq,
        lambda root: _edit_file(
            datasets.celebahq(root), "*anno.txt", lambda t: t.replace("11.jpg", "1.jpg")
        ),
        "lists '1' twice",
    ),
    "image without a row": (
        Celeba,
        lambda root: datasets.write(
            datasets.celeba(root) / "img_align_celeba" / "000099.jpg", b"x"
        ),
        "has no row for img_align_celeba.000099.jpg|has no row for 000099.jpg",
    ),
    "image missing": (
        Celeba,
        lambda root: (datasets.celeba(root) / "img_align_celeba" / "000003.jpg").unlink(),
        "images are missing: the annotation files name 000003, .* --allow_partial",
    ),
    "partition": (
        Celeba,
        lambda root: _edit_file(
            datasets.celeba(root), "list_eval*", lambda t: t.replace("jpg 2", "jpg 3")
        ),
        "got '000008.jpg 3'",
    ),
    "LSUN without its LMDB": (Horse, lambda root: root.mkdir(), "holds no horse"),
    "broken tar": (
        Lfw,
        lambda root: datasets.write(datasets.lfw(root) / "lfw-funneled.tgz", b"x"),
        "cannot be read as a tar file",
    ),
    "LFW header": (
        Lfw,
        lambda root: _edit_file(datasets.lfw(root), "lfw_attr*", lambda t: t.replace("#\t", "")),
        "no header line",
    ),
    "LFW people": (
        Lfw,
        lambda root: _edit_file(datasets.lfw(root), "*DevTest.txt", lambda t: "7" + t[1:]),
        "peopleDevTest.txt must start with the number of people",
    ),
    "emoji table": (
        Emoji,
        lambda root: [
            datasets.write(root / "emoji.json", "[{}]"),
            datasets.write(
                root / "img/google/64/1f600.png", datasets.encode(datasets.picture(0, 64, 64))
            ),
        ],
        "emoji.json is not the table of emoji-datasource-google",
    ),
    "broken zip": (
        Ffhq,
        lambda root: datasets.write(root.with_name("x") / "in.zip", b"x").rename(root),
        "is of an unknown type; it must be a folder, a .zip",
    ),
    "outside the splits": (
        Folder,
        lambda root: [
            datasets.write(root / n, b"x") for n in ("train/a.png", "test/b.png", "c.png")
        ],
        "c.png lies outside the folders of splits in --source, test, train",
    ),
    "half split": (
        Folder,
        lambda root: datasets.write(root / "test" / "a.png", b"x"),
        "--source has a folder test, and none of training images",
    ),
    "table without a row": (
        Folder,
        lambda root: datasets.write_csv(
            datasets.write(root / "a.png", b"x").parent / "attributes.csv", [["f", "k"], ["b", 1]]
        ),
        "attributes.csv has no row for a.png",
    ),
    "table without numbers": (
        Folder,
        lambda root: datasets.write_csv(
            datasets.write(root / "a.png", b"x").parent / "attributes.csv",
            [["f", "k"], ["a.png", "red"]],
        ),
        "line 2: 'red' is not a finite number in the column 'k' of 'a.png'",
    ),
}


@pytest.mark.parametrize("name", WRONG_SOURCES)
def test_errors_of_wrong_sources_are_one_sentence(tmp_path, name):
    kind, make, words = WRONG_SOURCES[name]
    make(tmp_path / "in")
    with pytest.raises(DataError, match=words) as caught:
        kind.list_images(tmp_path / "in", Options(check=False))
    assert "\n" not in str(caught.value)


def test_published_checksums_are_compared(tmp_path):
    source = datasets.celeba(tmp_path / "celeba")
    with pytest.raises(DataError, match=r"list_attr_celeba.txt is not the .* --skip_checksums"):
        Celeba.list_images(source, Options())
    with pytest.raises(DataError, match=r"lfw-funneled.tgz is not the published file: its md5"):
        Lfw.list_images(datasets.lfw(tmp_path / "lfw"), Options())
