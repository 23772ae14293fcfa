"""The paper's configs at their full size: a training step of each as jax traces it.

Their networks' numbers are in test_golden.py, a step that runs in test_train_step.py; compiling one
of these takes minutes, which test_plan.py does for a small one and docs/performance/ reports.
"""

import jax
import jax.numpy as jnp
import pytest
from dbae_jax.configs import bedroom, celeba, celebahq, ffhq, horse

from dbae_jax.configuration import build
from dbae_jax.configuration.config import from_config_dict
from dbae_jax.training.optimizer import make_optimizer
from dbae_jax.training.state import create_state
from dbae_jax.training.step import make_train_step


def _config(module):
    return from_config_dict(module.get_config())


def _compiled(config):
    """What of a config the training step is made of."""
    return config.data.image_size, config.data.channels, config.model, config.bridge, config.optim


@pytest.mark.parametrize("module", [celeba, ffhq], ids=["celeba", "ffhq"])
def test_a_training_step_keeps_shapes_and_types(module):
    config = _config(module)
    networks, optimizer = build.make_networks(config), make_optimizer(config)
    state = jax.eval_shape(lambda key: create_state(networks, optimizer, key), jax.random.key(0))
    step = make_train_step(networks, build.make_bridge(config.bridge), optimizer, ema_decay=0.9999)
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
