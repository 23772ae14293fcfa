"""DBAE on your own folder of images at 128x128: a model of medium size for one GPU.

python -m dbae_jax.data.prepare --dataset=folder --name=flowers --source=FOLDER
dbae train --config=folder128 --config.data.name=flowers --workdir=runs/flowers

For the paper's networks at this size, give the networks of configs/ffhq.py to a folder:
--config=ffhq --config.data.name=flowers. docs/reference/data_sets.md describes how the folder is
split, and what the configs of folders cost. Gray images need --config.data.channels=1.
"""

from dbae_jax.configs import folder64
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the config."""
    c = folder64.get_config()
    c.data.image_size = 128

    c.model.latent_dim = 512
    c.model.encoder.channel_mult = (1, 2, 4, 4, 8, 8)
    c.model.decoder.base_channels = 32
    c.model.unet.channel_mult = (1, 1, 2, 2, 4)

    c.train.batch_size = 32
    c.train.num_steps = 200_000
    c.distill.batch_size = 32
    return c
