"""DBAE on scikit-learn's handwritten digits at 16x16: real images, trains in minutes on a CPU.

python -m dbae_jax.main --config=configs/digits.py --workdir=runs/digits
python -m dbae_jax.main --config=configs/digits.py --workdir=runs/digits --mode=evaluate
python -m dbae_jax.main --config=configs/digits.py --workdir=runs/digits --mode=train_prior
python -m dbae_jax.main --config=configs/digits.py --workdir=runs/digits --mode=sample
python -m dbae_jax.main --config=configs/digits.py --workdir=runs/digits --mode=report
"""

from dbae_jax.configs import small
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the config."""
    c = small.get_config()
    c.data.name = "digits"
    c.data.image_size = 16
    c.data.channels = 1

    c.model.latent_dim = 16
    c.model.encoder.channel_mult = (1, 2, 2)
    c.model.unet.channel_mult = (1, 1, 2)

    # RAdam's own warm-up takes hundreds of steps, which is most of this training.
    c.optim.optimizer = "adam"
    c.optim.warmup_steps = 40
    c.optim.ema_decay = 0.97

    c.train.batch_size = 32  # as many images/s on a CPU as with 64, and twice as many steps
    c.train.num_steps = 850
    c.train.diagnose_every_steps = 300
    c.train.picture_every_steps = 425
    c.checkpoint.every_steps = 300

    c.prior.width = 464  # the released weights, model and prior, then fit in 4 MB
    c.prior.learning_rate = 2e-3
    c.prior.num_steps = 6_000
    c.prior.evaluate_every_steps = 2000
    c.prior.checkpoint_every_steps = 2000

    c.eval.num_images = 0
    c.eval.num_train_images = 0
    c.eval.edited_images = 16
    c.eval.information_points = 8
    c.eval.num_generated = 1_437  # the number of training images
    c.eval.probe_epochs = 200  # each has eleven steps
    return c
