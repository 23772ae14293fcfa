"""DBAE on your own folder of images at 64x64: a small model for one GPU.

python -m dbae_jax.data.prepare --dataset=folder --name=flowers --source=FOLDER
dbae train --config=folder64 --config.data.name=flowers --workdir=runs/flowers

configs/folder.py is the paper's model of this size. docs/reference/data_sets.md describes how the
folder is split, and what the configs of folders cost. Gray images need --config.data.channels=1.
"""

from dbae_jax.configs import base
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the config."""
    c = base.get_config()
    c.data.name = "folder"
    c.data.crop = "center"
    _model(c)
    _prior(c)

    c.optim.optimizer = "adam"
    c.optim.learning_rate = 3e-4
    c.optim.schedule = "cosine"
    c.optim.warmup_steps = 500
    c.optim.grad_clip_norm = 1.0
    c.optim.ema_decay = 0.999

    c.train.batch_size = 64
    c.train.num_steps = 100_000
    c.train.evaluate_every_steps = 10_000
    c.checkpoint.every_steps = 2_500
    c.checkpoint.keep_every_steps = 0

    c.distill.num_steps = 5_000
    c.distill.batch_size = 64
    c.distill.learning_rate = 1e-4
    c.distill.ema_decay = 0.999

    c.sample.sampler = "dbim"
    c.sample.grid = "lambda"
    c.sample.steps = 5
    return c


def _model(c: ConfigDict) -> None:
    c.model.latent_dim = 256
    c.model.dtype = "bfloat16"
    c.model.encoder.base_channels = 32
    c.model.encoder.channel_mult = (1, 2, 4, 8, 8)
    c.model.encoder.num_res_blocks = 1
    c.model.encoder.pool = "flatten"
    c.model.decoder.base_channels = 16
    c.model.unet.channel_mult = (1, 2, 2, 4)
    c.model.unet.num_res_blocks = 1
    c.model.unet.attention_resolutions = (16, 8)
    c.model.unet.dropout = 0.0


def _prior(c: ConfigDict) -> None:
    c.prior.width = 1024
    c.prior.learning_rate = 3e-4
    c.prior.ema_decay = 0.999
    c.prior.num_steps = 50_000
    c.prior.evaluate_every_steps = 10_000
