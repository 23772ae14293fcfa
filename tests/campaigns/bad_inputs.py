"""Sixty bad inputs, and the sentence that each ends in: no traceback, and nothing half-written.

python -m tests.campaigns.bad_inputs

Prints a table. The exit code is 1 if an input is accepted, or ends in another error.
"""

import io
import os
import pathlib
import struct
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable

import numpy as np
import safetensors.numpy
from PIL import Image

from dbae_jax.api import images, released_weights
from dbae_jax.configuration import config_files, paths
from dbae_jax.data.builders.celeba import Celeba
from dbae_jax.data.builders.folder import Folder
from dbae_jax.data.builders.listing import Options
from dbae_jax.errors import DBAEError
from dbae_jax.runtime import tensor_files
from tests.helpers import datasets, odd_images, tiny

Trial = Callable[[pathlib.Path], object]

PICTURE = datasets.encode(datasets.picture(0, 40, 30))
COLOR = tiny.config(**{"data.channels": 3}).data
GRAY = tiny.config().data


def _image(data: bytes | None, name: str = "a.png", model=COLOR) -> Trial:
    """Gives a file to a model."""

    def trial(root: pathlib.Path) -> None:
        if data is not None:
            datasets.write(root / "photo.png", data)
        images.read_file(root / name if data is None else root / "photo.png", model)

    return trial


def _folder(entries: dict[str, bytes | str], options: Options | None = None, **build) -> Trial:
    """Prepares a folder of these files."""

    def trial(root: pathlib.Path) -> None:
        (root / "in").mkdir()
        for name, data in entries.items():
            datasets.write(root / "in" / name, data)
        datasets.build(Folder, root / "in", root / "data", options, **build)

    return trial


def _archive(name: str, data: bytes) -> Trial:
    """Prepares an archive."""

    def trial(root: pathlib.Path) -> None:
        datasets.write(root / name, data)
        datasets.build(Folder, root / name, root / "data")

    return trial


def _table(text: str | bytes) -> Trial:
    return _folder({"a.png": PICTURE, "b.png": PICTURE, "attributes.csv": text})


def _celeba(change: Callable[[pathlib.Path], object]) -> Trial:
    def trial(root: pathlib.Path) -> None:
        datasets.celeba(root / "in")
        change(root / "in")
        datasets.build(Celeba, root / "in", root / "data")

    return trial


def _weights(data: bytes, name: str = "a.safetensors") -> Trial:
    def trial(root: pathlib.Path) -> None:
        tensor_files.read_state_dict(datasets.write(root / name, data))

    return trial


def _prepared(change: Callable[[pathlib.Path], object], **view) -> Trial:
    """Reads a prepared data set that was changed."""

    def trial(root: pathlib.Path) -> None:
        for i in range(30):
            datasets.write(root / "in" / f"{i}.png", PICTURE)
        datasets.build(Folder, root / "in", root / "ready")
        change(root / "ready" / "folder" / "original" / "1.0.0")
        source = datasets.read("folder", root / "ready", **view)
        [source[i] for i in range(len(source))]

    return trial


def _zip(entries: dict[str, bytes], encrypt: bool = False) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in entries.items():
            file.writestr(name, data)
    data = bytearray(buffer.getvalue())
    if encrypt:
        data[6] |= 1
        data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


def _tar(entries: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        for name, data in entries.items():
            datasets._add(file, name, data)
    return buffer.getvalue()


def _png_of_size(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to have many pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def _sixteen_bit() -> bytes:
    return datasets.encode(Image.fromarray(np.full((9, 9), 40_000, np.uint16)))


def _pipe(root: pathlib.Path) -> None:
    os.mkfifo(root / "a.png")
    images.read_file(root / "a.png", COLOR)


def _pickle() -> bytes:
    return b"cos\nsystem\n(S'touch ran'\ntR."


def _lmdb(change: Callable[[bytes], bytes]) -> Trial:
    def trial(root: pathlib.Path) -> None:
        path = datasets.diffae_lmdb(root / "x.lmdb", [PICTURE] * 3)
        file = path / "data.mdb"
        file.write_bytes(change(file.read_bytes()))
        datasets.read("ffhq", root, lmdb=str(path))

    return trial


def _delete(name: str) -> Callable[[pathlib.Path], object]:
    return lambda root: next(root.rglob(name)).unlink()


def _edit(name: str, change: Callable[[str], str]) -> Callable[[pathlib.Path], object]:
    def edit(root: pathlib.Path) -> None:
        path = next(root.rglob(name))
        path.write_text(change(path.read_text()))

    return edit


WIDE = datasets.encode(Image.new("RGB", (30_000, 8)))
SHORT = tiny.config(**{"data.channels": 3, "data.crop": "short"}).data

TRIALS: dict[str, Trial] = {
    # Images that are given to a model.
    "an empty file": _image(b""),
    "a text file named .png": _image(b"hello"),
    "a web page named .png": _image(b"<html><body>Not found</body></html>"),
    "a drawing (SVG)": _image(b'<svg xmlns="http://www.w3.org/2000/svg"/>'),
    "a PDF": _image(b"%PDF-1.7\n"),
    "half a PNG": _image(PICTURE[: len(PICTURE) // 2]),
    "half a JPEG": _image(odd_images.with_odd_exif(odd_images.MAKE, width=400)[:700]),
    "a PNG of 16 bits": _image(_sixteen_bit()),
    "a PNG that claims 10 gigapixels": _image(_png_of_size(100_000, 100_000)),
    "a strip of 30,000x8 with the crop short": _image(WIDE, model=SHORT),
    "a colour image for a gray model": _image(PICTURE, model=GRAY),
    "a gray image for a colour model": _image(datasets.encode(Image.new("L", (9, 9)))),
    "a missing image": _image(None, "b.png"),
    "a folder as an image": _image(None, "."),
    "a pipe as an image": _pipe,
    "an image on the web": lambda root: images.read_file("https://host/a.png", COLOR),
    # Paths.
    "a bucket as --workdir": lambda root: paths.read("gs://bucket/run", "--workdir"),
    "a variable that is not set": lambda root: paths.read("$NO_SUCH_NAME/a", "--out"),
    "a user who does not exist": lambda root: paths.read("~no-such-user/a", "--workdir"),
    "an empty path": lambda root: paths.read("", "--source"),
    "a workdir that does not exist": lambda root: released_weights.find(root / "runs" / "a"),
    "a config that does not exist": lambda root: config_files.resolve(str(root / "c.py")),
    # Folders of images.
    "a source that does not exist": lambda root: Folder.list_images(root / "x", Options()),
    "an empty folder": _folder({}),
    "a folder of arrays": _folder({"a.npy": b"x", "b.npy": b"x"}),
    "a folder of hidden images": _folder({".a.png": PICTURE, "__MACOSX/b.png": PICTURE}),
    "a folder with a zip in it": _folder({"flowers.zip": _zip({"a.png": PICTURE})}),
    "images that are all broken": _folder({f"{i}.png": b"x" for i in range(3)}),
    "one broken image of twelve": _folder({f"{i}.png": PICTURE if i else b"x" for i in range(12)}),
    "colour among gray images": _folder(
        {f"{i:02}.png": datasets.encode(datasets.picture(i, 9, 9, "L")) for i in range(40)}
        | {"04.png": PICTURE}
    ),
    "a folder test alone": _folder({"test/a.png": PICTURE}),
    "train and Training": _folder({"train/a.png": PICTURE, "Training/b.png": PICTURE}),
    "an image beside train and test": _folder(
        {"train/a.png": PICTURE, "test/b.png": PICTURE, "c.png": PICTURE}
    ),
    "splits below a folder": _folder({"in/Training/a.png": PICTURE, "in/Test/b.png": PICTURE}),
    "splits below classes": _folder({"rose/train/a.png": PICTURE, "rose/test/b.png": PICTURE}),
    # Archives.
    "a broken zip": _archive("x.zip", b"PK\x03\x04garbage"),
    "an empty zip": _archive("x.zip", _zip({})),
    "an encrypted zip": _archive("x.zip", _zip({"a.png": PICTURE}, encrypt=True)),
    "a zip that leads out of its folder": _archive("x.zip", _zip({"../../a.png": PICTURE})),
    "a tar that leads out of its folder": _archive("x.tgz", _tar({"..\\a.png": PICTURE})),
    "half a tar": _archive("x.tar.gz", _tar({"a.png": PICTURE})[:300]),
    "an archive of 7-Zip": _archive("x.7z", b"7z\xbc\xaf\x27\x1c"),
    "one image as a source": _archive("a.PNG", PICTURE),
    # Tables of attributes.
    "a table without a row": _table("file,a\na.png,1\n"),
    "a table with a word": _table("file,a\na.png,1\nb.png,red\n"),
    "a table with an empty cell": _table("file,a\na.png,1\nb.png,\n"),
    "a table with a column twice": _table("file,a,a\na.png,1,0\nb.png,0,1\n"),
    "a table with a row twice": _table("file,a\na.png,1\na.png,0\nb.png,1\n"),
    "a table with a short row": _table("file,a,b\na.png,1,0\nb.png,1\n"),
    "a table of one column": _table("file\na.png\nb.png\n"),
    "a table that is no text": _table(b"\x89PNG\0\0\0\0" * 40),
    "--attributes that does not exist": _folder(
        {"a.png": PICTURE}, Options(table=pathlib.Path("nowhere.csv"))
    ),
    # Published data sets.
    "CelebA without its attributes": _celeba(_delete("list_attr_celeba.txt")),
    "CelebA with a wrong count": _celeba(_edit("list_attr*", lambda t: "11" + t[2:])),
    "CelebA with a fourth split": _celeba(_edit("list_eval*", lambda t: t.replace("g 2", "g 3"))),
    "CelebA without an image": _celeba(_delete("000003.jpg")),
    # LMDB files.
    "half an LMDB": _lmdb(lambda data: data[: len(data) // 2]),
    "an LMDB with a damaged page": _lmdb(lambda data: data[:8192] + b"\xff" * 4096 + data[12288:]),
    "an LMDB that is none": _lmdb(lambda data: b"hello" * 2000),
    # Weights.
    "empty weights": _weights(b""),
    "a web page as weights": _weights(b"<html>", "a.pt"),
    "weights that are code": _weights(_pickle(), "a.ckpt"),
    "weights with another suffix": _weights(b"x", "a.onnx"),
    "weights without an array": _weights(safetensors.numpy.save({"a": np.ones(2)})[:-3]),
    # Prepared data sets.
    "a data set that is not prepared": lambda root: datasets.read("flowers", root),
    "a prepared data set without a shard": _prepared(_delete("*train.array_record*")),
    "a damaged preparation.json": _prepared(_edit("preparation.json", lambda t: t[:40])),
    "a split that does not exist": _prepared(lambda root: None, split="dev"),
    "gray asked of colour images": _prepared(lambda root: None, channels=1),
}


def run() -> tuple[list[tuple[str, str]], list[str]]:
    """Returns (input, sentence) of each trial, and what went wrong."""
    rows, wrong = [], []
    for name, trial in TRIALS.items():
        with tempfile.TemporaryDirectory() as folder:
            root, before = pathlib.Path(folder), set(pathlib.Path.cwd().iterdir())
            try:
                trial(root)
                wrong.append(f"{name}: accepted")
            except DBAEError as error:
                rows.append((name, str(error).replace(folder, "...")))
                if "\n" in str(error):
                    wrong.append(f"{name}: more than one line")
            except Exception as error:
                wrong.append(f"{name}: {type(error).__name__}: {error}")
            finished = list((root / "data").rglob("dataset_info.json"))
            if finished or set(pathlib.Path.cwd().iterdir()) != before:
                wrong.append(f"{name}: files were left")
    return rows, wrong


def main() -> int:
    """Prints the table."""
    rows, wrong = run()
    print("| input | sentence |\n|---|---|")
    for name, sentence in rows:
        print(f"| {name} | {sentence} |")
    print(f"\n{len(rows)} inputs, each refused in a sentence; {len(wrong)} faults")
    print("\n".join(wrong))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
