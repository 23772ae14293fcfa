"""Copies of prepared data sets that lie in buckets, on a disk of this machine.

Training reads images in random order, many thousand a second, and a bucket is too slow for that.
Each data set is copied once per machine, into a folder that has a bound; the data sets that were
used longest ago make room for new ones. Two environment variables name the folder and the bound:
`DBAE_JAX_DATA_CACHE` and `DBAE_JAX_DATA_CACHE_GB`.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
import pathlib
import re
import shutil
from collections.abc import Iterator
from typing import IO

from dbae_jax.configuration import paths
from dbae_jax.data.builders import shards
from dbae_jax.data.builders.preparation_file import PREPARATION, read_preparation
from dbae_jax.errors import ConfigError, DataError
from dbae_jax.runtime.buckets import access
from dbae_jax.runtime.progress import Progress

FOLDER, GB = "DBAE_JAX_DATA_CACHE", "DBAE_JAX_DATA_CACHE_GB"
DEFAULT_FOLDER, DEFAULT_GB = "~/.cache/dbae_jax/data", "200"
AT_ONCE = 8  # files that are copied at the same time

log = logging.getLogger(__name__)

_in_use: dict[pathlib.Path, IO[str]] = {}  # locks on the copies that this process reads


def local(folder: pathlib.Path) -> pathlib.Path:
    """Returns the folder of a prepared data set on this machine: the folder itself, or a copy.

    Processes of this machine share the copy; one of them makes it, the others wait.

    Args:
      folder: folder of a prepared data set, with dataset_info.json.

    Raises:
      ConfigError: if an environment variable is wrong, or the data set is larger than the bound.
      DataError: if a shard has other images than preparation.json says.
    """
    if not access.is_bucket(folder):
        return folder
    cache = paths.read(os.environ.get(FOLDER) or DEFAULT_FOLDER, FOLDER)
    cache.mkdir(parents=True, exist_ok=True)
    copy = cache / _name(folder)
    with _locked(cache / "lock", fcntl.LOCK_EX):
        if copy not in _in_use:
            _bring_up_to_date(folder, copy)
            _in_use[copy] = _lock(_lock_of(copy), fcntl.LOCK_SH)
        os.utime(copy)
    return copy


def _name(folder: pathlib.Path) -> str:
    words = "-".join(re.findall(r"[A-Za-z0-9_.]+", str(folder))[-3:])
    return f"{words}-{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"


def _lock_of(copy: pathlib.Path) -> pathlib.Path:
    return copy.with_name(f"{copy.name}.lock")


def _lock(path: pathlib.Path, kind: int) -> IO[str]:
    file = path.open("w")
    try:
        fcntl.flock(file, kind)
    except OSError:
        file.close()
        raise
    return file


@contextlib.contextmanager
def _locked(path: pathlib.Path, kind: int) -> Iterator[None]:
    with _lock(path, kind):
        yield


def _bring_up_to_date(folder: pathlib.Path, copy: pathlib.Path) -> None:
    """Copies what is missing in a copy; makes it anew if the data set in the bucket is another."""
    store, root = access.filesystem(folder), str(folder).partition("://")[2]
    sizes = {
        name.removeprefix(f"{root}/"): int(about["size"])
        for name, about in store.find(root, detail=True).items()
        if not name.endswith("/")
    }
    about = [name for name in sizes if name.endswith(".json")]
    texts = {name: (folder / name).read_bytes() for name in about}
    if copy.is_dir() and any(
        (copy / name).read_bytes() != text
        for name, text in texts.items()
        if (copy / name).is_file()
    ):
        log.info("%s has changed since it was copied to %s; it is copied anew.", folder, copy)
        shutil.rmtree(copy)
    missing = [name for name, size in sizes.items() if not _is_there(copy / name, size)]
    if not missing:
        return
    _make_room(copy, sum(sizes.values()))
    copy.mkdir(exist_ok=True)
    log.info(
        "Copying %.2f GB of %s to %s.", sum(sizes[name] for name in missing) / 1e9, folder, copy
    )
    # The texts come first: they say what the shards must hold.
    missing.sort(key=lambda name: (not name.endswith(".json"), name))
    with Progress("Copying the data set", len(missing), "files") as progress:
        for start in range(0, len(missing), AT_ONCE):
            names = missing[start : start + AT_ONCE]
            fresh = [copy / f"{name}.tmp" for name in names]
            store.get([f"{root}/{name}" for name in names], [str(path) for path in fresh])
            for name, path in zip(names, fresh, strict=True):
                _check(folder, copy, name, path)
                os.replace(path, copy / name)
            progress.advance(len(names))


def _is_there(path: pathlib.Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _check(folder: pathlib.Path, copy: pathlib.Path, name: str, path: pathlib.Path) -> None:
    """Compares a shard with its hash; data sets that TFDS has prepared have none."""
    if not (copy / PREPARATION).is_file():
        return
    known = read_preparation(copy)["shards"].get(name)
    if known and not shards.is_intact(path, shards.ShardRecord(**known)):
        path.unlink()
        raise DataError(
            f"{folder / name} does not have the sha256 that {PREPARATION} there states: the "
            "object is damaged, or belongs to another preparation. Copy the prepared folder "
            "into the bucket again."
        )


def _make_room(copy: pathlib.Path, need: int) -> None:
    """Removes copies that nobody reads, those first that were used longest ago."""
    bound = _bound()
    if need > bound:
        raise ConfigError(
            f"The data set has {need / 1e9:.1f} GB, and {GB}={bound / 1e9:g} bounds the copies in "
            f"{copy.parent}. Set {GB} to a larger number, and {FOLDER} to a folder on a disk with "
            "this much room."
        )
    others = [path for path in copy.parent.iterdir() if path.is_dir() and path != copy]
    used = {path: sum(f.stat().st_size for f in path.rglob("*")) for path in others}
    for path in sorted(others, key=lambda path: path.stat().st_mtime):
        if sum(used.values()) + need <= bound:
            return
        try:
            with _locked(_lock_of(path), fcntl.LOCK_EX | fcntl.LOCK_NB):
                log.info("Removing %s, which makes room (%s=%g).", path, GB, bound / 1e9)
                shutil.rmtree(path)
                del used[path]
        except BlockingIOError:
            continue
    if sum(used.values()) + need > bound:
        raise ConfigError(
            f"The copies in {copy.parent} that other processes read leave no room for "
            f"{need / 1e9:.1f} GB. Set {GB}={bound / 1e9:g} to a larger number."
        )


def _bound() -> float:
    """Returns the largest size of all copies, in bytes."""
    text = os.environ.get(GB) or DEFAULT_GB
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not found > 0:
        raise ConfigError(f"{GB}={text} is not allowed: it must be a number of gigabytes.")
    return found * 1e9
