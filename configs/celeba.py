"""DBAE on CelebA at 64x64, the paper's settings (120.6M parameters, 39.9 GFLOP an image forward).

python -m dbae_jax.main --config=configs/celeba.py --workdir=runs/celeba

docs/data.md says how to prepare the data.

The paper's probes on its codes after about 1M steps: AP .650 deterministic, .655 with
--config.model.stochastic=True.
"""

from dbae_jax.configs import base


def get_config():
    c = base.get_config()
    c.data.name = "celeba"
    c.data.crop = "d2c"
    return c
