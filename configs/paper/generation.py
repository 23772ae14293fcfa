"""FID, precision, recall and inception score of images sampled with an FFHQ model and its prior.

python -m dbae_jax.main --config=configs/ffhq.py --workdir=runs/ffhq
python -m dbae_jax.main --config=configs/ffhq.py --workdir=runs/ffhq --mode=train_prior
python -m dbae_jax.main --config=configs/paper/generation.py --workdir=runs/ffhq --mode=evaluate

50,000 images are compared with the first 50,000 training images, as DiffAE measures FID. The
paper's own protocol and samplers are unknown: the authors' repository has neither the prior nor
figures of it. Needs Inception's published weights in eval.weights_dir. Variants: deterministic,
stochastic.
"""

from dbae_jax.configs import ffhq
from dbae_jax.configs.paper import variants
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of the named variants, separated by commas.

    "" selects the first variant of every group.
    """
    c = ffhq.get_config()
    variants.evaluate(c, "generation")
    c.eval.num_generated = 50_000
    c.eval.inception = True
    c.eval.fid_preset = "diffae"
    return variants.apply(c, variant, variants.ENCODERS)
