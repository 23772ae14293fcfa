r"""DBAE on shapes, rendered images with nine known factors, at 32x32 RGB: trains on a CPU.

python -m dbae_jax.main --config=configs/shapes.py --workdir=runs/shapes
python -m dbae_jax.main --config=configs/shapes.py --workdir=runs/shapes --mode=train_prior
python -m dbae_jax.main --config=configs/shapes.py --workdir=runs/shapes --mode=evaluate \
    --config.eval.suite=all --report

dbae_jax/data/shapes.py describes the factors and attributes.
"""

from dbae_jax.configs import small
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the config."""
    c = small.get_config()
    c.data.name = "shapes"
    c.data.train_split = "train"
    c.data.test_split = "test"
    c.data.image_size = 32

    c.model.latent_dim = 32
    c.model.encoder.channel_mult = (1, 2, 2, 2)
    c.model.unet.channel_mult = (1, 1, 2, 2)

    c.train.num_steps = 1_500
    c.train.diagnose_every_steps = 500
    c.train.picture_every_steps = 500
    c.checkpoint.every_steps = 250

    c.prior.evaluate_every_steps = 2_000
    c.prior.checkpoint_every_steps = 2_000

    c.eval.num_images = 512
    c.eval.num_train_images = 4_000
    c.eval.validation_split = "val"
    c.eval.num_probe_images = 10_000
    c.eval.num_generated = 1_000
    return c
