r"""DBAE on shapes, pictures with nine known factors, at 32x32 RGB: trains on a CPU.

python -m dbae_jax.main --config=configs/shapes.py --workdir=runs/shapes
python -m dbae_jax.main --config=configs/shapes.py --workdir=runs/shapes --mode=train_prior
python -m dbae_jax.main --config=configs/shapes.py --workdir=runs/shapes --mode=evaluate \
    --config.eval.suite=all
python -m dbae_jax.main --config=configs/shapes.py --workdir=runs/shapes --mode=report

What the factors and attributes are: dbae_jax/data/shapes.py.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    c = base.get_config()
    _model(c)
    _prior(c)

    c.data.name = "shapes"
    c.data.train_split = "train"
    c.data.test_split = "test"
    c.data.image_size = 32
    c.data.channels = 3
    c.data.flip = False
    c.data.num_threads = 2
    c.data.num_workers = 0
    c.data.prefetch_batches = 2

    c.optim.learning_rate = 3e-3
    c.optim.schedule = "cosine"
    c.optim.ema_decay = 0.99

    c.train.batch_size = 64
    c.train.num_steps = 1_500
    c.train.log_every_steps = 50
    c.train.diagnose_every_steps = 500
    c.train.picture_every_steps = 500

    c.checkpoint.every_steps = 250
    c.checkpoint.keep_every_steps = 0

    c.sample.sampler = "dbim"
    c.sample.grid = "lambda"
    c.sample.steps = 5

    c.eval.batch_size = 64
    c.eval.num_images = 512
    c.eval.num_train_images = 4_000
    c.eval.information_points = 32
    c.eval.validation_split = "val"
    c.eval.num_probe_images = 10_000
    c.eval.probe_learning_rate = 1e-2
    c.eval.num_generated = 1_000
    return c


def _model(c: ConfigDict) -> None:
    c.model.latent_dim = 32
    c.model.encoder.base_channels = 32
    c.model.encoder.channel_mult = (1, 2, 2, 2)
    c.model.encoder.num_res_blocks = 1
    c.model.encoder.attention_resolutions = ()
    c.model.encoder.pool = "flatten"
    c.model.decoder.base_channels = 8
    c.model.unet.base_channels = 32
    c.model.unet.channel_mult = (1, 1, 2, 2)
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
    c.prior.evaluate_every_steps = 2_000
    c.prior.checkpoint_every_steps = 2_000
