"""The paper's configs: a training step of each at its full size."""

import jax
import numpy as np
import pytest

from configs import bedroom, celeba, celebahq, ffhq, horse
from dbae_jax import build, train_state
from dbae_jax.config import from_config_dict
from dbae_jax.train_step import make_train_step


def _config(module):
    c = module.get_config()
    c.train.batch_size = 1
    return from_config_dict(c)


def _compiled(config):
    """What of a config the training step is made of."""
    return config.data.image_size, config.data.channels, config.model, config.bridge, config.optim


def _made_up(shape: jax.ShapeDtypeStruct) -> np.ndarray:
    """Small positive numbers: faster than compiling a full-size initialisation."""
    return np.full(shape.shape, 0.01, shape.dtype) * (
        1 + np.arange(shape.size).reshape(shape.shape) % 7
    )


@pytest.mark.parametrize("module", [celeba, ffhq], ids=["celeba", "ffhq"])
def test_a_training_step(module):
    config = _config(module)
    networks, optimizer = build.make_networks(config), build.make_optimizer(config)
    shapes = jax.eval_shape(networks.init, jax.random.key(0))
    state = train_state.from_variables(jax.tree.map(_made_up, shapes), optimizer)
    step = make_train_step(networks, build.make_bridge(config.bridge), optimizer, ema_decay=0.9999)
    size = config.data.image_size
    images = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), np.uint8)
    state, metrics = jax.jit(step, donate_argnums=0)(state, {"image": images}, jax.random.key(0))
    assert np.isfinite([float(v) for v in metrics.values()]).all()
    assert int(state.step) == 1


@pytest.mark.parametrize("module", [celebahq, horse, bedroom], ids=["celebahq", "horse", "bedroom"])
def test_the_other_configs_at_128_pixels_train_by_the_step_of_ffhq(module):
    assert _compiled(_config(module)) == _compiled(_config(ffhq))
