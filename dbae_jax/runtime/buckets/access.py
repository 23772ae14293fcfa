"""Paths in buckets of Google Cloud Storage (gs://) and of S3 (s3://).

They are paths of etils.epath, which have the methods of pathlib; gcsfs and s3fs, of the extra
`cloud`, do the work. A bucket has objects and no folders: a folder is there if an object's name
begins with it. An object appears whole or not at all, and cannot be appended to or renamed.
"""

import contextlib
import functools
import importlib
import importlib.util
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any, cast

from etils.epath import gpath

# Scheme -> the package that reads and writes such buckets, and where it looks for credentials.
PACKAGES = {"gs": "gcsfs", "s3": "s3fs"}
CREDENTIALS = {
    "gs": "`gcloud auth application-default login` on a machine of yours; the service account on a "
    "machine of Google Cloud",
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile in ~/.aws; AWS_ENDPOINT_URL "
    "for a store that is not Amazon's",
}
INSTALL = "pip install -e '.[cloud]'"

# Packages whose errors mean that a bucket could not be reached, or refused to be read or written.
_CLIENTS = ["aiobotocore", "aiohttp", "botocore", "fsspec", "gcsfs", "google", "requests", "s3fs"]
# What tensorstore says then. Other words of it mean that the objects are damaged.
_STATUS = re.compile(
    r"(UNAVAILABLE|PERMISSION_DENIED|UNAUTHENTICATED|DEADLINE_EXCEEDED): .*gs://"
    r"|retry attempts failed: "
)


class BucketPath(gpath.PosixGPath):
    """A path in a bucket, which is absolute; made by `path_of`."""

    @property
    def parent(self) -> "BucketPath":
        """The folder around it; that of a bucket is the bucket itself."""
        return self if len(self.parts) <= len(("/", "gs", "bucket")) else super().parent

    def resolve(self, strict: bool = False) -> "BucketPath":
        """Returns the path itself; that of etils puts the current folder in front."""
        return self

    def mkdir(self, mode: int | None = None, parents: bool = False, exist_ok: bool = False) -> None:
        """Does nothing: folders need not be made."""

    def iterdir(self) -> Iterator["BucketPath"]:
        """Yields what is in the folder, without the empty object that may stand for the folder."""
        own = str(self).partition("://")[2].rstrip("/")
        for name in filesystem(self).ls(str(self), detail=False):
            if name.rstrip("/") != own:
                yield self / name.rstrip("/").rpartition("/")[2]


def path_of(url: str) -> pathlib.Path:
    """Returns the path of an object or a folder in a bucket.

    Args:
      url: "gs://BUCKET/NAME" or "s3://BUCKET/NAME". One slash is enough, as pathlib leaves one.
    """
    scheme, _, rest = url.partition(":")
    # It has the methods of pathlib.Path that are used on files of runs and of data sets.
    return cast(pathlib.Path, BucketPath(f"{scheme.lower()}://{rest.strip('/')}"))


def is_bucket(path: pathlib.Path) -> bool:
    """Returns whether a path is in a bucket."""
    return isinstance(path, BucketPath)


def scheme_of(path: pathlib.Path) -> str:
    """Returns "gs" or "s3" for a path in a bucket, "" for others."""
    return str(path).partition("://")[0] if is_bucket(path) else ""


def obstacle(path: pathlib.Path) -> str | None:
    """Returns why a bucket cannot be read, as the rest of a sentence about a path; None if it can.

    Args:
      path: path in the bucket; nothing need be there.
    """
    package = PACKAGES[scheme_of(path)]
    if importlib.util.find_spec(package) is None:
        return f"which needs the package {package}: {INSTALL}."
    scheme, _, rest = str(path).partition("://")
    return _unreachable(f"{scheme}://{rest.partition('/')[0]}")


@functools.cache
def _unreachable(bucket: str) -> str | None:
    """Returns why a bucket cannot be read, or None; it is asked once."""
    where = CREDENTIALS[bucket.partition("://")[0]]
    try:
        filesystem(path_of(bucket)).info(bucket)
    except FileNotFoundError:
        return f"and there is no bucket {bucket}. Make it, or check its name."
    except Exception as error:  # any of those libraries
        reason = " ".join(str(error).split())[:160]
        return (
            f"and {bucket} cannot be reached ({type(error).__name__}: {reason}). Check the network "
            f"and the credentials ({where})."
        )
    return None


def is_failure(error: BaseException) -> bool:
    """Returns whether an error means that a bucket could not be reached or used."""
    text = str(error)
    return (
        type(error).__module__.partition(".")[0] in _CLIENTS
        or (isinstance(error, OSError) and text.startswith("Forbidden: "))  # of gcsfs
        or bool(_STATUS.search(text.replace("\n", " ")))
    )


def filesystem(path: pathlib.Path) -> Any:
    """Returns the file system of fsspec for a path in a bucket.

    It asks the bucket each time: other processes, and tensorstore in this one, write there too.
    """
    fsspec: Any = importlib.import_module("fsspec")
    for name in ("gcs", "gs", "s3"):
        fsspec.config.conf.setdefault(name, {})["use_listings_cache"] = False
    return fsspec.filesystem(scheme_of(path))


def put(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copies a local file into a bucket, where it replaces the object of this name at once."""
    filesystem(target).put_file(str(source), str(target))


def put_tree(source: pathlib.Path, target: pathlib.Path, *, but: Iterable[str] = ()) -> None:
    """Copies the files of a local folder into a bucket, except those whose paths are in `but`."""
    names = [p.relative_to(source).as_posix() for p in sorted(source.rglob("*")) if p.is_file()]
    names = [name for name in names if name not in set(but)]
    filesystem(target).put(
        [str(source / name) for name in names], [f"{target}/{name}" for name in names]
    )


@contextlib.contextmanager
def local_copy(folder: pathlib.Path, parts: Iterable[str] = ("",)) -> Iterator[pathlib.Path]:
    """Copies a folder of a bucket into a temporary folder of this machine, which it yields.

    Args:
      folder: folder in a bucket.
      parts: what to copy of it, files and folders by name; those that are missing are left out.
    """
    store, root = filesystem(folder), str(folder).partition("://")[2]
    copy = pathlib.Path(tempfile.mkdtemp(prefix="dbae_jax-"))
    try:
        found = [name for part in parts for name in store.find(f"{root}/{part}".rstrip("/"))]
        local = [str(copy / pathlib.PurePosixPath(name).relative_to(root)) for name in found]
        if found:
            store.get(found, local)
        yield copy
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def remove_tree(folder: pathlib.Path) -> None:
    """Removes a folder of a bucket; it may be missing."""
    with contextlib.suppress(FileNotFoundError):
        filesystem(folder).rm(str(folder), recursive=True)


def move_tree(folder: pathlib.Path, target: pathlib.Path) -> None:
    """Moves a folder of a bucket to another name, object by object."""
    store, root = filesystem(folder), str(folder).partition("://")[2]
    names = store.find(root)
    store.copy(names, [f"{target}/{name.removeprefix(f'{root}/')}" for name in names])
    remove_tree(folder)
