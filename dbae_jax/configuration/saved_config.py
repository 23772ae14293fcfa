"""A config file that returns the config of a run: --config=WORKDIR/config.json."""

import json

from ml_collections import ConfigDict

from dbae_jax.configs import base
from dbae_jax.configuration import paths
from dbae_jax.configuration.config import upgrade


def get_config(path: str) -> ConfigDict:
    """Returns the config in a config.json; keys that it lacks have the values of configs/base.py.

    Args:
      path: the file.
    """
    c = base.get_config()
    file = paths.read(path, "--config", buckets=True)
    c.update(upgrade(json.loads(file.read_text(encoding="utf-8"))))
    return c
