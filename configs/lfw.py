"""LFW at 64x64, for probes of the attributes on codes of a model of configs/celeba.py.

Prepare the data first: docs/data.md. Its 9,525 training images are few for training a model on.
"""

from dbae_jax.configs import base


def get_config():
    c = base.get_config()
    c.data.name = "lfw"
    c.data.crop = "zoom"  # faces fill less of the image than in CelebA
    return c
