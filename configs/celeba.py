"""DBAE on CelebA at 64x64, the paper's settings (120.6M parameters, 39.9 GFLOP per image forward).

python -m dbae_jax.main --config=configs/celeba.py --workdir=runs/celeba

docs/reference/data_sets.md describes how to prepare the data.

The paper's probes on latent codes after about 1M steps reach an average precision (AP) of .650 with
the deterministic encoder, and .655 with --config.model.stochastic=True.
"""

from dbae_jax.configs import base
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the config."""
    c = base.get_config()
    c.data.name = "celeba"
    c.data.crop = "d2c"
    return c
