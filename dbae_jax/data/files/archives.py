"""Images in zip and tar files, which are read without being unpacked.

Nothing in an archive is run, and nothing is written to the disk. A path that leads out of the
archive is refused, and the size of what is held in memory is bounded.
"""

import io
import pathlib
import re
import stat
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterable

from dbae_jax.data.files import file_names
from dbae_jax.errors import DataError

TABLE_SUFFIXES = (".csv", ".tsv", ".txt", ".json")  # files that a tar holds beside its images
TAR_SUFFIXES = (".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz")
MOST_FILE_BYTES = 2**30  # of one file in an archive
MOST_TAR_BYTES = 2**33  # of all files of a tar, which are held in memory

_ENCRYPTED, _UTF8 = 0x1, 0x800  # flags of a member of a zip: its content, its name


class ZipStore:
    """Images in a zip file, which is not unpacked."""

    def __init__(self, path: pathlib.Path):
        """Opens a zip file and lists its images.

        Raises:
          DataError: if the file is not a zip file, is cut off, or holds a path that leads out of
            it.
        """
        try:
            self._file = zipfile.ZipFile(path)
        except Exception as error:  # zipfile raises errors of many types for damaged files
            raise _unreadable(path, "zip", error) from error
        self.path = path
        # A zip may repeat a name; the last counts.
        members = [m for m in self._file.infolist() if not _is_folder(m.orig_filename)]
        self._members = {_inside(_zip_name(m), path): m for m in members}
        listed = [name for name, member in self._members.items() if not _is_link(member)]
        self.names, self.aside = _sorted_out(listed, path)
        self.aside["link"] += len(self._members) - len(listed)

    def read(self, name: str) -> bytes:
        """Returns the bytes of a file in the zip.

        Raises:
          DataError: if the file is encrypted, damaged, too large, or compressed by an unsupported
            method.
        """
        member = self._members[name]
        _check_size(name, member.file_size, self.path)
        if member.flag_bits & _ENCRYPTED:
            raise DataError(
                f"{name} in {self.path} cannot be read: it is encrypted; unpack the zip file with "
                "its password, and name its folder with --source."
            )
        try:
            return self._file.read(member)
        except Exception as error:  # such as zlib's for damaged data, RuntimeError for encrypted
            raise DataError(
                f"{name} in {self.path} cannot be read: {_one_line(error)}; download the zip file "
                "again, or unpack it and name its folder with --source."
            ) from error

    def size(self, name: str) -> int | None:
        """Returns the size of a file in bytes when it is unpacked."""
        return self._members[name].file_size

    def find(self, name: str) -> bytes | None:
        """Returns the first file of this name in any folder of the zip; None if there is none."""
        found = [n for n in self._members if n.rpartition("/")[2] == name]
        return self.read(found[0]) if found else None

    def extra(self, path: str) -> bytes | None:
        """Returns the file at this path in the zip, in upper or lower case; None without one."""
        name = _same_but_for_case(path, self._members)
        return None if name is None else self.read(name)


class TarStore:
    """Images of a small tar file, held in memory because compressed tars have no random access."""

    def __init__(self, path: pathlib.Path):
        """Reads the images and tables of a tar file.

        Raises:
          DataError: if the file is not a tar file, is cut off or too large, or holds a path that
            leads out of it.
        """
        self.path, self._data, links = path, {}, {}
        names, total, special = [], 0, 0
        try:
            with tarfile.open(path) as file:
                for member in file:
                    if member.isdir():
                        continue
                    name = _inside(member.name, path)
                    if member.islnk() or member.issym():
                        links[name] = member
                        continue
                    if not member.isfile():  # a pipe, a device, or of an unknown type
                        special += 1
                        continue
                    names.append(name)
                    if not _is_wanted(name):
                        continue
                    _check_size(name, member.size, path)
                    total += member.size
                    _check_total(total, path)
                    with file.extractfile(member) or io.BytesIO() as content:
                        self._data[name] = content.read()
        except DataError:
            raise
        except Exception as error:  # tarfile and its decompressors raise errors of many types
            raise _unreadable(path, "tar", error) from error
        followed = self._follow(links)
        self.names, self.aside = _sorted_out([*names, *followed], path)
        self.aside.update({"link": len(links) - len(followed), "special": special})

    def _follow(self, links: dict[str, tarfile.TarInfo]) -> list[str]:
        """Adds the images that are links to other images of the tar, and returns their names."""
        followed = []
        for name, member in links.items():
            folder = pathlib.PurePosixPath(name).parent if member.issym() else ""
            target = _resolved(str(folder / pathlib.PurePosixPath(member.linkname)))
            if target in self._data and _is_wanted(name):
                self._data[name] = self._data[target]
                followed.append(name)
        return followed

    def read(self, name: str) -> bytes:
        """Returns the bytes of an image file."""
        return self._data[name]

    def size(self, name: str) -> int | None:
        """Returns the size of an image file in bytes."""
        return len(self._data[name])

    def extra(self, path: str) -> bytes | None:
        """Returns the table at this path in the tar, in upper or lower case; None without one."""
        name = _same_but_for_case(path, self._data)
        return None if name is None else self._data[name]

    def find(self, name: str) -> bytes | None:
        """Returns the first table of this name in any folder of the tar; None if there is none."""
        return next((d for n, d in self._data.items() if n.rpartition("/")[2] == name), None)


def _same_but_for_case(path: str, names: Iterable[str]) -> str | None:
    return next((name for name in names if name.lower() == path.lower()), None)


def open_archive(path: pathlib.Path) -> ZipStore | TarStore:
    """Opens an archive by its suffix, in upper or lower case, or else by its content.

    Raises:
      DataError: if the file is no zip or tar.
    """
    name = path.name.lower()
    if name.endswith(".zip"):
        return ZipStore(path)
    if name.endswith(TAR_SUFFIXES):
        return TarStore(path)
    if zipfile.is_zipfile(path):
        return ZipStore(path)
    try:
        is_tar = tarfile.is_tarfile(path)
    except Exception:  # the decompressors of tarfile raise errors of many types
        is_tar = False
    if is_tar:
        return TarStore(path)
    if file_names.is_image(name):
        raise DataError(f"--source={path} is one image; name the folder of all images.")
    raise DataError(
        f"--source={path} is of an unknown type; it must be a folder, a .zip, a .tar (also .tgz, "
        ".tar.gz, .tar.bz2 and .tar.xz) or an LMDB; unpack other archives and name their folder."
    )


def _is_wanted(name: str) -> bool:
    return file_names.is_image(name) or name.lower().endswith(TABLE_SUFFIXES)


def _sorted_out(names: Iterable[str], where: pathlib.Path) -> tuple[list[str], Counter[str]]:
    """Returns the images in order, and how many files of which kind are left aside."""
    names = list(names)
    images = file_names.in_order(filter(file_names.is_image, dict.fromkeys(names)), where)
    return images, file_names.left_aside(names)


def _zip_name(member: zipfile.ZipInfo) -> str:
    """Returns the name of a member; macOS writes UTF-8 and does not say so."""
    if member.flag_bits & _UTF8:
        return member.orig_filename
    try:
        return member.orig_filename.encode("cp437").decode()
    except UnicodeError:
        return member.orig_filename


def _is_folder(name: str) -> bool:
    """Returns whether a member of a zip is a folder, or has no name at all."""
    return not name or name.endswith(("/", "\\"))


def _is_link(member: zipfile.ZipInfo) -> bool:
    return stat.S_ISLNK(member.external_attr >> 16)


def _inside(name: str, where: pathlib.Path) -> str:
    """Returns the path of a member with "/", relative to the archive.

    Windows writes "\\", and some tars hold absolute paths.
    """
    path = re.sub(r"^([A-Za-z]:)?/+", "", name.partition("\0")[0].replace("\\", "/"))
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise DataError(
            f"{where} holds {name!r}, a path that leads out of the archive; nothing was read. "
            'Make the archive again without ".." in its paths.'
        )
    return "/".join(parts)


def _resolved(path: str) -> str:
    """Returns a path without "." and ".."; a path that leads out of the archive is ""."""
    parts: list[str] = []
    for part in path.replace("\\", "/").split("/"):
        if part == ".." and not parts:
            return ""
        if part == "..":
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def _check_size(name: str, size: int, where: pathlib.Path) -> None:
    if size > MOST_FILE_BYTES:
        raise DataError(
            f"{name} in {where} has {size:,} bytes; files of at most {MOST_FILE_BYTES:,} are read "
            "from an archive; unpack it and name its folder with --source."
        )


def _check_total(total: int, where: pathlib.Path) -> None:
    if total > MOST_TAR_BYTES:
        raise DataError(
            f"{where} holds more than {MOST_TAR_BYTES:,} bytes of images, too much to hold in "
            "memory; unpack it and name its folder with --source."
        )


def _unreadable(path: pathlib.Path, kind: str, error: Exception) -> DataError:
    return DataError(
        f"{path} cannot be read as a {kind} file: {_one_line(error)}; download it again."
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
