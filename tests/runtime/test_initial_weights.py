"""Initial weights: drawn on a CPU, equal to those of a program for the devices, on all devices."""

import jax
import numpy as np

from dbae_jax.runtime import initial_weights, platforms, sharding
from dbae_jax.training import jitted_step
from tests.helpers import tiny


def test_drawn_weights_are_those_of_the_key_and_lie_on_all_devices():
    mesh = sharding.make_mesh()
    drawn = initial_weights.draw(lambda key: jax.random.normal(key, (3, 2)), 5, mesh)
    np.testing.assert_array_equal(drawn, jax.random.normal(jax.random.key(5), (3, 2)))
    assert len(drawn.sharding.device_set) == 8 and drawn.is_fully_replicated


def test_without_a_cpu_the_devices_compute_the_weights(monkeypatch, caplog):
    local_devices = jax.local_devices

    def without_cpu(*, backend=None):
        if backend == "cpu":
            raise RuntimeError("Unknown backend cpu")
        return local_devices()

    monkeypatch.setattr(jax, "local_devices", without_cpu)
    with caplog.at_level("INFO"):
        drawn = initial_weights.draw(jax.random.bits, 5, sharding.make_mesh())
    assert drawn == jax.random.bits(jax.random.key(5))
    assert "JAX_PLATFORMS has no CPU" in caplog.text


def test_a_training_for_gpus_can_draw_its_weights_on_a_cpu(monkeypatch):
    """Its networks use cuDNN's attention, which no CPU can compile."""
    monkeypatch.setattr(platforms, "platform_of", lambda device: "cuda")
    config = tiny.config(**{"model.dtype": "bfloat16"})
    training = jitted_step.make_training(config, sharding.make_mesh())
    assert training.networks.module.unet.attention == "cudnn"
    state = initial_weights.draw(training.init, 0, training.mesh)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.variables["params"]))
