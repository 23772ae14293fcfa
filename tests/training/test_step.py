"""The training step: gradients, loss, reproducibility, devices, diagnostics, optimizer."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dbae_jax.configuration import build
from dbae_jax.data import images
from dbae_jax.runtime import sharding
from dbae_jax.training import jitted_step, losses
from dbae_jax.training.optimizer import make_chain, make_optimizer, make_schedule
from dbae_jax.training.state import create_state
from dbae_jax.training.step import make_diagnose, make_train_step
from tests.helpers import tiny

DROPOUT = {"model.unet.dropout": 0.1, "model.stochastic": True}  # everything random at once


def _start(config, devices=1):
    """Returns (jitted step, state, key, mesh) on the first `devices` devices."""
    mesh = sharding.make_mesh(jax.devices()[:devices])
    everywhere = sharding.replicated(mesh)
    key = jax.device_put(jax.random.key(config.seed), everywhere)
    training = jitted_step.make_training(config, mesh)
    state = jax.jit(training.init, out_shardings=everywhere)(key)
    return training.train_step, state, key, mesh


def _train(config, steps, devices=1):
    """Returns (state, losses) after training steps on one batch."""
    step, state, key, mesh = _start(config, devices)
    batch, step_losses = tiny.images(config.train.batch_size), []
    for _ in range(steps):
        state, metrics = step(state, sharding.to_global(mesh, {"image": batch}), key)
        step_losses.append(float(metrics["loss"]))
    return jax.device_get(state), step_losses


@pytest.fixture(scope="module")
def trained():
    """Returns (state, losses) after 90 training steps on one batch."""
    return _train(tiny.config(**DROPOUT), 90)


def test_same_seed_same_parameters_bit_for_bit():
    config = tiny.config(**DROPOUT)
    first, second = _train(config, 4), _train(config, 4)
    assert first[1] == second[1]
    jax.tree.map(np.testing.assert_array_equal, first[0], second[0])
    other, _ = _train(tiny.config(**DROPOUT, seed=1), 1)
    kernel = lambda state: state.variables["params"]["unet"]["conv_in"]["kernel"]  # noqa: E731
    assert not np.array_equal(kernel(first[0]), kernel(other))


def test_one_and_eight_devices_agree():
    """Random draws and batch norm see the global batch, so only rounding differs."""
    config = tiny.config(**DROPOUT)
    one, eight = _train(config, 3, devices=1), _train(config, 3, devices=8)
    np.testing.assert_allclose(one[1], eight[1], rtol=1e-5)
    for a, b in zip(jax.tree.leaves(one[0]), jax.tree.leaves(eight[0]), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5)


def test_a_distillation_on_eight_devices_in_microbatches_agrees_with_one():
    """With the sampled codes of a stochastic encoder, which stays as it is."""
    config = tiny.config(**tiny.DISTILLED, **{"model.stochastic": True, "model.unet.dropout": 0.0})
    parts = dataclasses.replace(config.train, accumulation_steps=2)
    one = _train(config, 2)
    eight = _train(dataclasses.replace(config, train=parts), 2, devices=8)
    np.testing.assert_allclose(one[1], eight[1], rtol=1e-5)
    for a, b in zip(jax.tree.leaves(one[0]), jax.tree.leaves(eight[0]), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5)


def test_the_compiled_step_has_one_kind_of_collective():
    step, state, key, mesh = _start(tiny.config(**DROPOUT), devices=8)
    batch = sharding.to_global(mesh, {"image": tiny.images(16)})
    text = step.lower(state, batch, key).compile().as_text()
    assert "all-reduce" in text
    for other in ("all-gather(", "all-to-all(", "collective-permute("):
        assert other not in text


def test_loss_falls_on_one_batch(trained):
    step_losses = trained[1]
    assert np.mean(step_losses[-5:]) < 0.7 * np.mean(step_losses[:5])


def test_all_three_networks_and_their_statistics_change():
    step, state, key, mesh = _start(tiny.config(**DROPOUT))
    before = jax.device_get(state)
    for _ in range(8):  # at first, zero-initialised layers block the gradients of some weights
        state, _ = step(state, sharding.to_global(mesh, {"image": tiny.images(16)}), key)
    after = jax.device_get(state)
    for name in ("encoder", "decoder", "unet"):
        changed = jax.tree.map(
            lambda a, b: bool(np.any(a != b)),
            before.variables["params"][name],
            after.variables["params"][name],
        )
        # A norm with one channel per group cancels a bias before it, which has no gradient then.
        assert np.mean(jax.tree.leaves(changed)) > 0.7, name
    for state in (before, after):  # with one output channel, u is always 1
        del state.variables["stats"]["decoder"]["conv_out"]["u"]
    changed = jax.tree.map(
        lambda a, b: bool(np.any(a != b)), before.variables["stats"], after.variables["stats"]
    )
    assert all(jax.tree.leaves(changed))
    assert int(after.step) == 8


def test_gradients_reach_the_decoder_through_the_bridge_and_the_condition():
    """x_T enters the loss through x_t and as an input of the U-Net; both have a gradient."""
    config = tiny.config()
    networks, bridge = build.make_networks(config), build.make_bridge(config.bridge)
    variables = tiny.variables(config)
    x_0 = images.to_float(jnp.asarray(tiny.images(4)))
    draws = losses.draw(jax.random.key(0), x_0.shape, 8, bridge)._replace(dropout_key=None)

    class Cut:
        """The networks, with no gradient through the condition x_T."""

        latent_dim, encode = networks.latent_dim, staticmethod(networks.encode)
        endpoint_train = staticmethod(networks.endpoint_train)

        @staticmethod
        def network(variables, x, c_noise, z, dropout_key):
            x = jnp.concatenate([x[..., :1], jax.lax.stop_gradient(x[..., 1:])], axis=-1)
            return networks.network(variables, x, c_noise, z, dropout_key)

    def grad(nets):
        def loss(params):
            full = {"params": params, "stats": variables["stats"]}
            return losses.bridge_loss(nets, bridge, full, x_0, draws, train=True).weighted.mean()

        return jax.grad(loss)(variables["params"])["decoder"]["conv_out"]["kernel"]

    whole, cut = jax.jit(lambda: (grad(networks), grad(Cut)))()
    assert np.linalg.norm(cut) > 0
    assert np.linalg.norm(whole - cut) > 1e-3 * np.linalg.norm(whole)


def test_loss_is_the_weighted_error_at_uniform_times():
    config = tiny.config()
    bridge = build.make_bridge(config.bridge)
    draws = losses.draw(jax.random.key(0), (4096, 1, 1, 1), 8, bridge)
    t = np.asarray(draws.t)
    assert t.min() >= bridge.schedule.t_min and t.max() <= bridge.schedule.t_max
    assert t.mean() == pytest.approx(0.5, abs=0.025)  # five standard errors
    half = losses.draw(jax.random.key(0), (4096, 1, 1, 1), 8, bridge, share_at_T=0.5)
    at_T = np.asarray(half.t) == np.float32(bridge.schedule.t_max)
    assert at_T.mean() == pytest.approx(0.5, abs=0.04)  # five standard errors
    np.testing.assert_array_equal(np.asarray(half.t)[~at_T], t[~at_T])
    networks, variables = build.make_networks(config), tiny.variables(config)
    x_0 = images.to_float(jnp.asarray(tiny.images(6)))
    draws = losses.draw(jax.random.key(0), x_0.shape, 8, bridge)._replace(dropout_key=None)
    terms = losses.bridge_loss(networks, bridge, variables, x_0, draws, train=False)
    want = np.asarray(bridge.at(np.asarray(draws.t)).weight) * terms.x_0_error
    np.testing.assert_allclose(terms.weighted, want, rtol=1e-5)


def test_diagnostics_show_whether_the_code_is_used(trained):
    config = tiny.config(**DROPOUT)
    networks, bridge = build.make_networks(config), build.make_bridge(config.bridge)
    diagnose = jax.jit(make_diagnose(networks, bridge))
    batch = {"image": jnp.asarray(tiny.images(16))}
    _, initial, _, _ = _start(config)
    values = diagnose(initial, batch, jax.random.key(1))
    # F is zero at initialisation, so the denoised image, c_skip x_t, depends only a little on x_T.
    unused = float(values["code_gap"]) / float(values["eval_loss"])
    assert abs(unused) < 0.002
    values = diagnose(trained[0], batch, jax.random.key(1))
    assert float(values["code_gap"]) / float(values["eval_loss"]) > 0.01
    assert float(values["z_variance"]) > 0


def test_learning_rate_schedules():
    make = make_schedule
    warm = make(2.0, schedule="constant", warmup_steps=4, num_steps=100)
    np.testing.assert_allclose([warm(i) for i in (0, 2, 4, 99)], [0.5, 1.25, 2, 2])
    cosine = make(2.0, schedule="cosine", warmup_steps=0, num_steps=100)
    np.testing.assert_allclose([cosine(i) for i in (0, 50, 100)], [2, 1, 0], atol=1e-6)


def test_clipping_bounds_the_gradient_and_is_off_by_default():
    def first_moment(clip):
        optimizer = make_chain("adam", lambda _: 1.0, grad_clip_norm=clip)
        params = {"w": jnp.zeros(4)}
        _, state = optimizer.update({"w": jnp.full(4, 50.0)}, optimizer.init(params), params)
        return np.linalg.norm(state[1][0].mu["w"]) / 0.1

    assert first_moment(0.0) == pytest.approx(100)
    assert first_moment(1.0) == pytest.approx(1)


@pytest.mark.parametrize("microbatches", [1, 2])
def test_all_matmuls_forward_and_backward_have_the_precision_of_the_config(microbatches):
    """Custom backward passes are traced outside the networks, so they need the setting too."""
    config = tiny.config(**tiny.TWO_LEVELS, **{"model.matmul_precision": "highest"})
    networks, bridge = build.make_networks(config), build.make_bridge(config.bridge)
    optimizer = make_optimizer(config)
    settings = {"ema_decay": 0.9, "accumulation_steps": microbatches}
    step = make_train_step(networks, bridge, optimizer, **settings)
    state = jax.eval_shape(lambda key: create_state(networks, optimizer, key), jax.random.key(0))
    batch = {"image": jax.ShapeDtypeStruct((4, 16, 16, 1), np.uint8)}
    text = str(jax.make_jaxpr(step)(state, batch, jax.random.key(0)))
    highest = r"precision=\(Precision\.HIGHEST, Precision\.HIGHEST\)|precision=Precision\.HIGHEST"
    products = len(re.findall(r" = (?:conv_general_dilated|dot_general)\[", text))
    assert products > 100
    assert len(re.findall(highest, text)) == products


def test_every_array_of_the_state_is_overwritten_by_its_successor():
    """Otherwise the compiled step copies arrays before it overwrites them."""
    config, mesh = tiny.config(), sharding.make_mesh(jax.devices()[:1])
    arguments = jitted_step.abstract_arguments(config, mesh)
    compiled = jitted_step.make_jitted_step(config, mesh).lower(*arguments).compile()
    header = compiled.as_text().splitlines()[0]
    pairs = re.findall(r"\{(\d+)\}: \((\d+), \{\}, \w+-alias\)", header)
    assert len(pairs) == len(jax.tree.leaves(arguments.state))
    assert all(result == argument for result, argument in pairs)


@pytest.mark.parametrize("schedule", ["vp", "ve"])
def test_images_at_T_are_denoised_from_the_latent_code_alone(schedule):
    almost_all = float(np.nextafter(1, 0))
    config = tiny.config(**{"bridge.schedule": schedule, "train.share_at_T": almost_all})
    networks, bridge = build.make_networks(config), build.make_bridge(config.bridge)
    _, state, _, _ = _start(config)
    x_0 = images.to_float(jnp.asarray(tiny.images(config.train.batch_size)))
    draws = losses.draw(jax.random.key(7), x_0.shape, 8, bridge, share_at_T=almost_all)
    np.testing.assert_array_equal(draws.t, np.float32(bridge.schedule.t_max))

    def loss(noise):
        alone = draws._replace(noise=noise, dropout_key=None)
        terms = losses.bridge_loss(networks, bridge, state.variables, x_0, alone, train=True)
        return float(terms.weighted.mean())

    assert loss(draws.noise) == loss(-draws.noise)
    assert _train(config, 1)[1] == pytest.approx([loss(draws.noise)], rel=1e-5)
