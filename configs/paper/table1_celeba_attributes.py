"""Table 1, left, AP: linear probes of CelebA's 40 attributes on latent codes of a CelebA model.

python -m dbae_jax.main --config=configs/celeba.py --workdir=runs/celeba
python -m dbae_jax.main --config=configs/paper/table1_celeba_attributes.py --workdir=runs/celeba \
    --mode=evaluate

Published: .650 (DBAE-d), .655 (DBAE). Variants: deterministic, stochastic, sampled.
The probes use the official splits, mirrored training images, and Adam with learning rate 1e-3 for
15 epochs of batches of 128. The epoch that is best on validation images is measured.
"""

from dbae_jax.configs import celeba
from dbae_jax.configs.paper import variants
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of the named variants, separated by commas.

    "" selects the first variant of every group.
    """
    c = celeba.get_config()
    variants.evaluate(c, "probe", validation_split="validation")
    return variants.apply(c, variant, variants.ENCODERS)
