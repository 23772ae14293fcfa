"""Total correlation: the estimate against closed forms, and its use in the training step."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dbae_jax.configuration.build import make_bridge, make_networks
from dbae_jax.data.images import to_float
from dbae_jax.errors import ConfigError
from dbae_jax.runtime import sharding
from dbae_jax.training import jitted_step, losses
from dbae_jax.training.accumulation import accumulated_gradient
from dbae_jax.training.optimizer import make_optimizer
from dbae_jax.training.state import state_from_variables
from dbae_jax.training.total_correlation import total_correlation
from tests.helpers import tiny

COVARIANCE = np.array([[1.0, 0.7, 0.2], [0.7, 1.0, 0.0], [0.2, 0.0, 0.5]])
estimate = jax.jit(total_correlation)


def _exact(covariance):
    return 0.5 * (np.log(np.diag(covariance)).sum() - np.linalg.slogdet(covariance)[1])


def _codes(count, covariance=COVARIANCE, sigma=0.3, seed=0):
    """Returns posteriors (mean, sigma) with the mixture N(0, covariance), and a sample of each."""
    rng, dim = np.random.default_rng(seed), len(covariance)
    mean = rng.multivariate_normal(np.zeros(dim), covariance - sigma**2 * np.eye(dim), count)
    z = mean + sigma * rng.standard_normal(mean.shape)
    return [a.astype(np.float32) for a in (mean, np.full_like(mean, sigma), z)]


def test_large_batches_give_the_total_correlation_of_a_gaussian():
    got = [float(estimate(*_codes(2000, seed=seed))) for seed in range(4)]
    assert np.mean(got) == pytest.approx(_exact(COVARIANCE), abs=0.04)  # of 0.42
    independent = [float(estimate(*_codes(2000, np.diag([1.0, 0.5, 2.0])))) for _ in range(2)]
    assert np.mean(independent) == pytest.approx(0, abs=0.04)


def test_the_estimate_of_small_batches_is_too_high_and_the_bias_falls_with_batch_size():
    bias = [
        np.mean([estimate(*_codes(count, seed=seed)) for seed in range(2048 // count)])
        - _exact(COVARIANCE)
        for count in (64, 256, 1024)
    ]
    assert 0.3 > bias[0] > 2 * bias[1] > 2 * bias[2] > -0.01


def test_it_is_the_published_estimate_without_its_constant():
    mean, sigma, z = (np.float64(a) for a in _codes(20))
    sizes = 20 * 1000  # B N
    density = np.exp(-0.5 * ((z[:, None] - mean) / sigma) ** 2) / sigma / math.sqrt(2 * math.pi)
    joint = np.log(density.prod(axis=2).sum(axis=1) / sizes)
    marginals = np.log(density.sum(axis=1) / sizes).sum(axis=1)
    published = np.mean(joint - marginals)
    assert float(estimate(*_codes(20))) == pytest.approx(published - 2 * math.log(1000), abs=1e-4)


def test_gradients_are_finite_even_for_large_codes():
    mean, sigma, z = _codes(16)
    for arguments in ((mean, sigma, z), (100 * mean, 0.01 * np.ones_like(sigma), 100 * z)):
        grads = jax.grad(total_correlation, argnums=(0, 1, 2))(*map(jnp.asarray, arguments))
        assert all(np.isfinite(g).all() and np.abs(g).max() > 0 for g in grads)


def _config(**overrides):
    return tiny.config(**{"model.stochastic": True} | overrides)


def test_weight_0_does_not_compute_the_estimate(monkeypatch):
    monkeypatch.setattr(losses, "total_correlation", None)  # a call would raise an error
    config, mesh = _config(), sharding.make_mesh(jax.devices()[:1])
    step = jitted_step.make_jitted_step(config, mesh)
    _, metrics = jax.eval_shape(step, *jitted_step.abstract_arguments(config, mesh))
    assert "loss" in metrics and "total_correlation" not in metrics


def test_the_loss_holds_the_weighted_estimate_and_training_lowers_it():
    config = _config(
        **{"train.tc_weight": 0.5, "optim.learning_rate": 3e-3},
        **{"bridge.schedule": "vp_simple"},  # whose weight of the error is 1
    )
    mesh = sharding.make_mesh(jax.devices()[:1])
    variables = jax.tree.map(jnp.copy, tiny.variables(config))  # the step donates them
    # Codes that differ more than their noise, so that their dimensions are correlated.
    variables["params"]["encoder"]["project"]["kernel"] *= 10
    state = state_from_variables(variables, make_optimizer(config))
    step, rows = jitted_step.make_jitted_step(config, mesh), []
    batch = {"image": jnp.asarray(tiny.images(config.train.batch_size))}
    for _ in range(15):
        state, metrics = step(state, batch, jax.random.key(0))
        rows.append({name: float(value) for name, value in metrics.items()})
        wanted = rows[-1]["x_0_mse"] + 0.5 * rows[-1]["total_correlation"]
        assert rows[-1]["loss"] == pytest.approx(wanted, rel=1e-5)
    assert rows[-1]["total_correlation"] < 0.7 * rows[0]["total_correlation"]


def test_accumulated_gradients_use_the_total_correlation_of_the_whole_batch():
    config, weight = _config(), 0.3
    networks, bridge = make_networks(config), make_bridge(config.bridge)
    variables, x_0 = tiny.variables(config), to_float(jnp.asarray(tiny.images(8)))
    draws = losses.draw(jax.random.key(1), x_0.shape, networks.latent_dim, bridge)

    @jax.jit
    def whole(params):
        def loss_fn(params):
            full = variables | {"params": params}
            terms = losses.bridge_loss(
                networks, bridge, full, x_0, draws, train=True, with_total_correlation=True
            )
            return terms.weighted.mean() + weight * terms.total_correlation, terms

        return jax.grad(loss_fn, has_aux=True)(params)

    accumulate = functools.partial(accumulated_gradient, num_microbatches=2, tc_weight=weight)
    accumulate = jax.jit(functools.partial(accumulate, networks, bridge))
    want, terms = whole(variables["params"])
    got_terms, got = accumulate(variables, x_0, draws)
    np.testing.assert_allclose(got_terms.total_correlation, terms.total_correlation, rtol=1e-5)
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(want))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * scale), want, got)


def test_deterministic_encoders_are_refused():
    with pytest.raises(ConfigError, match=r"tc_weight=0\.1 .* 0 for a deterministic encoder"):
        tiny.config(**{"train.tc_weight": 0.1})
    with pytest.raises(ConfigError, match=r"tc_weight=-0\.1 .* positive"):
        _config(**{"train.tc_weight": -0.1})
