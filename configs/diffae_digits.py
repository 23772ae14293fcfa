"""DiffAE on digits: the baseline of DBAE, same encoder, U-Net, data, budget; x_T is noise.

python -m dbae_jax.main --config=configs/diffae_digits.py --workdir=runs/diffae_digits
python -m dbae_jax.comparison --config=configs/digits.py --workdir=runs/comparison

The second trains this and configs/digits.py and compares them: docs/comparison.md.
"""

from dbae_jax.configs import digits


def get_config():
    c = digits.get_config()
    c.bridge.endpoint = "free"
    c.bridge.beta_d = 19.9  # with beta_min = 0.1 the usual VP, whose x_T is noise: a_T = 0.0066
    return c
