"""LFW at 64x64, for attribute probes on the latent codes of a model of configs/celeba.py.

docs/reference/data_sets.md describes how to prepare the data. Its 9,525 training images are few for
training a model.
"""

from dbae_jax.configs import base
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the config."""
    c = base.get_config()
    c.data.name = "lfw"
    c.data.crop = "zoom"  # faces are smaller in the image than in CelebA
    return c
