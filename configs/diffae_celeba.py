"""DiffAE on CelebA at 64x64, with the encoder and the U-Net of configs/celeba.py.

x_T is Gaussian noise, independent of z.

python -m dbae_jax.main --config=configs/diffae_celeba.py --workdir=runs/diffae_celeba

docs/reference/data_sets.md describes how to prepare the data. The published DiffAE, which has
different networks, reaches an average precision (AP) of .603 in the paper's probes.
"""

from dbae_jax.configs import celeba
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the config."""
    c = celeba.get_config()
    c.bridge.endpoint = "free"  # Gaussian x_T
    c.bridge.beta_d = 19.9  # with beta_min = 0.1: the usual VP, a_T = 0.0066
    return c
