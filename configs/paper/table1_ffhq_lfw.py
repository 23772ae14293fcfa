"""Table 1, right, r and MSE: linear probes of LFW's 73 attributes on latent codes of an FFHQ model.

python -m dbae_jax.main --config=configs/ffhq.py --workdir=runs/ffhq
python -m dbae_jax.main --config=configs/paper/table1_ffhq_lfw.py --workdir=runs/ffhq \
    --mode=evaluate

Published: r .638, MSE .404 (DBAE-d); .675, .332 (DBAE).
table1_celeba_lfw.py explains how their epochs were chosen. Variants: deterministic, stochastic,
sampled.
"""

from dbae_jax.configs import ffhq
from dbae_jax.configs.paper import variants
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of the named variants, separated by commas.

    "" selects the first variant of every group.
    """
    c = ffhq.get_config()
    c.data.name = "lfw"
    c.data.crop = "zoom"
    c.data.flip = False
    variants.evaluate(c, "probe", probe_batch_size=64)
    return variants.apply(c, variant, variants.ENCODERS)
