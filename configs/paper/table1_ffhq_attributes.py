"""Table 1, right, AP: linear probes of CelebA's 40 attributes on latent codes of an FFHQ model.

python -m dbae_jax.main --config=configs/ffhq.py --workdir=runs/ffhq
python -m dbae_jax.main --config=configs/paper/table1_ffhq_attributes.py --workdir=runs/ffhq \
    --mode=evaluate

Published: .656 (DBAE-d), .664 (DBAE). Variants: deterministic, stochastic, sampled.
The model's image size is 128, so the crop of 128x128 pixels from CelebA is not resized. All other
settings are those of table1_celeba_attributes.py.
"""

from dbae_jax.configs import ffhq
from dbae_jax.configs.paper import variants
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of the named variants, separated by commas.

    "" selects the first variant of every group.
    """
    c = ffhq.get_config()
    c.data.name = "celeba"
    c.data.crop = "d2c"
    variants.evaluate(c, "probe", validation_split="validation")
    return variants.apply(c, variant, variants.ENCODERS)
