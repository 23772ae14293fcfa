"""Images that the command line names: files, or items of the data set."""

import re
from collections.abc import Callable, Mapping

import numpy as np

from dbae_jax.api import images
from dbae_jax.configuration import paths
from dbae_jax.configuration.sections import DataConfig
from dbae_jax.data.sources import Source
from dbae_jax.errors import DataError

_ITEM = re.compile(r"(?:(train|test):)?(-?\d+)")


def read(name: str, data: DataConfig, splits: Mapping[str, Source]) -> np.ndarray:
    """Returns an image in the form in which the model takes it: uint8 [S, S, C].

    Args:
      name: an item of the data set or an image file. "test:17" and "train:3" are items, and so is
        "17" of the test split. A file has any type that PIL reads; it is cropped and resized like
        the data set's images. A file whose name is a number needs a path, such as "./17".
      data: config of the data, with crop, size and channels.
      splits: sources of the splits "train" and "test".

    Raises:
      DataError: if there is no such item or file, or the file does not hold a suitable image.
    """
    item = _ITEM.fullmatch(name.strip())
    if item is None:
        return _read_file(name, data)
    split, index = item[1] or "test", int(item[2])
    source = splits[split]
    if not 0 <= index < len(source):
        raise DataError(
            f"{name} is out of range: the {split} split of {data.name} has the images 0 to "
            f"{len(source) - 1}."
        )
    return source[index]["image"]


def read_all(
    names: list[str], data: DataConfig, splits: Callable[[], Mapping[str, Source]]
) -> np.ndarray:
    """Returns images, uint8 [N, S, S, C].

    Args:
      names: names of images, see `read`.
      data: config of the data.
      splits: opens the splits; called only if an item of the data set is named.

    Raises:
      DataError: if there are no names, or an image cannot be read.
    """
    if not names:
        raise DataError(
            "no image is named: give image files, or images of the data set such as test:17."
        )
    opened = splits() if any(_ITEM.fullmatch(name.strip()) for name in names) else {}
    return np.stack([read(name, data, opened) for name in names])


def _read_file(name: str, data: DataConfig) -> np.ndarray:
    path = paths.read(name, "the image")
    if not path.exists():
        raise DataError(
            f"There is no image file {name}; {paths.nearest(path)}images of the data set have "
            "names such as test:17 or train:3."
        )
    return images.read_file(name, data)
