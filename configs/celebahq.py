"""DBAE on CelebA-HQ at 128x128: the networks and settings of configs/ffhq.py.

python -m dbae_jax.main --config=configs/celebahq.py --workdir=runs/celebahq
"""

from configs import ffhq


def get_config():
    c = ffhq.get_config()
    c.data.name = "celebahq"
    return c
