"""DiffAE on shapes: the baseline of DBAE, same encoder, U-Net, data, budget; x_T is noise.

python -m dbae_jax.main --config=configs/diffae_shapes.py --workdir=runs/diffae_shapes
python -m dbae_jax.comparison --config=configs/shapes.py --workdir=runs/comparison_shapes

The second trains this and configs/shapes.py and compares them, see docs/comparison.md.
"""

from dbae_jax.configs import shapes


def get_config():
    c = shapes.get_config()
    c.bridge.endpoint = "free"
    c.bridge.beta_d = 19.9  # with beta_min = 0.1 the usual VP, whose x_T is noise: a_T = 0.0066
    return c
