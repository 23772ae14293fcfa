"""The paper's configs and those at 256 pixels at their full size: a training step as jax traces it.

Their networks' numbers are in test_golden.py, a step that runs in test_train_step.py; compiling one
of these takes minutes, which test_plan.py does for a small one and docs/performance/ reports. A
step at 256 pixels also runs here, with networks of a quarter of the width and half the blocks.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dbae_jax.configs import bedroom, celeba, celebahq, celebahq256, ffhq, ffhq256, horse

from dbae_jax.configuration import build
from dbae_jax.configuration.config import from_config_dict
from dbae_jax.runtime.initial_weights import RUN_ONCE
from dbae_jax.training.optimizer import make_optimizer
from dbae_jax.training.state import create_state, state_from_variables
from dbae_jax.training.step import make_train_step
from tests.helpers import tiny

pytestmark = pytest.mark.slow


def _config(module):
    return from_config_dict(module.get_config())


def _compiled(config):
    """What of a config the training step is made of."""
    return config.data.image_size, config.data.channels, config.model, config.bridge, config.optim


def _make(config):
    """Returns a function that draws a state, and the training step."""
    networks, optimizer = build.make_networks(config), make_optimizer(config)
    bridge, decay = build.make_bridge(config.bridge), config.optim.ema_decay
    step = make_train_step(networks, bridge, optimizer, ema_decay=decay)
    return lambda key: create_state(networks, optimizer, key), step


@pytest.mark.parametrize("module", [celeba, ffhq, ffhq256], ids=["celeba", "ffhq", "ffhq256"])
def test_a_training_step_keeps_shapes_and_types(module):
    config = _config(module)
    init, step = _make(config)
    state = jax.eval_shape(init, jax.random.key(0))
    size = config.data.image_size
    batch = {"image": jax.ShapeDtypeStruct((config.train.batch_size, size, size, 3), jnp.uint8)}
    after, metrics = jax.eval_shape(step, state, batch, jax.random.key(0))
    assert jax.tree.structure(after) == jax.tree.structure(state)
    for old, new in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert (old.shape, old.dtype) == (new.shape, new.dtype)
    assert {"loss", "grad_norm"} <= metrics.keys()
    assert all(value.shape == () for value in metrics.values())


@pytest.mark.parametrize("module", [celebahq, horse, bedroom], ids=["celebahq", "horse", "bedroom"])
def test_the_other_configs_at_128_pixels_train_by_the_step_of_ffhq(module):
    assert _compiled(_config(module)) == _compiled(_config(ffhq))


def test_celebahq_at_256_pixels_trains_by_the_step_of_ffhq256():
    assert _compiled(_config(celebahq256)) == _compiled(_config(ffhq256))


def test_a_narrow_step_at_256_pixels_runs():
    """All levels, and attention at 32, 16 and 8 pixels; at full width it takes minutes."""
    c = ffhq256.get_config()
    for network in (c.model.encoder, c.model.unet):
        network.base_channels, network.num_res_blocks = 32, 1
    c.model.decoder.base_channels = 16
    c.model.unet.head_channels = 32
    c.model.latent_dim = 32
    config = from_config_dict(c)
    step = jax.jit(_make(config)[1], compiler_options=RUN_ONCE)
    state = state_from_variables(tiny.variables(config), make_optimizer(config))
    images = np.random.default_rng(0).integers(0, 256, (1, 256, 256, 3), np.uint8)
    after, metrics = step(state, {"image": images}, jax.random.key(1))
    assert np.isfinite(metrics["loss"]) and metrics["grad_norm"] > 0 and after.step == 1
    moved = jax.tree.map(
        lambda old, new: bool((old != new).any()),
        state.variables["params"],
        after.variables["params"],
    )
    assert any(jax.tree.leaves(moved))
