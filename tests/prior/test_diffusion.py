"""The latent diffusion on Gaussian codes, for which the best network has a closed form."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dbae_jax.prior import diffusion
from dbae_jax.prior.diffusion import LatentDiffusion
from tests.helpers import golden

MEAN = np.array([0.5, -1.0, 0.0])
COVARIANCE = np.array([[1.0, 0.6, 0.0], [0.6, 0.8, -0.2], [0.0, -0.2, 0.3]])
COUNT = 4_000


def _eps_fn(process, mean=MEAN, covariance=COVARIANCE):
    """Returns the best network, E[eps | z_t] for z_0 ~ N(mean, covariance)."""
    values, vectors = np.linalg.eigh(covariance)
    abar = np.exp(process.log_abar)
    shrink = np.sqrt(1 - abar)[:, None] / (abar[:, None] * values + 1 - abar[:, None])
    shrink, signal = jnp.asarray(shrink, jnp.float32), jnp.asarray(np.sqrt(abar), jnp.float32)
    mean, vectors = jnp.asarray(mean, jnp.float32), jnp.asarray(vectors, jnp.float32)

    def eps_fn(z_t, t):
        return ((z_t - signal[t][:, None] * mean) @ vectors * shrink[t]) @ vectors.T

    return eps_fn


def _normal(seed, shape):
    return jax.random.normal(jax.random.key(seed), shape)


def _noise_fn(seed, shape):
    key = jax.random.key(seed)
    return lambda index: jax.random.normal(jax.random.fold_in(key, index), shape)


def _sample(process, table, z, seed=0):
    run = jax.jit(lambda z: diffusion.sample(_eps_fn(process), z, table, _noise_fn(seed, z.shape)))
    return np.asarray(run(z), np.float64)


def _codes(count=COUNT, seed=7):
    rng = np.random.default_rng(seed)
    return rng.multivariate_normal(MEAN, COVARIANCE, count).astype(np.float32)


def test_the_schedule_is_the_authors():
    betas = np.load(golden.FOLDER / "latent_prior_10layers.npz")["betas/const0.008"]
    np.testing.assert_allclose(LatentDiffusion().log_abar, np.cumsum(np.log1p(-betas)), rtol=1e-12)


def test_noised_codes_are_those_of_the_step_by_step_process():
    process, rng = LatentDiffusion(timesteps=50, beta=0.05), np.random.default_rng(0)
    z = z_0 = _codes()
    for _ in range(31):
        z = np.sqrt(0.95) * z + np.sqrt(0.05) * rng.standard_normal(z.shape)
    at_once = process.noised(z_0, jnp.full(COUNT, 30), _normal(0, z.shape))
    np.testing.assert_allclose(at_once.mean(axis=0), z.mean(axis=0), atol=0.08)
    np.testing.assert_allclose(np.cov(at_once.T), np.cov(z.T), atol=0.08)


@pytest.mark.parametrize(
    ("sampler", "steps", "eta"),
    [("ancestral", 1000, 0.0), ("ddim", 500, 0.0), ("ddim", 1000, 0.5), ("ddim", 1000, 1.0)],
)
def test_samples_have_the_mean_and_the_covariance(sampler, steps, eta):
    process = LatentDiffusion()
    table = process.table(sampler, steps, eta)
    assert len(table.t) == steps and table.t[0] == 999 and table.t[-1] == 0
    got = _sample(process, table, _normal(1, (COUNT, 3)))
    np.testing.assert_allclose(got.mean(axis=0), MEAN, atol=0.06)
    np.testing.assert_allclose(np.cov(got.T), COVARIANCE, atol=0.1)


def test_ddim_approaches_the_flow_and_ignores_noise():
    """On Gaussian codes, the probability-flow ODE maps z linearly, with a known matrix."""
    process, z = LatentDiffusion(), _normal(2, (64, 3))
    values, vectors = np.linalg.eigh(COVARIANCE)
    abar = math.exp(process.log_abar[-1])
    scale = np.sqrt(values / (abar * values + 1 - abar))
    exact = MEAN + ((np.asarray(z) - math.sqrt(abar) * MEAN) @ vectors * scale) @ vectors.T
    errors = []
    for steps in (50, 100, 200):
        table = process.table("ddim", steps)
        got = _sample(process, table, z)
        np.testing.assert_array_equal(got, _sample(process, table, z, seed=1))
        errors.append(np.abs(got - exact).mean())
    assert errors[0] < 0.1 and errors[2] < 0.7 * errors[1] < 0.49 * errors[0]


def test_ancestral_steps_are_the_models_own_chain():
    """The coefficients are those of Ho et al.; only the last step has no noise."""
    process = LatentDiffusion(timesteps=20, beta=0.1)
    table, abar = process.table("ancestral", 20), 0.9 ** np.arange(20, 0, -1)
    np.testing.assert_array_equal(table.t, np.arange(19, -1, -1))
    np.testing.assert_allclose(table.w_z, 1 / np.sqrt(0.9), rtol=1e-6)
    np.testing.assert_allclose(table.w_eps, -0.1 / np.sqrt(0.9 * (1 - abar)), rtol=1e-5)
    np.testing.assert_allclose(table.w_noise, [*[math.sqrt(0.1)] * 19, 0], rtol=1e-6)


def _bound(process, z_0, points, eps_fn, seed=0):
    uniform = np.random.default_rng(seed).random((len(z_0), points))
    bound = process.bound(points, uniform)
    return np.asarray(_bound_terms(process, eps_fn)(z_0, bound, seed), np.float64)


@functools.cache
def _bound_terms(process, eps_fn):
    return jax.jit(
        lambda z, bound, seed: process.bound_terms(eps_fn, z, bound, _noise_fn(seed, z.shape))
    )


def test_the_bound_is_tight_for_standard_normal_codes():
    """Their exact reverse chain has variance beta, as the model has: the bound is the entropy."""
    process = LatentDiffusion()
    got = _bound(process, _normal(3, (2000, 3)), 1000, _eps_fn(process, np.zeros(3), np.eye(3)))
    entropy = 1.5 * math.log(2 * math.pi * math.e)
    assert abs(got.mean() - entropy) < 4 * got.std() / math.sqrt(len(got)) < 0.2


def test_the_bound_lies_a_little_above_the_entropy_and_rises_with_a_worse_network():
    process, z_0 = LatentDiffusion(), _codes(4000)
    entropy = 0.5 * (3 * math.log(2 * math.pi * math.e) + np.linalg.slogdet(COVARIANCE)[1])
    best = _bound(process, z_0, 1000, _eps_fn(process))
    error = best.std() / math.sqrt(len(best))
    assert entropy - 3 * error < best.mean() < entropy + 0.25
    worse = _bound(process, z_0, 1000, lambda z, t: 0.8 * _eps_fn(process)(z, t))
    assert worse.mean() > best.mean() + 0.2


def test_the_bound_at_some_steps_is_unbiased():
    process, z_0 = LatentDiffusion(timesteps=200, beta=0.04), jnp.asarray(_codes(2000))
    eps_fn = _eps_fn(process)
    every = [_bound(process, z_0, 200, eps_fn, seed).mean() for seed in range(10)]
    some = [_bound(process, z_0, 10, eps_fn, seed).mean() for seed in range(60)]
    error = math.hypot(np.std(some) / math.sqrt(60), np.std(every) / math.sqrt(10))
    assert abs(np.mean(some) - np.mean(every)) < 4 * error < 0.2


def test_the_loss_is_the_mean_absolute_error():
    process = LatentDiffusion(timesteps=10, beta=0.1)
    z_0, eps, t = _normal(0, (5, 4)), _normal(1, (5, 4)), jnp.array([0, 2, 4, 6, 9])
    got = process.loss(lambda z, t: jnp.zeros_like(z), z_0, t, eps)
    np.testing.assert_allclose(got, np.abs(eps).mean(axis=1), rtol=1e-6)
    perfect = process.loss(lambda z, t: eps, z_0, t, eps)
    np.testing.assert_array_equal(perfect, np.zeros(5))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("euler", 10), "one of ancestral, ddim"),
        (("ddim", 0), "1 to 1000"),
        (("ddim", 1001), "1 to 1000"),
        (("ddim", 10, 1.5), r"in \[0, 1\]"),
        (("ancestral", 10, 0.5), "0 for ancestral"),
    ],
)
def test_wrong_sampler_settings_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        LatentDiffusion().table(*arguments)
