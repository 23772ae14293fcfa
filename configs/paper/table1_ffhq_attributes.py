"""Table 1, right, AP: linear probes of CelebA's 40 attributes on codes of an FFHQ model.

python -m dbae_jax.main --config=configs/ffhq.py --workdir=runs/ffhq
python -m dbae_jax.main --config=configs/paper/table1_ffhq_attributes.py --workdir=runs/ffhq \
    --mode=evaluate

Published: .656 (DBAE-d), .664 (DBAE). Variants: deterministic, stochastic, sampled.
The model's size is 128, so CelebA's crop of 128x128 pixels is not resized; else as
table1_celeba_attributes.py.
"""

from dbae_jax.configs import ffhq
from dbae_jax.configs.paper import variants


def get_config(variant=""):
    c = ffhq.get_config()
    c.data.name = "celeba"
    c.data.crop = "d2c"
    variants.evaluate(c, "probe", validation_split="validation")
    return variants.apply(c, variant, variants.ENCODERS)
