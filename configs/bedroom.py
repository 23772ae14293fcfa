"""DBAE on LSUN Bedroom at 128x128: the networks and settings of configs/ffhq.py.

python -m dbae_jax.main --config=configs/bedroom.py --workdir=runs/bedroom
"""

from dbae_jax.configs import ffhq
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the config."""
    c = ffhq.get_config()
    c.data.name = "bedroom"
    # As the authors do: training uses all images, also those that are evaluated. To hold these out:
    # --config.data.train_split='train[10000:]'
    c.data.train_split = "train"
    c.data.test_split = "train[:10000]"
    c.prior.num_layers = 20
    return c
