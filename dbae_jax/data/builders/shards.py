"""Shard files that survive an interruption: a shard counts only once it was written and read back.

A preparation collects its shards in a staging folder next to the folder of the finished data set.
A shard is finished once its record `<shard>.json` exists. A shard that an interruption left
incomplete has no record and is written again.
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
from dbae_jax.runtime.progress import track

PLAN = "plan.json"
READ_AT_ONCE = 64  # records

log = logging.getLogger("dbae_jax.data")


@dataclasses.dataclass(frozen=True)
class ShardRecord:
    """Content of a finished shard.

    Attributes:
      records: number of examples.
      bytes: total size of the examples.
      sha256: hash of the examples and their sizes.
      broken: (name, reason) of every image that could not be decoded and is left out.
      source: hash of the published images that the shard was made from (`Listing.contents_hash`).
      seen: number of images by what was found in their files (`transforms.FINDINGS`) and by size.
    """

    records: int
    bytes: int
    sha256: str
    broken: tuple[tuple[str, str], ...] = ()
    source: str = ""
    seen: Mapping[str, int] = dataclasses.field(default_factory=dict)


class Staging:
    """The folder of an unfinished preparation; only one process at a time works in it."""

    def __init__(self, folder: pathlib.Path, plan: Mapping[str, Any], images_per_shard: int):
        """Creates and locks the folder, or resumes the preparation that an earlier run began.

        Args:
          folder: staging folder of the shards.
          plan: settings as JSON values, which must be the same in every run.
          images_per_shard: largest number of images per shard; a resumed preparation keeps its own.

        Raises:
          DataError: if another process works in the folder, or the folder has a different plan.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._lock = (folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise DataError(
                f"{folder} is being written by another process; wait until that process has ended, "
                "or name a different --data_dir."
            ) from error
        except OSError as error:
            self._lock.close()
            raise DataError(
                f"{folder} cannot be locked: {error}; name a --data_dir on a disk with file locks."
            ) from error
        self._finished: dict[str, ShardRecord] = {}
        try:
            self.images_per_shard = self._start_or_resume(plan, images_per_shard)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Unlocks the folder, so that another process can work in it."""
        self._lock.close()

    def finished(self, name: str) -> ShardRecord | None:
        """Returns the record of a finished shard; None if the shard has to be written."""
        return self._finished.get(name)

    def write(
        self,
        name: str,
        records: Iterable[bytes],
        *,
        broken: Callable[[], Iterable[tuple[str, str]]],
        source: str = "",
        seen: Callable[[], Mapping[str, int]] = dict,
    ) -> ShardRecord:
        """Writes a shard, reads it back and compares.

        Args:
          name: file name of the shard.
          records: serialized examples.
          broken: function that returns (name, reason) of the images that were left out. It is
            called once all records are written.
          source: hash of the published images that the records are made from.
          seen: function that returns the numbers of images by finding, called then too.

        Returns:
          The record of the shard.

        Raises:
          DataError: if the disk is full, or the shard differs when it is read back.
        """
        path, fresh = self.folder / name, self.folder / f"{name}.tmp"
        try:
            written = _write_records(fresh, records)
            if read_back(fresh) != written:
                raise DataError(
                    f"{fresh} reads back differently than written: the disk is faulty; name a "
                    "--data_dir on a different disk."
                )
            os.replace(fresh, path)
            record = dataclasses.replace(
                written, broken=tuple(broken()), source=source, seen=dict(seen())
            )
            write_json(self._record_path(name), dataclasses.asdict(record))
        except OSError as error:
            raise explain(error, self.folder) from error
        finally:
            fresh.unlink(missing_ok=True)
        self._finished[name] = record
        return record

    def require_same_images(self, name: str, source: str) -> None:
        """Checks that a shard, if it is finished, was made from the same published images.

        Args:
          name: file name of the shard.
          source: hash of the published images.

        Raises:
          DataError: if the shard was made from different images.
        """
        if name in self._finished and self._finished[name].source != source:
            raise self._different_preparation()

    def place(self, name: str, path: pathlib.Path) -> None:
        """Links a finished shard to `path`; moves it where the file system has no hard links."""
        try:
            os.link(self.folder / name, path)
        except OSError:  # An interruption after this move costs the shard: it is written again.
            os.replace(self.folder / name, path)

    def remove(self) -> None:
        """Unlocks and deletes the folder."""
        self.close()
        shutil.rmtree(self.folder)

    def _record_path(self, name: str) -> pathlib.Path:
        return self.folder / f"{name}.json"

    def _different_preparation(self) -> DataError:
        return DataError(
            f"{self.folder} holds an unfinished preparation with different files or settings; "
            "repeat the command that began it, or delete the folder."
        )

    def _start_or_resume(self, plan: Mapping[str, Any], images_per_shard: int) -> int:
        """Reads the finished shards, if there are any, and returns the images per shard."""
        path = self.folder / PLAN
        if not path.exists():
            write_json(path, {"plan": plan, "images_per_shard": images_per_shard})
            return images_per_shard
        earlier = json.loads(path.read_text())
        if earlier["plan"] != plan:
            raise self._different_preparation()
        paths = sorted(self.folder.glob("*.array_record-*.json"))
        for path in track(paths, "Checking finished shards", total=len(paths), unit="shards"):
            record = _load_record(path)
            shard = path.with_suffix("")
            # A shard with broken images is written again: the user may have fixed these images.
            if not record.broken and is_intact(shard, record):
                self._finished[shard.name] = record
        kept = sum(record.records for record in self._finished.values())
        log.info("Resuming the preparation: %s images of an earlier run are kept.", f"{kept:,}")
        return earlier["images_per_shard"]


def explain(error: OSError, folder: pathlib.Path) -> DataError:
    """Returns a DataError that explains a failed system call to the user of the command.

    Args:
      error: error of the system call.
      folder: folder that was written.
    """
    if error.errno == errno.ENOSPC:
        return DataError(
            f"the disk of {folder} is full; free some space and run the same command again, which "
            "resumes after the finished shards."
        )
    return DataError(
        f"{error.filename or folder} cannot be used: {error.strerror or error}; check its "
        "permissions and its disk, then run the same command again."
    )


def read_back(path: pathlib.Path) -> ShardRecord:
    """Returns the number, total size and sha256 of the records that a shard file holds.

    Raises:
      DataError: if a record cannot be read.
    """
    sha256, size = hashlib.sha256(), 0
    try:
        reader = ArrayRecordReader(str(path))
        count = reader.num_records()  # 0 if the file is cut off
        for start in range(0, count, READ_AT_ONCE):
            for record in reader.read(start, min(start + READ_AT_ONCE, count)):
                size += _add_record(sha256, record)
        reader.close()
    except RuntimeError as error:
        raise DataError(
            f"{path} cannot be read: {' '.join(str(error).split())}; run the same command again, "
            "which writes the shard again."
        ) from error
    return ShardRecord(count, size, sha256.hexdigest())


def is_intact(path: pathlib.Path, record: ShardRecord) -> bool:
    """Returns whether a shard file exists and holds exactly the records that were written."""
    try:
        found = read_back(path) if path.is_file() else None
    except DataError:
        return False
    return found == dataclasses.replace(record, broken=(), source="", seen={})


def _write_records(path: pathlib.Path, records: Iterable[bytes]) -> ShardRecord:
    sha256, count, size = hashlib.sha256(), 0, 0
    try:
        writer = ArrayRecordWriter(str(path), "group_size:1")  # for random access, as TFDS does
        try:
            for record in records:
                writer.write(record)
                size, count = size + _add_record(sha256, record), count + 1
        finally:
            writer.close()
    except RuntimeError as error:  # The writer reports a failed system call in this way.
        full = os.strerror(errno.ENOSPC) in str(error)
        raise OSError(errno.ENOSPC if full else errno.EIO, " ".join(str(error).split())) from error
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return ShardRecord(count, size, sha256.hexdigest())


def _add_record(sha256: Any, record: bytes) -> int:
    """Adds the size and the bytes of a record to a hash, and returns the size."""
    sha256.update(len(record).to_bytes(8, "little"))
    sha256.update(record)
    return len(record)


def _load_record(path: pathlib.Path) -> ShardRecord:
    values = json.loads(path.read_text())
    return ShardRecord(**(values | {"broken": tuple(map(tuple, values["broken"]))}))
