"""The file preparation.json next to the records of a prepared data set."""

import json
import pathlib
from typing import Any

from dbae_jax.errors import DataError

PREPARATION = "preparation.json"


def read_preparation(folder: pathlib.Path) -> dict[str, Any]:
    """Returns the content of the preparation.json that `ImageBuilder.prepare` wrote.

    Args:
      folder: folder of a prepared data set.

    Raises:
      DataError: if the folder has no preparation.json because another program wrote it.
    """
    path = folder / PREPARATION
    if not path.is_file():
        raise DataError(
            f"{folder} was not written by dbae_jax.data.prepare: it has no {path.name}; name a "
            "different --data_dir, or delete the folder and prepare the data set again."
        )
    return json.loads(path.read_text())
