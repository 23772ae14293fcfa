"""FID, precision, recall and inception score of images that an FFHQ model draws from its prior.

python -m dbae_jax.main --config=configs/ffhq.py --workdir=runs/ffhq
python -m dbae_jax.main --config=configs/ffhq.py --workdir=runs/ffhq --mode=train_prior
python -m dbae_jax.main --config=configs/paper/generation.py --workdir=runs/ffhq --mode=evaluate

50,000 images against the first 50,000 training images, as DiffAE measures FID. Not known here: the
paper's own protocol and samplers; the authors' repository holds neither prior nor figures of it.
Needs Inception's published weights in eval.weights_dir. Variants: deterministic, stochastic.
"""

from dbae_jax.configs import ffhq
from dbae_jax.configs.paper import variants


def get_config(variant=""):
    c = ffhq.get_config()
    variants.evaluate(c, "generation")
    c.eval.num_generated = 50_000
    c.eval.inception = True
    c.eval.fid_preset = "diffae"
    return variants.apply(c, variant, variants.ENCODERS)
