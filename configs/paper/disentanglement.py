"""TAD and ATTRS of CelebA's attributes by InfoDiffusion's protocol, on a model of this config.

python -m dbae_jax.main --config=configs/paper/disentanglement.py:stochastic --workdir=runs/tad
python -m dbae_jax.main --config=configs/paper/disentanglement.py:stochastic --workdir=runs/tad \
    --mode=evaluate

The known parts of this protocol are: images are resized by their short side to 64 pixels, and the
center is cut out; it uses the first 10,000 training images, five folds, and standardised codes of
latent dimension 32. The paper's latent dimension and its weight of the total correlation in DBAE+TC
(--config.train.tc_weight, with "stochastic") are unknown: the authors' repository has neither the
code nor figures of it. Variants: deterministic, stochastic, sampled.
"""

from dbae_jax.configs import celeba
from dbae_jax.configs.paper import variants
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of the named variants, separated by commas.

    "" selects the first variant of every group.
    """
    c = celeba.get_config()
    c.data.crop = "short"
    c.model.latent_dim = 32
    variants.evaluate(c, "disentanglement,probe", validation_split="validation")
    c.eval.num_probe_images = 10_000
    return variants.apply(c, variant, variants.ENCODERS)
