"""DiffAE on CelebA at 64x64: the encoder and the U-Net of configs/celeba.py; x_T is noise.

python -m dbae_jax.main --config=configs/diffae_celeba.py --workdir=runs/diffae_celeba

docs/data.md says how to prepare the data. The published DiffAE, of other networks, reaches AP .603
in the paper's probes.
"""

from dbae_jax.configs import celeba


def get_config():
    c = celeba.get_config()
    c.bridge.endpoint = "free"
    c.bridge.beta_d = 19.9  # with beta_min = 0.1 the usual VP, whose x_T is noise: a_T = 0.0066
    return c
