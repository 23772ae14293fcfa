"""DBAE on your own folder of images at 32x32: trains on a CPU, or in minutes on one GPU.

python -m dbae_jax.data.prepare --dataset=folder --name=flowers --source=FOLDER
dbae train --config=folder32 --config.data.name=flowers --workdir=runs/flowers

The networks and the training are those of configs/emoji32.py. docs/reference/data_sets.md
describes how the folder is split, and what the configs of folders cost. Gray images need
--config.data.channels=1.
"""

from dbae_jax.configs import emoji32
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the config."""
    c = emoji32.get_config()
    c.data.name = "folder"
    c.data.crop = "center"
    c.data.flip = True
    c.eval.validation_split = ""  # a part of the training split
    return c
