"""Table 1, left, AP: linear probes of CelebA's 40 attributes on codes of a CelebA model.

python -m dbae_jax.main --config=configs/celeba.py --workdir=runs/celeba
python -m dbae_jax.main --config=configs/paper/table1_celeba_attributes.py --workdir=runs/celeba \
    --mode=evaluate

Published: .650 (DBAE-d), .655 (DBAE). Variants: deterministic, stochastic, sampled.
Official splits, mirrored training images, Adam 1e-3, 15 epochs of batches of 128, the epoch that is
best on validation images.
"""

from dbae_jax.configs import celeba
from dbae_jax.configs.paper import variants


def get_config(variant=""):
    c = celeba.get_config()
    variants.evaluate(c, "probe", validation_split="validation")
    return variants.apply(c, variant, variants.ENCODERS)
