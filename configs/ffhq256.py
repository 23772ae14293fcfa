"""DBAE on FFHQ at 256x256. The paper has no model of this size.

python -m dbae_jax.data.prepare --dataset=ffhq --source=images1024x1024
dbae train --config=ffhq256 --workdir=runs/ffhq256

The networks have the widths of the 256-pixel models of DiffAE and DDBM.
docs/reference/data_sets.md describes the data, and docs/performance/ predicts memory and speed on
several devices.
"""

from dbae_jax.configs import ffhq
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the config."""
    c = ffhq.get_config()
    c.data.image_size = 256
    c.model.encoder.base_channels = 128
    c.model.encoder.channel_mult = (1, 1, 2, 2, 4, 4, 4)
    c.model.encoder.attention_resolutions = (16,)
    c.model.unet.base_channels = 128
    c.model.unet.channel_mult = (1, 1, 2, 2, 4, 4)
    c.model.unet.attention_resolutions = (32, 16, 8)
    c.optim.learning_rate = 1e-4
    c.optim.ema_decay = 0.9999
    c.train.batch_size = 64
    return c
