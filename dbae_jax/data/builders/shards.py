"""Shards that survive an interruption: each is written, read back, and only then counts.

A preparation collects its shards in a staging folder beside the place of the finished data set.
A shard is whole once its record, `<shard>.json`, is there; what an interruption left half-written
has no record and is written anew.
"""

import dataclasses
import errno
import fcntl
import hashlib
import json
import logging
import os
import pathlib
import shutil
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from dbae_jax.errors import DataError
from dbae_jax.runtime.files import write_json

PLAN = "plan.json"
READ_AT_ONCE = 64  # records

log = logging.getLogger("dbae_jax.data")


@dataclasses.dataclass(frozen=True)
class ShardRecord:
    """What is known of a finished shard: records, their bytes and sha256, and broken images.

    `source` is a hash that tells the images it was made from (`Listing.contents`).
    """

    records: int
    bytes: int
    sha256: str
    broken: tuple[tuple[str, str], ...] = ()  # (name, reason)
    source: str = ""


class Staging:
    """The folder of an unfinished preparation; one process at a time works in it."""

    def __init__(self, folder: pathlib.Path, plan: Mapping[str, Any], images_per_shard: int):
        """Makes the folder, or takes up what an earlier run left there.

        Args:
          folder: of the shards until they are all there.
          plan: JSON values that must not change between the runs.
          images_per_shard: at most; what an earlier run began with is kept.

        Raises:
          DataError: if another process works there, or it belongs to another plan.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._lock = (folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            taken = isinstance(error, BlockingIOError)
            reason = (
                "is being written by another process" if taken else f"cannot be locked: {error}"
            )
            raise DataError(f"{folder} {reason}.") from error
        self._finished: dict[str, ShardRecord] = {}
        try:
            self.images_per_shard = self._take_up(plan, images_per_shard)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Lets another process work in the folder."""
        self._lock.close()

    def finished(self, name: str) -> ShardRecord | None:
        """Returns the record of a shard that is whole, None if it has to be written."""
        return self._finished.get(name)

    def write(
        self,
        name: str,
        records: Iterable[bytes],
        *,
        broken: Callable[[], Iterable[tuple[str, str]]],
        source: str = "",
    ) -> ShardRecord:
        """Writes a shard, reads it back and compares.

        Args:
          name: of the shard's file.
          records: serialized examples.
          broken: gives the images that were left out, once all records are written.
          source: hash of the images that the records are made from.

        Raises:
          DataError: if the disk is full, or what is read back differs.
        """
        path, fresh = self.folder / name, self.folder / f"{name}.tmp"
        try:
            written = _write_records(fresh, records)
            if read_back(fresh) != written:
                raise DataError(f"{fresh} reads back differently than written; the disk is faulty.")
            os.replace(fresh, path)
            record = dataclasses.replace(written, broken=tuple(broken()), source=source)
            write_json(self._record_path(name), dataclasses.asdict(record))
        except OSError as error:
            raise explain(error, self.folder) from error
        finally:
            fresh.unlink(missing_ok=True)
        self._finished[name] = record
        return record

    def require_source(self, name: str, source: str) -> None:
        """Checks that a shard, if it is finished, was made from the same images.

        Raises:
          DataError: if it was not.
        """
        if name in self._finished and self._finished[name].source != source:
            raise self._other()

    def place(self, name: str, path: pathlib.Path) -> None:
        """Puts a finished shard at `path` as well, without copying where links are possible."""
        try:
            os.link(self.folder / name, path)
        except OSError:  # no links on this file system: moved, and written anew if interrupted now
            os.replace(self.folder / name, path)

    def remove(self) -> None:
        """Deletes the folder."""
        self.close()
        shutil.rmtree(self.folder)

    def _record_path(self, name: str) -> pathlib.Path:
        return self.folder / f"{name}.json"

    def _other(self) -> DataError:
        return DataError(
            f"{self.folder} holds an unfinished preparation from other files or settings; "
            "repeat the command that began it, or delete the folder."
        )

    def _take_up(self, plan: Mapping[str, Any], images_per_shard: int) -> int:
        path = self.folder / PLAN
        if not path.exists():
            write_json(path, {"plan": plan, "images_per_shard": images_per_shard})
            return images_per_shard
        earlier = json.loads(path.read_text())
        if earlier["plan"] != plan:
            raise self._other()
        for path in sorted(self.folder.glob("*.array_record-*.json")):
            record = _load_record(path)
            shard = path.with_suffix("")
            # A shard with broken images is written anew: they may have been mended since.
            if not record.broken and is_intact(shard, record):
                self._finished[shard.name] = record
        kept = sum(record.records for record in self._finished.values())
        log.info("Going on: %s images of an earlier run are kept.", f"{kept:,}")
        return earlier["images_per_shard"]


def explain(error: OSError, folder: pathlib.Path) -> DataError:
    """Returns what a failed system call means for a preparation."""
    if error.errno == errno.ENOSPC:
        return DataError(
            f"the disk of {folder} is full; free some space and run the same command again, which "
            "goes on with the shards that are done."
        )
    return DataError(f"{error.filename or folder} cannot be used: {error.strerror or error}.")


def read_back(path: pathlib.Path) -> ShardRecord:
    """Returns number, bytes and sha256 of the records that a shard really holds.

    Raises:
      DataError: if a record cannot be read.
    """
    digest, size = hashlib.sha256(), 0
    try:
        reader = ArrayRecordReader(str(path))
        count = reader.num_records()  # 0 of a file that is cut off
        for start in range(0, count, READ_AT_ONCE):
            for record in reader.read(start, min(start + READ_AT_ONCE, count)):
                size += _add(digest, record)
        reader.close()
    except RuntimeError as error:
        raise DataError(f"{path} cannot be read: {' '.join(str(error).split())}.") from error
    return ShardRecord(count, size, digest.hexdigest())


def is_intact(path: pathlib.Path, record: ShardRecord) -> bool:
    """Returns whether a shard is there and holds what was written, byte for byte."""
    try:
        got = read_back(path) if path.is_file() else None
    except DataError:
        return False
    return got == dataclasses.replace(record, broken=(), source="")


def _write_records(path: pathlib.Path, records: Iterable[bytes]) -> ShardRecord:
    digest, count, size = hashlib.sha256(), 0, 0
    try:
        writer = ArrayRecordWriter(str(path), "group_size:1")  # as TFDS: made for random access
        try:
            for record in records:
                writer.write(record)
                size, count = size + _add(digest, record), count + 1
        finally:
            writer.close()
    except RuntimeError as error:  # how the writer tells of a failed system call
        full = os.strerror(errno.ENOSPC) in str(error)
        raise OSError(errno.ENOSPC if full else errno.EIO, " ".join(str(error).split())) from error
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return ShardRecord(count, size, digest.hexdigest())


def _add(digest: Any, record: bytes) -> int:
    digest.update(len(record).to_bytes(8, "little"))
    digest.update(record)
    return len(record)


def _load_record(path: pathlib.Path) -> ShardRecord:
    values = json.loads(path.read_text())
    return ShardRecord(**(values | {"broken": tuple(map(tuple, values["broken"]))}))
