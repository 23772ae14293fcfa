"""A config file that returns the config of a run: --config=WORKDIR/config.json."""

import json
import pathlib

from ml_collections import ConfigDict

from dbae_jax.configs import base


def get_config(path: str) -> ConfigDict:
    """Returns the config in a config.json; keys that it lacks have the values of configs/base.py.

    Args:
      path: the file.
    """
    c = base.get_config()
    c.update(json.loads(pathlib.Path(path).read_text(encoding="utf-8")))
    return c
