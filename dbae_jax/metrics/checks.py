"""Checks of the arrays that metrics receive."""

import numpy as np

from dbae_jax.errors import DataError, TooFewError


def feature_matrix(values: np.ndarray, name: str, *, at_least: int = 2) -> np.ndarray:
    """Returns features as float64 [N, D].

    Args:
      values: features [N, D] of any real dtype.
      name: name of the values in error messages.
      at_least: smallest number of rows that the metric accepts.

    Raises:
      TooFewError: if there are too few rows.
      DataError: if the rank is not 2, if there is no column, or if a value is not finite.
    """
    values = np.asarray(values)
    if values.ndim != 2 or not values.shape[1]:
        raise DataError(f"{name} must be a matrix [N, D], got shape {list(values.shape)}.")
    if len(values) < at_least:
        raise TooFewError(f"{name}: this metric needs {at_least} rows or more, got {len(values)}.")
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        rows = np.flatnonzero(~np.isfinite(values).all(axis=1))
        raise DataError(f"{name} hold NaN or infinity in {len(rows)} rows, first in row {rows[0]}.")
    return values


def feature_pair(
    x: np.ndarray, y: np.ndarray, names: tuple[str, str], *, at_least: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    """Returns two feature sets of the same width, each checked by `feature_matrix`.

    Raises:
      DataError: as for `feature_matrix`, or if the widths differ.
    """
    x, y = (feature_matrix(v, n, at_least=at_least) for v, n in zip((x, y), names, strict=True))
    if x.shape[1] != y.shape[1]:
        raise DataError(
            f"{names[0]} and {names[1]} must have the same width, "
            f"got {x.shape[1]} and {y.shape[1]}."
        )
    return x, y


def image_pair(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns two float arrays of images in [-1, 1] with the same shape; the dtypes stay.

    Raises:
      DataError: if the shapes differ, if there are no images, if the values are integers, or if a
        value is not finite.
    """
    x, y = np.asarray(x), np.asarray(y)
    if x.shape != y.shape or x.size == 0:
        raise DataError(
            f"images to compare must have the same shape and must not be empty, "
            f"got {list(x.shape)} and {list(y.shape)}."
        )
    for images in (x, y):
        if not np.issubdtype(images.dtype, np.floating):
            raise DataError(f"images to compare must be floats in [-1, 1], got {images.dtype}.")
        if not np.isfinite(images).all():
            raise DataError("images to compare contain values that are not finite.")
    return x, y


def labelled(labels: np.ndarray, values: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns 0/1 labels as bool [N, K], and the float64 values [N, D] of the same rows.

    Raises:
      DataError: if shapes or row counts do not match, if a label is not 0 or 1, or if a value is
        not finite.
    """
    labels, values = np.asarray(labels), feature_matrix(values, name)
    if labels.ndim != 2 or len(labels) != len(values):
        raise DataError(
            f"labels must be [{len(values)}, K] for {name} {list(values.shape)}, "
            f"got {list(labels.shape)}."
        )
    if not np.isin(labels, (0, 1)).all():
        raise DataError("labels must be 0 or 1 (False or True); map -1 to 0 first.")
    return labels.astype(bool), values


def eight_bit_images(
    images: np.ndarray, shape: tuple[int | None, int | None, int | None] = (None, None, None)
) -> np.ndarray:
    """Returns uint8 images [N, H, W, C] unchanged.

    Args:
      images: images to check.
      shape: required (H, W, C); None for a side of any size.

    Raises:
      DataError: if the shape or dtype is wrong, or if there is no image.
    """
    images = np.asarray(images)
    fits = images.ndim == 4 and all(
        want in (None, got) for want, got in zip(shape, images.shape[1:], strict=True)
    )
    if images.dtype != np.uint8 or not fits or not images.size:
        sides = [str(want or letter) for want, letter in zip(shape, "HWC", strict=True)]
        raise DataError(
            f"this network accepts uint8 images [N, {', '.join(sides)}], "
            f"got {images.dtype} {list(images.shape)}."
        )
    return images
