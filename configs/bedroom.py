"""DBAE on LSUN Bedroom at 128x128: the networks and settings of configs/ffhq.py.

python -m dbae_jax.main --config=configs/bedroom.py --workdir=runs/bedroom
"""

from configs import ffhq


def get_config():
    c = ffhq.get_config()
    c.data.name = "bedroom"
    return c
