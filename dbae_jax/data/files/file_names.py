"""Which files are images by their names, and which are left aside."""

import pathlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

from dbae_jax.errors import DataError

IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".tif", ".tiff"),
    *(".gif", ".avif", ".jp2", ".pgm", ".ppm", ".pbm", ".pnm"),
)

_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")

# Files and folders that operating systems and editors put beside images.
_SYSTEM = {"__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin"}


def is_hidden(name: str) -> bool:
    """Returns whether a file, or one of its folders, is hidden or belongs to the system."""
    return any(part.startswith(".") or part.lower() in _SYSTEM for part in name.split("/"))


def is_image(name: str) -> bool:
    """Returns whether a file is an image by its suffix, in upper or lower case."""
    return _suffix(name) in IMAGE_SUFFIXES and not is_hidden(name)


def left_aside(names: Iterable[str]) -> Counter[str]:
    """Returns how many files are no images, by suffix; "hidden" for hidden files."""
    return Counter(
        "hidden" if is_hidden(name) else _suffix(name) or "no suffix"
        for name in names
        if not is_image(name)
    )


def counted(kinds: Counter[str]) -> str:
    """Returns the numbers of files by kind as text: "3 .txt, 1 hidden"."""
    return ", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items()) if count)


def suffixes(names: Iterable[str]) -> Counter[str]:
    """Returns the numbers of files by suffix, in lower case."""
    return Counter(_suffix(name) or "no suffix" for name in names)


def composed(name: str) -> str:
    """Returns a name in composed Unicode (NFC): macOS writes "u" and two dots for "ü"."""
    return unicodedata.normalize("NFC", name)


def in_order(names: Iterable[str], where: pathlib.Path) -> list[str]:
    """Returns the names in order.

    Raises:
      DataError: for a name that is not UTF-8, or holds a line break or another control character.
    """
    found = sorted(names)
    for name in found:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            shown = name.encode("utf-8", "backslashreplace").decode()
            raise DataError(
                f"{where} holds an image whose name is not UTF-8, {shown}; rename it."
            ) from error
        if _CONTROL.search(name):
            raise DataError(
                f"{where} holds an image whose name has control characters, {name!r}; rename it."
            )
    return found


def _suffix(name: str) -> str:
    return pathlib.PurePosixPath(name).suffix.lower()
