"""Damages files and texts at random: only errors of this package may come out of their readers.

python -m tests.campaigns.fuzz_inputs --seconds=600
python -m tests.campaigns.fuzz_inputs --seconds=60 --readers=images,tables

Each reader gets the seconds. What raises another error is written to --keep, and the exit code is
1. Messages of C libraries on stderr can be sent to /dev/null; the result is on stdout.
"""

import argparse
import collections
import functools
import io
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable

import lmdb
import numpy as np
import safetensors.numpy

from dbae_jax.configuration import arguments, config, config_files
from dbae_jax.data import lmdb_files, transforms
from dbae_jax.data.builders import annotations
from dbae_jax.data.files import archives, tables
from dbae_jax.errors import DBAEError
from dbae_jax.runtime import tensor_files
from tests.helpers import datasets, odd_images

NUMBERS = (b"\0", b"\x01", b"\x7f", b"\x80", b"\xff", b"\xff\xff\xff\xff", b"\0\0\0\x80", b"-1")
WORDS = (b",", b";", b"\t", b"\n", b"\r", b'"', b"nan", b"1e999", b"", b"\xef\xbb\xbf", b"0", b" ")


def damaged(data: bytes, rng: np.random.Generator, head: int = 700) -> bytes:
    """Returns the bytes with one to four changes, most of them in the first `head` bytes."""
    content = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        length = min(len(content), head) if rng.random() < 0.8 else len(content)
        at, kind = int(rng.integers(0, max(length, 1))), rng.integers(0, 5)
        if kind == 0:
            content[at : at + 1] = bytes([rng.integers(0, 256)])
        elif kind == 1:
            piece = (NUMBERS + WORDS)[rng.integers(0, len(NUMBERS) + len(WORDS))]
            content[at : at + len(piece)] = piece
        elif kind == 2:
            del content[at : at + int(rng.integers(1, 12))]
        elif kind == 3:
            piece = (NUMBERS + WORDS)[rng.integers(0, len(NUMBERS) + len(WORDS))]
            content[at:at] = piece
        else:
            del content[at + 1 :]
    return bytes(content)


def image_files() -> list[bytes]:
    """Returns small files of many formats, with EXIF, palettes and transparency."""
    color, gray = datasets.picture(0, 24, 20), datasets.picture(1, 24, 20, "L")
    exif = {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"}
    kinds = ("jpeg", "png", "webp", "tiff", "bmp", "gif", "ppm", "jpeg2000", "avif")
    return [
        *(datasets.encode(color, kind) for kind in kinds),
        *(datasets.encode(color, "tiff", compression=c) for c in ("tiff_lzw", "jpeg", "packbits")),
        datasets.encode(color.convert("1"), "tiff", compression="group4"),
        *(datasets.encode(gray, kind) for kind in ("png", "ppm", "jpeg")),
        *(datasets.encode(color.convert("P"), kind) for kind in ("bmp", "png", "gif")),
        datasets.encode(color.convert("CMYK"), "jpeg"),
        *(datasets.encode(color, kind, **exif) for kind in ("jpeg", "png", "webp")),
        odd_images.with_odd_exif(odd_images.MAKE),
        odd_images.hidden_under_transparency("P"),
        *(odd_images.animated(kind) for kind in ("gif", "png", "webp", "tiff")),
    ]


def read_image(data: bytes) -> None:
    """Reads an image as training does."""
    transforms.load(data, crop="short", size=16, channels=3)
    transforms.shrink(transforms.decode(data), 16, "png")


def table_files() -> list[bytes]:
    """Returns tables of attributes in several separators and encodings."""
    text = "file,size,red\na.png,1,-1\nb.png,2.5,1\nü.png,-3e2,1\n"
    forms = [text, text.replace(",", ";"), text.replace(",", "\t"), text.replace("1", "yes")]
    encodings = ("utf-8", "utf-8-sig", "utf-16", "latin-1")
    return [form.encode(encoding) for form in forms for encoding in encodings]


def celeba_files() -> list[bytes]:
    """Returns attribute and partition files of CelebA, as text and as CSV."""
    keys = [f"{i:06d}.jpg" for i in range(1, 8)]
    rows = datasets.attribute_file(keys)
    partition = "".join(f"{key} {i % 3}\n" for i, key in enumerate(keys))
    lines = [line.split() for line in rows.splitlines()]
    csv = "\n".join(",".join(line) for line in [["image_id", *lines[1]], *lines[2:]])
    return [text.encode() for text in (rows, partition, csv, partition.replace(" ", ","))]


def read_celeba(data: bytes) -> None:
    """Reads a table of CelebA in each of the four ways; the first error is that of the last."""
    last = None
    for read in (annotations.celeba_attributes, annotations.celeba_partition):
        for name in ("list.txt", "list.csv"):
            try:
                read(data, name)
            except DBAEError as error:
                last = error
    if last is not None:
        raise last


def weight_files(suffix: str) -> list[bytes]:
    """Returns small state dicts as .safetensors or as files of PyTorch."""
    values = {"a.weight": np.ones((2, 3), np.float32), "b": np.zeros(3, np.int64)}
    if suffix == ".safetensors":
        return [safetensors.numpy.save(values, {"format": "x"})]
    import torch

    made = []
    for zipped in (True, False):
        for content in (values, {"state_dict": values, "epoch": 3}):
            buffer = io.BytesIO()
            tensors = {
                key: {k: torch.tensor(v) for k, v in value.items()}
                if isinstance(value, dict)
                else torch.tensor(value)
                for key, value in content.items()
            }
            torch.save(tensors, buffer, _use_new_zipfile_serialization=zipped)
            made.append(buffer.getvalue())
    return made


def lmdb_file() -> list[bytes]:
    """Returns the file of a DiffAE LMDB with three images."""
    with tempfile.TemporaryDirectory() as folder:
        images = [datasets.encode(datasets.picture(i, 16, 16)) for i in range(3)]
        environment = lmdb.open(folder, map_size=2**20)
        with environment.begin(write=True) as transaction:
            for i, image in enumerate(images):
                transaction.put(f"256-{i:05d}".encode(), image)
            transaction.put(b"length", b"3")
        environment.close()
        return [pathlib.Path(folder, "data.mdb").read_bytes()]


def read_lmdb(path: pathlib.Path) -> None:
    """Reads all images of an LMDB."""
    opened = lmdb_files.open_images(path)
    keys = opened.keys() if isinstance(opened, lmdb_files.HashedImages) else range(len(opened))
    for key in list(keys)[:10]:
        opened.read(key)


def archive_files() -> list[bytes]:
    """Returns a zip and tars of two images and a table."""
    import tarfile
    import zipfile

    entries = {"in/a.png": datasets.encode(datasets.picture(0, 8, 8)), "in/attributes.csv": b"x,y"}
    made = []
    for mode in ("w", "w:gz", "w:bz2", "w:xz"):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode=mode) as tar:
            for name, data in entries.items():
                datasets._add(tar, name, data)
        made.append(buffer.getvalue())
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in entries.items():
            file.writestr(name, data)
    return [*made, buffer.getvalue()]


def read_archive(path: pathlib.Path) -> None:
    """Lists and reads an archive."""
    store = archives.open_archive(path)
    for name in store.names:
        store.read(name)


def override_texts() -> list[bytes]:
    """Returns overrides of config keys."""
    keys = ("seed=1", "data.image_size=32", "data.background=white", "model.latent_dim=8")
    keys += ("optim.learning_rate=1e-3", "train.frozen=('unet',)", "sample.steps=5", "data.lmdb=a")
    keys += ("model.encoder.channel_mult=(1,2)", "bridge.t_min=None", "data.flip=False")
    return [key.encode() for key in keys]


def read_override(data: bytes) -> None:
    """Reads an override of the config digits, and checks the config."""
    loaded = config_files.load(config_files.resolve("digits"))
    text = data.decode("utf-8", "replace")
    problem = arguments.explain_overrides([f"--config.{text}"], loaded)
    key, equals, value = text.partition("=")
    if problem or not equals:
        return
    values = loaded.to_dict()
    *sections, last = key.split(".")
    section = functools.reduce(lambda node, name: node[name], sections, values)
    known = {int: int, float: float, bool: lambda text: text.lower() in ("true", "1")}
    convert = known.get(type(section[last]), str)
    try:
        section[last] = convert(value)
    except ValueError:
        return
    config.from_dict(values)


def _in_file(read: Callable[[pathlib.Path], object], name: str) -> Callable[[bytes], None]:
    """Returns a reader of bytes that writes them to a file first."""
    folder = tempfile.mkdtemp()
    numbers = iter(range(10**9))

    def reader(data: bytes) -> None:
        path = pathlib.Path(folder, f"{next(numbers)}{name}")
        path.write_bytes(data)
        try:
            read(path)
        finally:
            path.unlink()

    return reader


READERS: dict[str, tuple[Callable[[], list[bytes]], Callable[[], Callable[[bytes], None]]]] = {
    "images": (image_files, lambda: read_image),
    "tables": (table_files, lambda: lambda data: tables.attributes(tables.read(data, "t.csv"))),
    "celeba": (celeba_files, lambda: read_celeba),
    "safetensors": (
        lambda: weight_files(".safetensors"),
        lambda: _in_file(tensor_files.read_state_dict, ".safetensors"),
    ),
    "pt": (lambda: weight_files(".pt"), lambda: _in_file(tensor_files.read_state_dict, ".pt")),
    "lmdb": (lmdb_file, lambda: _in_file(read_lmdb, ".lmdb")),
    "archives": (archive_files, lambda: _in_file(read_archive, "x")),
    "overrides": (override_texts, lambda: read_override),
}


def fuzz(name: str, seconds: float, seed: int, keep: pathlib.Path | None) -> tuple[int, int, dict]:
    """Returns how many inputs were tried and refused, and the errors that are not ours."""
    rng, made = np.random.default_rng(seed), READERS[name][0]()
    read, wrong, counts = READERS[name][1](), collections.Counter(), [0, 0]
    head = {"lmdb": 20_000, "overrides": 60}.get(name, 700)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        data = damaged(made[rng.integers(0, len(made))], rng, head)
        counts[0] += 1
        try:
            read(data)
            continue
        except DBAEError as error:
            counts[1] += 1
            if "\n" not in str(error):
                continue
            found = "a sentence of more than one line"
        except Exception as error:
            found = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
        if keep and not wrong[found]:
            keep.mkdir(parents=True, exist_ok=True)
            (keep / f"{name}_{len(wrong)}").write_bytes(data)
        wrong[found] += 1
    return counts[0], counts[1], dict(wrong)


def main() -> int:
    """Fuzzes the readers that the flags name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--readers", default=",".join(READERS))
    parser.add_argument("--keep", type=pathlib.Path)
    given = parser.parse_args()
    failed = False
    for name in given.readers.split(","):
        tried, refused, wrong = fuzz(name, given.seconds, given.seed, given.keep)
        total = sum(wrong.values())
        print(f"{name}: {tried:,} inputs, {refused:,} refused, {total} other errors", flush=True)
        for error, count in sorted(wrong.items(), key=lambda item: -item[1]):
            print(f"    {count} {error}")
        failed |= bool(wrong)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
