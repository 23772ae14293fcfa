r"""DBAE on emoji at 32x32 RGB: a real data set in colour that trains on a CPU.

npm pack emoji-datasource-google@16.0.0
python -m dbae_jax.data.prepare --dataset=emoji --source=emoji-datasource-google-16.0.0.tgz
python -m dbae_jax.main --config=configs/emoji32.py --workdir=runs/emoji32
python -m dbae_jax.main --config=configs/emoji32.py --workdir=runs/emoji32 --mode=train_prior
python -m dbae_jax.main --config=configs/emoji32.py --workdir=runs/emoji32 --mode=evaluate \
    --config.eval.suite=all --report

Labels are categories, attributes are skin tones and subcategories; see docs/reference/data_sets.md.
"""

from dbae_jax.configs import small
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the config."""
    c = small.get_config()
    c.data.name = "emoji"
    c.data.image_size = 32
    c.data.flip = True

    c.model.latent_dim = 64
    c.model.encoder.channel_mult = (1, 2, 2, 2)
    c.model.unet.channel_mult = (1, 1, 2, 2)

    # RAdam's own warm-up takes hundreds of steps.
    c.optim.optimizer = "adam"
    c.optim.learning_rate = 1e-3
    c.optim.warmup_steps = 100
    c.optim.grad_clip_norm = 1.0

    c.train.batch_size = 32
    c.train.share_at_T = 0.5
    c.train.num_steps = 5_000
    c.train.diagnose_every_steps = 1_000
    c.train.picture_every_steps = 1_000
    c.checkpoint.every_steps = 500

    # With 3e-4, the predictions at T get worse than those of the teacher.
    c.distill.learning_rate = 1e-4

    c.prior.evaluate_every_steps = 2_000
    c.prior.checkpoint_every_steps = 2_000

    c.eval.num_images = 0
    c.eval.num_train_images = 0
    c.eval.validation_split = "validation"
    # At the paper's 0.3, an edit of a small model is faint.
    c.eval.edit_scales = (-1.0, -0.5, 0.5, 1.0)
    c.eval.num_generated = 1_000
    return c
