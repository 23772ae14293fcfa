"""DBAE on CelebA-HQ at 256x256: the networks and settings of configs/ffhq256.py.

python -m dbae_jax.data.prepare --dataset=celebahq --source=CelebAMask-HQ.zip
dbae train --config=celebahq256 --workdir=runs/celebahq256
"""

from dbae_jax.configs import celebahq, ffhq256
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the config."""
    c = ffhq256.get_config()
    c.data = celebahq.get_config().data
    c.data.image_size = 256
    return c
