"""Identities of data sets: they tell whether a run still gets the data that it was trained on."""

import hashlib
import logging
import pathlib
from typing import Any

import numpy as np

from dbae_jax.data.sources import Source, read
from dbae_jax.errors import DataError

log = logging.getLogger(__name__)

SAMPLED = 64  # examples that are hashed
LENGTH = 12  # hexadecimal digits of the hash


def of(source: Source) -> dict[str, Any]:
    """Returns the identity of a data set, in JSON types.

    Args:
      source: source of the examples.

    Returns:
      "num_images", "image_shape" ([H, W, C]), "entries" (names of what an example holds), and
      "sha256", the beginning of the hash of evenly spaced examples, as training sees them.
    """
    indices = np.unique(np.linspace(0, len(source) - 1, SAMPLED).astype(int))
    examples = read(source, indices)
    hashed = hashlib.sha256()
    for name in sorted(examples):
        values = np.ascontiguousarray(examples[name])
        hashed.update(repr((name, values.shape, values.dtype.str)).encode())
        hashed.update(values.tobytes())
    return {
        "num_images": len(source),
        "image_shape": list(examples["image"].shape[1:]),
        "entries": sorted(examples),
        "sha256": hashed.hexdigest()[:LENGTH],
    }


def differences(saved: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Returns the differences of two identities, each as text such as "num_images (12, now 13)"."""
    return [
        f"{key} ({saved.get(key)}, now {value})"
        for key, value in found.items()
        if saved.get(key) != value
    ]


def check(
    directory: pathlib.Path, saved: dict[str, Any] | None, now: dict[str, Any], otherwise: str
) -> None:
    """Checks that a run that resumes gets the images that it was trained on.

    Other images of the same number and size are warned of.

    Args:
      directory: folder of the run.
      saved: identity of its training images; None for a run of a version that saved none.
      now: identity of the training images that are there now.
      otherwise: what to do if the earlier images are gone.

    Raises:
      DataError: if the number of images or their size has changed.
    """
    if saved is None:
        return
    if any(saved[key] != now[key] for key in ("num_images", "image_shape")):
        raise DataError(
            f"The run in {directory} was trained on {describe(saved)}, and the training images are "
            f"now {describe(now)}. Bring the earlier data back, or {otherwise}."
        )
    if changed := differences(saved, now):
        log.warning(
            "The training images have changed since the last checkpoint: %s. The run resumes with "
            "the images that are there now.",
            ", ".join(changed),
        )


def describe(identity: dict[str, Any]) -> str:
    """Returns an identity in words, such as "1437 images of 16x16x1, hash 0a1b2c3d4e5f"."""
    shape = "x".join(map(str, identity["image_shape"]))
    return f"{identity['num_images']} images of {shape}, hash {identity['sha256']}"
