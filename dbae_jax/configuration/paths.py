"""Reads paths: all that the command line, configs and the Python API name pass through here.

    paths.read("~/runs/$NAME", "--workdir")

A name that a file system stores in another Unicode form is found ("ü" may be one character or two),
and a path that is nearly right is answered with the right one.
"""

import os
import pathlib
import re
import unicodedata

from dbae_jax.configuration.suggestions import did_you_mean
from dbae_jax.errors import ConfigError
from dbae_jax.runtime.buckets import access

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")
_VARIABLE = re.compile(r"\$(\w+|\{\w+\})")


def read(text: str | os.PathLike[str], name: str, *, buckets: bool = False) -> pathlib.Path:
    """Returns a path with `~` and $VARIABLES expanded.

    A path with a "$" that exists as it is written is taken as it is.

    Args:
      text: the path as the user wrote it. The file or folder may be missing.
      name: what names it, for errors: a flag such as "--workdir", or a key of the config.
      buckets: whether the path may be in a bucket (gs:// or s3://), which is then looked up.

    Raises:
      ConfigError: if the path is empty, is a URL, names a user or a variable that do not exist, or
        is in a bucket that is not allowed or cannot be read.
    """
    written = os.fspath(text) if isinstance(text, (str, os.PathLike)) else None
    if not isinstance(written, str) or not written.strip() or "\0" in written:
        raise ConfigError(f"{_label(name, repr(text))} is not a path; name a file or folder.")
    expanded = _expanded(written, name)
    if (url := _URL.match(expanded)) and not os.path.lexists(expanded):
        return _in_bucket(written, expanded, url[1].lower(), name, allowed=buckets)
    return _as_stored(pathlib.Path(expanded))


def _expanded(written: str, name: str) -> str:
    """Returns a path with `~` and $VARIABLES expanded."""
    expanded = os.path.expanduser(written)
    if expanded.startswith("~") and not os.path.lexists(expanded):
        user = expanded.partition("/")[0]
        raise ConfigError(
            f"{_label(name, written)} names the home folder {user}, and there is no such user; "
            f"write ./{user} for a folder of this name."
        )
    if not os.path.lexists(expanded):
        expanded = os.path.expandvars(expanded)
        unset = _VARIABLE.search(expanded)
        if unset and not os.path.lexists(expanded):
            raise ConfigError(
                f"{_label(name, written)} names the variable {unset[0]}, which is not set; set it, "
                "or write the path out."
            )
    return expanded


def split(text: str) -> list[str]:
    """Returns the names in a comma-separated list.

    A name with commas that exists as a file is taken as one name.
    """
    pieces, names = text.split(","), []
    while pieces:
        for count in range(len(pieces), 0, -1):
            name = ",".join(pieces[:count]).strip()
            if count == 1 or _exists(name):
                break
        names.append(name)
        del pieces[:count]
    return [name for name in names if name]


def suffix(path: str | os.PathLike[str]) -> str:
    """Returns the suffix of a path in lower case, such as ".png"."""
    return pathlib.Path(path).suffix.lower()


def nearest(path: pathlib.Path) -> str:
    """Returns part of a sentence about a missing path: what is there instead; may be empty."""
    if path.exists():
        return ""
    missing, above = path, path.parent
    while not above.is_dir() and above != above.parent:
        missing, above = above, above.parent
    try:
        names = sorted(entry.name for entry in above.iterdir())
    except OSError:
        return ""
    same = [n for n in names if n.casefold() == missing.name.casefold()]
    if same:
        return f"did you mean {str(above / same[0])!r}? "
    if meant := did_you_mean(missing.name, names):
        return meant
    return "" if missing == path else f"{above} has no folder {missing.name!r}; "


def _label(name: str, path: str) -> str:
    """Returns "--workdir=PATH" for a flag or a key, and "the image PATH" for words."""
    return f"{name} {path}" if " " in name else f"{name}={path}"


def _in_bucket(written: str, url: str, scheme: str, name: str, *, allowed: bool) -> pathlib.Path:
    """Returns the path in a bucket that a URL names, or raises ConfigError."""
    label = _label(name, written)
    if scheme not in access.PACKAGES:
        raise ConfigError(f"{label} is a URL; name a file or folder of this machine.")
    if not allowed:
        raise ConfigError(
            f"{label} is in a bucket, and buckets are not read or written here; name a file or "
            "folder of this machine."
        )
    if not url.partition(":")[2].strip("/"):
        raise ConfigError(f"{label} names no bucket; write {scheme}://BUCKET/FOLDER.")
    path = access.path_of(url)
    if problem := access.obstacle(path):
        raise ConfigError(f"{label} is in a bucket, {problem}")
    return path


def _exists(name: str) -> bool:
    try:
        return read(name, "").is_file()
    except (ConfigError, OSError):
        return False


def _as_stored(path: pathlib.Path) -> pathlib.Path:
    """Returns the path in the Unicode form in which its folders store it, where it exists."""
    if str(path).isascii():
        return path
    found = pathlib.Path(path.anchor)
    for part in path.parts[1:] if path.anchor else path.parts:
        found /= part if part.isascii() or os.path.lexists(found / part) else _twin(found, part)
    return found


def _twin(folder: pathlib.Path, part: str) -> str:
    """Returns the name in a folder that is the same text in another Unicode form, or `part`."""
    same = unicodedata.normalize("NFC", part)
    try:
        names = os.listdir(folder)
    except OSError:
        return part
    return next((name for name in names if unicodedata.normalize("NFC", name) == same), part)
