"""DiffAE on digits: the baseline of configs/digits.py.

Encoder, U-Net, data and training are the same; x_T is Gaussian noise, independent of z.

python -m dbae_jax.main --config=configs/diffae_digits.py --workdir=runs/diffae_digits
python -m dbae_jax.comparison --config=configs/digits.py --workdir=runs/comparison

The second command trains this model and the model of configs/digits.py and compares them; see
docs/results/comparison.md.
"""

from dbae_jax.configs import digits
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the config."""
    c = digits.get_config()
    c.bridge.endpoint = "free"  # Gaussian x_T
    c.bridge.beta_d = 19.9  # with beta_min = 0.1: the usual VP, a_T = 0.0066
    return c
