"""DBAE on CelebA-HQ at 128x128: the networks and settings of configs/ffhq.py.

python -m dbae_jax.main --config=configs/celebahq.py --workdir=runs/celebahq
"""

from dbae_jax.configs import ffhq


def get_config():
    c = ffhq.get_config()
    c.data.name = "celebahq"
    # As the authors: all 30,000 images, to train on and to evaluate a model of FFHQ on. To hold
    # some out: --config.data.train_split='train[:27000]' --config.data.test_split='train[27000:]'
    c.data.train_split = "train"
    c.data.test_split = "train"
    return c
