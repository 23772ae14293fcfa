"""DBAE on FFHQ at 128x128, the paper's settings (162.4M parameters, 186.5 GFLOP per image forward).

python -m dbae_jax.main --config=configs/ffhq.py --workdir=runs/ffhq

docs/reference/data_sets.md describes how to prepare the data.

The paper's probes on latent codes after about 1M steps reach an average precision (AP) of .656 with
the deterministic encoder, and .664 with --config.model.stochastic=True. The reconstructions of
CelebA-HQ have an MSE of 2.49e-3 and 4.81e-3.
"""

from dbae_jax.configs import base
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the config."""
    c = base.get_config()
    c.data.name = "ffhq"
    c.data.crop = "center"
    # The authors train on all 70,000 images. "test", the images below number 10,000, is a part of
    # them. To hold it out: --config.data.train_split=train60k
    c.data.train_split = "train"
    c.data.test_split = "test"
    c.data.image_size = 128
    c.model.encoder.base_channels = 128
    c.model.encoder.channel_mult = (1, 1, 2, 3, 4, 4)
    c.model.unet.base_channels = 128
    c.model.unet.channel_mult = (1, 1, 2, 3, 4)
    return c
