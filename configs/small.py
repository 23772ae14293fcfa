"""Common settings of the small data sets: networks and training that take minutes on a CPU."""

from dbae_jax.configs import base
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the config."""
    c = base.get_config()
    _model(c)
    _prior(c)

    c.data.flip = False
    c.data.num_threads = 2
    c.data.prefetch_batches = 2

    c.optim.learning_rate = 3e-3
    c.optim.schedule = "cosine"
    c.optim.ema_decay = 0.99

    c.train.batch_size = 64
    c.train.log_every_steps = 50

    c.distill.num_steps = 2_000
    c.distill.batch_size = 16  # on a CPU, more images/s than with 32 (measured with shapes)
    c.distill.learning_rate = 3e-4
    c.distill.schedule = "cosine"
    c.distill.ema_decay = 0.995
    c.distill.stages = 6

    c.checkpoint.keep_every_steps = 0

    c.sample.sampler = "dbim"
    c.sample.grid = "lambda"
    c.sample.steps = 5

    c.eval.information_points = 32
    c.eval.probe_learning_rate = 1e-2
    return c


def _model(c: ConfigDict) -> None:
    c.model.encoder.base_channels = 32
    c.model.encoder.num_res_blocks = 1
    c.model.encoder.attention_resolutions = ()
    c.model.encoder.pool = "flatten"
    c.model.decoder.base_channels = 8
    c.model.unet.base_channels = 32
    c.model.unet.num_res_blocks = 1
    c.model.unet.attention_resolutions = (4,)
    c.model.unet.head_channels = 32
    c.model.unet.dropout = 0.0


def _prior(c: ConfigDict) -> None:
    c.prior.num_layers = 4
    c.prior.width = 512
    c.prior.learning_rate = 1e-3
    c.prior.ema_decay = 0.995
    c.prior.num_steps = 8_000
    c.prior.log_every_steps = 500
