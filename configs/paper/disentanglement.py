"""TAD and ATTRS of CelebA's attributes by InfoDiffusion's protocol; trains its own model.

python -m dbae_jax.main --config=configs/paper/disentanglement.py:stochastic --workdir=runs/tad
python -m dbae_jax.main --config=configs/paper/disentanglement.py:stochastic --workdir=runs/tad \
    --mode=evaluate

Known of that protocol: 64 pixels, the short side resized and the centre cut out; the first 10,000
training images, five folds, standardised codes of 32 numbers. Not known here: the paper's width of
z and its weight of the penalty of DBAE+TC (--config.train.tc_weight, with "stochastic"); the
authors' repository holds neither code nor figures of it. Variants: deterministic, stochastic,
sampled.
"""

from dbae_jax.configs import celeba
from dbae_jax.configs.paper import variants


def get_config(variant=""):
    c = celeba.get_config()
    c.data.crop = "short"
    c.model.latent_dim = 32
    variants.evaluate(c, "disentanglement,probe", validation_split="validation")
    c.eval.num_probe_images = 10_000
    return variants.apply(c, variant, variants.ENCODERS)
