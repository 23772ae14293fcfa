"""Reads tables of attributes (CSV): recognises separator and encoding, and checks every value."""

import codecs
import csv
import dataclasses
import io
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from dbae_jax.errors import DataError

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}
LOOKED_AT = 50  # rows that decide which separator a table has

_TRUE, _FALSE = ("true", "yes", "t", "y"), ("false", "no", "f", "n")
_LARGEST = float(np.finfo(np.float32).max)
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+")


@dataclasses.dataclass(frozen=True)
class Attributes:
    """A table of attributes.

    Attributes:
      names: names of the K attributes.
      rows: row number by image, where an image is named by the stem or path of its file.
      values: [N, K], int8 (0 or 1) or float32.
    """

    names: tuple[str, ...]
    rows: dict[str, int]
    values: np.ndarray

    def select(self, keys: Sequence[str]) -> np.ndarray:
        """Returns the attributes [len(keys), K] of the images `keys`; every key must have a row."""
        return self.values[[self.rows[key] for key in keys]]


@dataclasses.dataclass(frozen=True)
class Table:
    """The cells of a table as text.

    Attributes:
      file: name of the file, for errors.
      header: names of the columns.
      rows: (line number in the file, cells) of each row.
      separator: character between cells.
      encoding: name of the encoding.
    """

    file: str
    header: tuple[str, ...]
    rows: Sequence[tuple[int, list[str]]]
    separator: str
    encoding: str


def read(data: bytes, file: str) -> Table:
    """Splits a table into cells.

    Args:
      data: content of the file: a header and rows, separated by commas, semicolons or tabs; UTF-8,
        UTF-16, or Latin-1 as Windows writes it.
      file: name of the file, for errors.

    Raises:
      DataError: if the file holds no such table, a row has more or fewer cells than the header, or
        a column has no name or the name of another one.
    """
    text, encoding = _decoded(data, file)
    try:
        separator, rows = _separated(text)
    except csv.Error as error:
        raise DataError(
            f"{file} cannot be read as a CSV: {error}; save it as a CSV with a header."
        ) from error
    if len(rows) < 2 or len(rows[0][1]) < 2:
        raise DataError(
            f"{file} must have a header, a column of file names and a column per attribute, "
            f"separated by commas, semicolons or tabs; it has {len(rows)} rows, and its first line "
            f"is {text.strip().partition(chr(10))[0][:40]!r}."
        )
    header = tuple(cell.strip() for cell in rows[0][1])
    _check_header(header, file)
    for line, row in rows[1:]:
        if len(row) != len(header):
            raise DataError(
                f"{file}, line {line}: the row of {row[0]!r} has {len(row)} cells, and the header "
                f"has {len(header)} (separated by {SEPARATORS[separator]}); correct the row."
            )
    return Table(file, header, rows[1:], separator, encoding)


def attributes(table: Table) -> tuple[Attributes, list[str]]:
    """Returns the attributes of a table, and sentences about what its columns were taken for.

    The first column names the images. The others hold numbers, or true and false, yes and no. A
    column of two values, such as 0 and 1 or -1 and 1, is binary and becomes 0 and 1.

    Returns:
      int8 attributes if all columns are binary, else float32, by the text of the first column.

    Raises:
      DataError: for a value that is no finite number, or two rows for an image.
    """
    names = table.header[1:]
    columns = [_column(table, number) for number in range(1, len(names) + 1)]
    recoded = [values for _, values, _ in columns]
    values = np.stack(recoded, axis=1)
    binary = [name for name, (kind, _, _) in zip(names, columns, strict=True) if kind]
    real = [name for name in names if name not in binary]
    notes = [
        f"{table.file}: {len(table.rows):,} rows, separated by {SEPARATORS[table.separator]}, "
        f"{table.encoding}; {_kinds(binary, real)}."
    ]
    words = Counter(text for _, _, text in columns if text)
    notes += [f"{table.file}: {text}: {count} columns." for text, count in words.items()]
    if not real:
        values = values.astype(np.int8)
    keys = [row[0].strip().replace("\\", "/").removeprefix("./") for _, row in table.rows]
    return Attributes(names, index_of_rows(keys, table.file), values), notes


def _kinds(binary: list[str], real: list[str]) -> str:
    parts = [f"{len(binary)} binary attributes"] if binary else []
    parts += [f"{len(real)} real-valued ones ({', '.join(real[:5])})"] if real else []
    mixed = ", so the probe scores all of them as real numbers" if binary and real else ""
    return " and ".join(parts) + mixed


def _column(table: Table, number: int) -> tuple[bool, np.ndarray, str]:
    """Returns whether a column is binary, its values [N], float32, and how it was translated."""
    values, words = np.empty(len(table.rows), np.float32), ""
    for i, (_, row) in enumerate(table.rows):
        cell = row[number].strip()
        if cell.lower() in (*_TRUE, *_FALSE):
            values[i] = cell.lower() in _TRUE
            words = "words such as true and no were read as 1 and 0"
        else:
            values[i] = _number(cell, table, i, number)
    if (values == -1).any() and np.isin(values, (-1, 1)).all():
        return True, (values > 0).astype(np.float32), "-1 and 1 were read as 0 and 1"
    return bool(np.isin(values, (0, 1)).all()), values, words


def _number(cell: str, table: Table, row: int, column: int) -> float:
    text = cell
    if table.separator != "," and _DECIMAL_COMMA.fullmatch(cell):
        text = cell.replace(",", ".")
    try:
        value = float(text) if "_" not in text else np.nan  # Python reads 1_000 as a number
    except ValueError:
        value = np.nan
    if not abs(value) <= _LARGEST:
        found = f"{cell[:40]!r} is not a finite number" if cell else "the cell is empty"
        line, cells = table.rows[row]
        raise DataError(
            f"{table.file}, line {line}: {found} in the column {table.header[column]!r} of "
            f"{cells[0]!r}; write a number, or true or false."
        )
    return value


def index_of_rows(keys: Sequence[str], file: str) -> dict[str, int]:
    """Returns the number of the row of each key.

    Raises:
      DataError: if a key has two rows.
    """
    rows = {key: i for i, key in enumerate(keys)}
    if len(rows) != len(keys):
        repeated = next(key for i, key in enumerate(keys) if rows[key] != i)
        raise DataError(f"{file} lists {repeated!r} twice; remove one of the two rows.")
    return rows


def _check_header(header: tuple[str, ...], file: str) -> None:
    repeated = [name for name, count in Counter(header).items() if count > 1 and name]
    if repeated:
        raise DataError(
            f"{file} has two columns named {repeated[0]!r}; rename or remove one of them."
        )
    if "" in header[1:]:
        raise DataError(
            f"{file}: column {header.index('', 1) + 1} has no name; name it in the header, or "
            "remove the column."
        )


def _decoded(data: bytes, file: str) -> tuple[str, str]:
    """Returns the text of a file, and the name of its encoding."""
    marks = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16"}
    marks |= {codecs.BOM_UTF16_BE: "utf-16"}
    known = next((name for mark, name in marks.items() if data.startswith(mark)), None)
    if known is None and b"\0" in data[:200]:
        known = "utf-16-le" if data[1:2] == b"\0" else "utf-16-be"
    names = {"utf-8-sig": "UTF-8", "utf-8": "UTF-8", "cp1252": "Latin-1 (Windows)"}
    for encoding in [known] if known else ["utf-8", "cp1252", "latin-1"]:
        try:
            text = data.decode(encoding)
        except UnicodeError:
            continue
        if "\0" not in text:
            return text, names.get(encoding, encoding.upper())
    raise DataError(f"{file} is not a text file; save it as a CSV in UTF-8.")


def _separated(text: str) -> tuple[str, list[tuple[int, list[str]]]]:
    """Returns the separator that splits most rows as it splits the header, and the rows."""
    best: tuple[tuple[int, int], str] = ((-1, 0), ",")
    for separator in SEPARATORS:
        some = _rows("\n".join(text.splitlines()[:LOOKED_AT]), separator)
        width = len(some[0][1]) if some else 0
        alike = sum(len(row) == width for _, row in some) if width > 1 else -1
        best = max(best, ((alike, width), separator), key=lambda found: found[0])
    return best[1], _rows(text, best[1])


def _rows(text: str, separator: str) -> list[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    return [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
