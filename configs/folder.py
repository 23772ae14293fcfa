"""DBAE on your own folder of images at 64x64: the networks and settings of configs/base.py.

python -m dbae_jax.data.prepare --dataset=folder --name=flowers --source=FOLDER
dbae train --config=folder --config.data.name=flowers --workdir=runs/flowers

This is the paper's model, for a large data set. configs/folder32.py, folder64.py and folder128.py
are smaller. docs/reference/data_sets.md describes how the folder is split, and what the configs
of folders cost. Gray images need --config.data.channels=1.
"""

from dbae_jax.configs import base
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the config."""
    c = base.get_config()
    c.data.name = "folder"
    c.data.crop = "center"
    return c
