"""Causes of a failure are distinguished."""

import errno
import os

import pytest

from dbae_jax.errors import DeviceMemoryError, StorageError
from dbae_jax.runtime import failures

TENSORSTORE = (
    'RESOURCE_EXHAUSTED: Error writing "1.0.nu/0" in OCDBT database at local file '
    '"/runs/a/checkpoints/2/d/8e7": Failed to write 2764 bytes to file 23: No space left on device '
    "[os_error_code='28']"
)


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/runs/a.json"), StorageError, "is full"),
        (OSError(errno.EROFS, os.strerror(errno.EROFS), "/runs/a.json"), StorageError, "read-only"),
        (PermissionError(errno.EACCES, "no", "/runs/a.json"), StorageError, "permissions"),
        (FileNotFoundError(errno.ENOENT, "no", "/runs/a.json"), StorageError, "Check the path"),
        (ValueError(TENSORSTORE), StorageError, "^/runs/a/checkpoints/2/d/8e7 .* is full"),
        (ValueError("RESOURCE_EXHAUSTED: Out of memory"), DeviceMemoryError, "of the devices"),
        (MemoryError("numpy"), DeviceMemoryError, "of this computer is full"),
    ],
)
def test_errors_of_the_computer_become_a_sentence(error, kind, words):
    with (
        pytest.raises(kind, match=words) as caught,
        failures.explaining(lambda: "The checkpoint of step 7 is kept."),
    ):
        raise error
    assert str(caught.value).endswith("The checkpoint of step 7 is kept.")


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (type("ClientError", (Exception,), {"__module__": "botocore.exceptions"})("x"), True),
        (OSError("Forbidden: https://storage.googleapis.com/..."), True),
        (ValueError("UNAVAILABLE: Error reading gs://bucket/run/a: CURL error"), True),
        (ValueError("ABORTED: All 2 retry attempts failed: CURL error Could not connect"), True),
        (ValueError('NOT_FOUND: Error opening "zarr" driver: gs://bucket/run/a'), False),
        (ValueError("UNAVAILABLE: another process"), False),
    ],
)
def test_a_bucket_that_fails_is_told_apart_from_damaged_objects(error, found):
    explained = failures.explanation(error)
    assert isinstance(explained, StorageError) == found
    assert not found or str(explained).startswith("A bucket cannot be read or written (")


def test_a_cause_is_found_behind_other_errors():
    with pytest.raises(StorageError, match="is full"), failures.explaining():
        try:
            raise ValueError(TENSORSTORE)
        except ValueError as error:
            raise RuntimeError("orbax gives up") from error


def test_errors_of_ours_stay_as_they_are():
    with pytest.raises(ValueError, match="a bug"), failures.explaining():
        try:
            raise FileNotFoundError(errno.ENOENT, "handled", "/runs/a.json")
        except FileNotFoundError:
            raise ValueError("a bug") from None
    with pytest.raises(ValueError, match="a bug"), failures.explaining():
        raise ValueError("a bug")
    with pytest.raises(KeyError), failures.explaining():
        try:
            raise PermissionError(errno.EACCES, "handled", "/runs/a.json")
        except PermissionError:
            {}["missing"]
