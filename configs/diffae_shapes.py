"""DiffAE on shapes: the baseline of configs/shapes.py.

Encoder, U-Net, data and training are the same; x_T is Gaussian noise, independent of z.

python -m dbae_jax.main --config=configs/diffae_shapes.py --workdir=runs/diffae_shapes
python -m dbae_jax.comparison --config=configs/shapes.py --workdir=runs/comparison_shapes

The second command trains this model and the model of configs/shapes.py and compares them; see
docs/results/comparison.md.
"""

from dbae_jax.configs import shapes
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the config."""
    c = shapes.get_config()
    c.bridge.endpoint = "free"  # Gaussian x_T
    c.bridge.beta_d = 19.9  # with beta_min = 0.1: the usual VP, a_T = 0.0066
    return c
