"""Parsers of the published attribute and split files, and checksums of published files."""

import hashlib
import io
import pathlib
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np

from dbae_jax.configuration import paths
from dbae_jax.data.builders.listing import Options
from dbae_jax.data.files import tables
from dbae_jax.data.files.archives import TarStore, ZipStore
from dbae_jax.data.files.stores import Store
from dbae_jax.data.files.tables import Attributes, index_of_rows
from dbae_jax.errors import DataError

_PUBLISHED = "use the published file."

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


def read_file(
    names: Sequence[str], source: pathlib.Path, options: Options, store: Store | None = None
) -> tuple[str, bytes]:
    """Returns name and content of an annotation file.

    Args:
      names: file names without folders, of which the first that is found is read.
      source: path of the images. The file is searched in this folder, one level below, and next
        to it.
      options: its `annotations` is a folder that is searched instead; with `check`, the checksum
        is compared, where the published one is known.
      store: store of the images; a zip or a tar is searched too.

    Raises:
      DataError: if the file is missing, cannot be read, or has a different checksum.
    """
    root = options.annotations or (source if source.is_dir() else source.parent)
    if not root.is_dir():
        raise DataError(
            f"--annotations={root} is not a folder; {paths.nearest(root)}name the folder that "
            f"holds {names[0]}."
        )
    subfolders = [p for p in sorted(root.iterdir()) if p.is_dir()]
    folders = [root, *subfolders] if options.annotations else [root, *subfolders, source.parent]
    there = {path.name.lower(): path for f in reversed(folders) for path in files_in(f)}
    for name in names:
        path, data = there.get(name.lower()), None
        if path is not None:
            try:
                data = path.read_bytes()
            except OSError as error:
                raise DataError(
                    f"{path} cannot be read: {error.strerror}; check its permissions."
                ) from error
        elif isinstance(store, ZipStore | TarStore):
            data = store.find(name)
        if data is not None:
            if options.check:
                _compare_checksum(str(path or name), name, data)
            return name, data
    raise DataError(
        f"{' or '.join(names)} is missing in {root}; put it there, or name its folder with "
        "--annotations."
    )


def files_in(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the files in a folder whose names may be those of annotations; no images."""
    endings = (".txt", ".csv", ".json")
    return [p for p in folder.iterdir() if p.name.lower().endswith(endings) and p.is_file()]


def read_text(name: str, source: pathlib.Path, options: Options, store: Store | None = None) -> str:
    """Returns the text of an annotation file; see `read_file` for the arguments.

    Raises:
      DataError: if the file is missing, is not UTF-8 text, or has a different checksum.
    """
    return decoded(*read_file([name], source, options, store))


def decoded(name: str, data: bytes) -> str:
    """Returns the text of a published file, which is UTF-8.

    Raises:
      DataError: if it is not.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name} is not a text file in UTF-8: {error}; download it again."
        ) from error


def check_archive(path: pathlib.Path) -> None:
    """Compares the checksum of an archive with the published one, where that is known.

    Args:
      path: path of the archive; a folder or a missing file is accepted unchecked.

    Raises:
      DataError: if the checksums differ.
    """
    if path.is_file() and path.name in CHECKSUMS:
        with path.open("rb") as file:
            _compare_checksum(str(path), path.name, file)


def celeba_attributes(data: bytes, name: str) -> Attributes:
    """Parses list_attr_celeba.txt, its copy as .csv, or CelebAMask-HQ-attribute-anno.txt.

    Args:
      data: content of the file. Line 1 of a text file is the number of rows, line 2 holds the
        attribute names, and the rows are like `000001.jpg -1 1 ...`.
      name: file name, for error messages.

    Returns:
      int8 attributes by the stem of the image's file ("000001"); -1 becomes 0.

    Raises:
      DataError: if the text has a different format, a wrong number of rows, an incomplete row, or
        two rows for an image.
    """
    if name.endswith(".csv"):
        table = tables.read(data, name)
        names, rows = table.header[1:], [row for _, row in table.rows]
    else:
        names, rows = _counted_rows(decoded(name, data), name)
    for row in rows:
        if len(row) != len(names) + 1 or not {cell.strip() for cell in row[1:]} <= {"-1", "1"}:
            raise DataError(
                f"{name}: the row of {row[0]} must hold {len(names)} values, 1 or -1, and holds "
                f"{' '.join(row[1:])[:200]!r}; {_PUBLISHED}"
            )
    values = np.array([[cell.strip() == "1" for cell in row[1:]] for row in rows], np.int8)
    keys = [_stem(row[0]) for row in rows]
    return Attributes(names, index_of_rows(keys, name), values)


def _counted_rows(text: str, name: str) -> tuple[tuple[str, ...], list[list[str]]]:
    """Returns the names of the attributes and the rows of a text file that counts its rows."""
    lines = text.splitlines()
    if len(lines) < 3 or not lines[0].strip().isdecimal():
        raise DataError(
            f"{name} starts with {_first_line(text)!r}; its first line must be the number of its "
            f"rows; {_PUBLISHED}"
        )
    names, rows = tuple(lines[1].split()), [line.split() for line in lines[2:] if line.strip()]
    if len(set(names)) < len(names) or not names:
        raise DataError(f"{name} names an attribute twice, or none; {_PUBLISHED}")
    if str(len(rows)) != lines[0].strip():
        raise DataError(
            f"{name} states {lines[0].strip()[:20]} rows but contains {len(rows):,}; {_PUBLISHED}"
        )
    return names, rows


def celeba_partition(data: bytes, name: str) -> dict[str, str]:
    """Parses list_eval_partition.txt, whose lines are like `000001.jpg 0`, or its copy as .csv.

    Args:
      data: content of the file.
      name: file name, for error messages.

    Returns:
      Split by the stem of the image's file, such as {"000001": "train"}.

    Raises:
      DataError: if the text has a different format or two lines for an image.
    """
    splits = {"0": "train", "1": "validation", "2": "test"}
    if name.endswith(".csv"):
        rows = [[cell.strip() for cell in row] for _, row in tables.read(data, name).rows]
    else:
        rows = [line.split() for line in decoded(name, data).splitlines() if line.strip()]
    for row in rows:
        if len(row) != 2 or row[1] not in splits:
            raise DataError(
                f"{name}: lines must be like '000001.jpg 0', got {' '.join(row)[:200]!r}; "
                f"{_PUBLISHED}"
            )
    index_of_rows([_stem(row[0]) for row in rows], name)
    return {_stem(row[0]): splits[row[1]] for row in rows}


def lfw_attributes(text: str, name: str) -> Attributes:
    """Parses lfw_attributes.txt.

    Args:
      text: content of the file: a comment, the header `#<TAB>person<TAB>imagenum<TAB>names...`,
        and tab-separated rows.
      name: file name, for error messages.

    Returns:
      float32 attributes by image ("Person_Name_0001").

    Raises:
      DataError: if the text has a different format or two rows for an image.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    header = next((line.split("\t") for line in lines if line.startswith("#\tperson\t")), None)
    if header is None:
        raise DataError(
            f"{name} has no header line that starts with '#<TAB>person<TAB>imagenum'; {_PUBLISHED}"
        )
    names = tuple(part.strip() for part in header[3:])
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    keys, values = [], []
    for row in rows:
        try:
            keys.append(lfw_key(row[0], int(row[1])))
            values.append([float(value) for value in row[2:]])
        except (IndexError, ValueError) as error:
            raise DataError(
                f"{name}: the row of {row[0]!r} cannot be read: {error}; {_PUBLISHED}"
            ) from error
        if len(values[-1]) != len(names):
            raise DataError(
                f"{name}: the row of {row[0]!r} must hold {len(names)} values, and holds "
                f"{len(values[-1])}; {_PUBLISHED}"
            )
    return Attributes(names, index_of_rows(keys, name), np.array(values, np.float32))


def lfw_key(person: str, number: int) -> str:
    """Returns the name of an LFW image: "Aaron Eckhart", 1 -> "Aaron_Eckhart_0001"."""
    return f"{person.strip().replace(' ', '_')}_{number:04d}"


def lfw_people(text: str, name: str) -> list[str]:
    """Parses peopleDevTrain.txt or peopleDevTest.txt.

    Args:
      text: content of the file. Line 1 is the number of people; the other lines are
        `Person<TAB>number of images`.
      name: file name, for error messages.

    Returns:
      Names of the images, such as "Person_0001".

    Raises:
      DataError: if the text has a different format or a wrong number of people.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    rows = [line.split() for line in lines[1:]]
    if not lines or not lines[0].strip().isdigit() or int(lines[0]) != len(rows):
        raise DataError(
            f"{name} must start with the number of people that follow, {len(rows)}; it starts with "
            f"{_first_line(text)!r}; {_PUBLISHED}"
        )
    for row in rows:
        if len(row) != 2 or not row[1].isdigit():
            raise DataError(
                f"{name}: lines must be like 'Person 3', got {' '.join(row)!r}; {_PUBLISHED}"
            )
    return [lfw_key(person, i) for person, count in rows for i in range(1, int(count) + 1)]


def _stem(name: str) -> str:
    return pathlib.PurePosixPath(name).stem


def _first_line(text: str) -> str:
    return text.partition("\n")[0][:40]


def _compare_checksum(path: str, name: str, data: bytes | BinaryIO) -> None:
    published = CHECKSUMS.get(name)
    if published is None:
        return
    algorithm = "md5" if len(published) == 32 else "sha256"
    file: Any = io.BytesIO(data) if isinstance(data, bytes) else data
    found = hashlib.file_digest(file, algorithm).hexdigest()
    if found != published:
        raise DataError(
            f"{path} is not the published file: its {algorithm} is {found}, not {published}; "
            "download it again, or pass --skip_checksums if it is meant to differ."
        )
