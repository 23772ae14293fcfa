"""DBAE on LSUN Horse at 128x128: the networks and settings of configs/ffhq.py.

python -m dbae_jax.main --config=configs/horse.py --workdir=runs/horse
"""

from configs import ffhq


def get_config():
    c = ffhq.get_config()
    c.data.name = "horse"
    return c
