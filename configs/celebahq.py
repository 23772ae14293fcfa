"""DBAE on CelebA-HQ at 128x128: the networks and settings of configs/ffhq.py.

python -m dbae_jax.main --config=configs/celebahq.py --workdir=runs/celebahq
"""

from dbae_jax.configs import ffhq
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the config."""
    c = ffhq.get_config()
    c.data.name = "celebahq"
    # As the authors do: all 30,000 images, for training and for the evaluation of an FFHQ model.
    # To hold some out: --config.data.train_split='train[:27000]'
    # --config.data.test_split='train[27000:]'
    c.data.train_split = "train"
    c.data.test_split = "train"
    return c
