"""Attribute and split files of the data sets, parsed as published, and their checksums."""

import csv
import dataclasses
import hashlib
import io
import pathlib
from collections.abc import Sequence

import numpy as np

from dbae_jax.data.builders.stores import Store, ZipStore
from dbae_jax.errors import DataError

# Checksums of the published files. Sources: tensorflow-datasets, celeb_a/checksums.tsv;
# torchvision, datasets/lfw.py.
CHECKSUMS = {
    "img_align_celeba.zip": "46fb89443c578308acf364d7d379fe1b9efb793042c0af734b6112e4fd3a8c74",
    "list_attr_celeba.txt": "f0e5da289d5ccf75ffe8811132694922b60f2af59256ed362afa03fefba324d0",
    "list_eval_partition.txt": "fc955bcb3ef8fbdf7d5640d9a8693a8431b5f2ee291a5c1449a1549e7e073fe7",
    "lfw-funneled.tgz": "1b42dfed7d15c9b2dd63d5e5840c86ad",
    "peopleDevTrain.txt": "54eaac34beb6d042ed3a7d883e247a21",
    "peopleDevTest.txt": "e4bf5be0a43b5dcd9dc5ccfcb8fb19c5",
}


@dataclasses.dataclass(frozen=True)
class Attributes:
    """A table of attributes: `values` [N, K], int8 0 or 1 or float32, one row a key of `rows`."""

    names: tuple[str, ...]
    rows: dict[str, int]
    values: np.ndarray

    def select(self, keys: Sequence[str]) -> np.ndarray:
        """Returns the rows [len(keys), K] of the keys, all of which must be there."""
        return self.values[[self.rows[key] for key in keys]]


def read_text(
    name: str,
    source: pathlib.Path,
    *,
    annotations: pathlib.Path | None = None,
    store: Store | None = None,
    check: bool = True,
) -> str:
    """Returns the text of an annotation file.

    Args:
      name: of the file.
      source: of the images; the file is looked for there, one level below, and beside it.
      annotations: folder to look in instead.
      store: of the images; if it is a zip, the file may also lie in it.
      check: compares the checksum, where the published one is known.

    Raises:
      DataError: if the file is missing, is no text, or has another checksum.
    """
    root = annotations or (source if source.is_dir() else source.parent)
    if not root.is_dir():
        raise DataError(f"--annotations={root} is no folder.")
    below = [p for p in sorted(root.iterdir()) if p.is_dir()]
    folders = [root, *below] if annotations else [root, *below, source.parent]
    path = next((folder / name for folder in folders if (folder / name).is_file()), None)
    data = path.read_bytes() if path else None
    if data is None and isinstance(store, ZipStore):
        data = store.find(name)
    if data is None:
        raise DataError(
            f"{name} is missing in {root}; put it there, or name its folder with --annotations."
        )
    if check:
        _compare(str(path or name), name, data)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path or name} is no text file: {error}.") from error


def check_archive(path: pathlib.Path) -> None:
    """Compares an archive with its published checksum, where that is known.

    Raises:
      DataError: if they differ.
    """
    if path.is_file() and path.name in CHECKSUMS:
        with path.open("rb") as file:
            _compare(str(path), path.name, file)


def celeba_attributes(text: str, name: str) -> Attributes:
    """Parses list_attr_celeba.txt or CelebAMask-HQ-attribute-anno.txt.

    Args:
      text: line 1 the count, line 2 the names, then `000001.jpg -1 1 ...`.
      name: of the file, for messages.

    Returns:
      Attributes by the stem of the image's name ("000001"), -1 as 0.

    Raises:
      DataError: for another format, a wrong count, or a row that is missing values or doubled.
    """
    lines = text.splitlines()
    if len(lines) < 3 or not lines[0].strip().isdigit():
        raise DataError(f"{name} must start with a line that holds the count of its rows.")
    names, rows = tuple(lines[1].split()), [line.split() for line in lines[2:] if line.strip()]
    if len(rows) != int(lines[0]):
        raise DataError(f"{name} announces {int(lines[0]):,} rows and holds {len(rows):,}.")
    for row in rows:
        if len(row) != len(names) + 1 or not set(row[1:]) <= {"-1", "1"}:
            raise DataError(f"{name}: the row of {row[0]} must hold {len(names)} values, 1 or -1.")
    values = np.array([row[1:] for row in rows]).astype(np.int8) > 0
    return Attributes(names, _index([_stem(row[0]) for row in rows], name), values.astype(np.int8))


def celeba_partition(text: str, name: str) -> dict[str, str]:
    """Parses list_eval_partition.txt: lines `000001.jpg 0` -> {"000001": "train"}.

    Raises:
      DataError: for another format.
    """
    splits = {"0": "train", "1": "validation", "2": "test"}
    rows = [line.split() for line in text.splitlines() if line.strip()]
    for row in rows:
        if len(row) != 2 or row[1] not in splits:
            raise DataError(f"{name}: lines must be like '000001.jpg 0', got {' '.join(row)!r}.")
    _index([row[0] for row in rows], name)
    return {_stem(row[0]): splits[row[1]] for row in rows}


def lfw_attributes(text: str, name: str) -> Attributes:
    """Parses lfw_attributes.txt: real-valued attributes by "Person_Name_0001".

    Args:
      text: a comment, `#<TAB>person<TAB>imagenum<TAB>names...`, then tab-separated rows.
      name: of the file, for messages.

    Raises:
      DataError: for another format.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    header = next((line.split("\t") for line in lines if line.startswith("#\tperson\t")), None)
    if header is None:
        raise DataError(f"{name} has no header line that starts with '#<TAB>person<TAB>imagenum'.")
    names = tuple(part.strip() for part in header[3:])
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    keys, values = [], []
    for row in rows:
        try:
            keys.append(lfw_key(row[0], int(row[1])))
            values.append([float(value) for value in row[2:]])
        except (IndexError, ValueError) as error:
            raise DataError(f"{name}: the row of {row[0]!r} cannot be read: {error}.") from error
        if len(values[-1]) != len(names):
            raise DataError(f"{name}: the row of {row[0]!r} must hold {len(names)} values.")
    return Attributes(names, _index(keys, name), np.array(values, np.float32))


def lfw_key(person: str, number: int) -> str:
    """Returns the name of an LFW image: "Aaron Eckhart", 1 -> "Aaron_Eckhart_0001"."""
    return f"{person.strip().replace(' ', '_')}_{number:04d}"


def lfw_people(text: str, name: str) -> list[str]:
    """Parses peopleDevTrain.txt: the count, then `Person<TAB>images`; returns the image names.

    Raises:
      DataError: for another format or a wrong count.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    rows = [line.split() for line in lines[1:]]
    if not lines or not lines[0].strip().isdigit() or int(lines[0]) != len(rows):
        raise DataError(f"{name} must start with the count of the people that follow.")
    for row in rows:
        if len(row) != 2 or not row[1].isdigit():
            raise DataError(f"{name}: lines must be like 'Person 3', got {' '.join(row)!r}.")
    return [lfw_key(person, i) for person, count in rows for i in range(1, int(count) + 1)]


def csv_attributes(text: str, name: str) -> Attributes:
    """Parses a CSV with a header: the file's name, then one column of numbers an attribute.

    Values that are all 0 or 1 become int8, others float32.

    Raises:
      DataError: for another format, values that are no finite numbers, or doubled names.
    """
    rows = [row for row in csv.reader(io.StringIO(text)) if row]
    if len(rows) < 2 or len(rows[0]) < 2:
        raise DataError(f"{name} must have a header, a column of file names and one of numbers.")
    names, body = tuple(part.strip() for part in rows[0][1:]), rows[1:]
    values = np.empty((len(body), len(names)), np.float32)
    for i, row in enumerate(body):
        try:
            values[i] = [float(value) for value in row[1:]]
        except ValueError:
            values[i] = np.nan
        if len(row) != len(names) + 1 or not np.isfinite(values[i]).all():
            raise DataError(f"{name}: the row of {row[0]!r} must hold {len(names)} numbers.")
    if np.isin(values, (0, 1)).all():
        values = values.astype(np.int8)
    return Attributes(names, _index([row[0].strip() for row in body], name), values)


def _index(keys: list[str], name: str) -> dict[str, int]:
    rows = {key: i for i, key in enumerate(keys)}
    if len(rows) != len(keys):
        twice = next(key for i, key in enumerate(keys) if rows[key] != i)
        raise DataError(f"{name} lists {twice!r} twice.")
    return rows


def _stem(name: str) -> str:
    return pathlib.PurePosixPath(name).stem


def _compare(path: str, name: str, data) -> None:
    want = CHECKSUMS.get(name)
    if want is None:
        return
    algorithm = "md5" if len(want) == 32 else "sha256"
    file = io.BytesIO(data) if isinstance(data, bytes) else data
    got = hashlib.file_digest(file, algorithm).hexdigest()
    if got != want:
        raise DataError(
            f"{path} is not the published file: its {algorithm} is {got}, not {want}; download it "
            "again, or pass --skip_checksums if it is meant to differ."
        )
