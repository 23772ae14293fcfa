"""The bridge's formulas: float32 against float64, automatic differentiation, identities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dbae_jax.bridge import marginals, preconditioning
from dbae_jax.bridge.schedules import VE, VP
from tests.helpers import bridge_drifts

SCHEDULES = [VP(), VE(), VP(t_max=2.0, beta_d=0.5, beta_min=1.0), VE(t_max=10.0)]
schedules = pytest.mark.parametrize("schedule", SCHEDULES, ids=str)


def _times(schedule):
    """Returns (t up to T - 1e-3 T, t closer to T), float32 numbers stored in float64."""
    far = np.geomspace(schedule.t_min, schedule.t_max * (1 - 1e-3), 4001)
    near = schedule.t_max * (1 - np.geomspace(1e-3, 3e-7, 400))
    return [np.float32(t).astype(np.float64) for t in (far, near)]


def _scalars(schedule, t):
    """Returns all coefficients that depend only on t."""
    values = [*marginals.marginal_coefficients(schedule, t)]
    values += [schedule.snr_ratio(t), schedule.snr_gap(t), schedule.alpha(t)]
    values += [schedule.variance(t), schedule.alpha_ratio(t)]
    values += [*preconditioning.Bridge(schedule).at(t)]
    values += [*preconditioning.Bridge(schedule, preconditioning.Moments(0.3, 1.2, 0.2)).at(t)]
    return values


@schedules
def test_float32_is_accurate(schedule):
    for t, tolerance in zip(_times(schedule), (1e-5, 3e-4), strict=True):
        got, want = _scalars(schedule, jnp.asarray(t, jnp.float32)), _scalars(schedule, t)
        for i, (single, double) in enumerate(zip(got, want, strict=True)):
            assert single.dtype == jnp.float32
            # c_noise = 250 ln t crosses 0 at t = 1: there the error is measured against 1.
            scale = np.maximum(np.abs(double), 1e-30 if i not in (12, 18) else 1.0)
            worst = np.max(np.abs(np.asarray(single, np.float64) - double) / scale)
            assert worst < tolerance, (i, worst)


@schedules
def test_float32_drifts_are_accurate(schedule):
    rng = np.random.default_rng(0)
    for t, tolerance in zip(_times(schedule), (1e-5, 3e-4), strict=True):
        x_0, x_T, noise = rng.uniform(-1, 1, (3, len(t), 2, 2, 1)).astype(np.float32)
        doubles = [np.float64(a) for a in (x_0, x_T, noise)]
        x_t = marginals.marginal_sample(schedule, t, *doubles).astype(np.float32)
        for function in (
            lambda t, x, e, s: marginals.marginal_sample(schedule, t, s, e, x),
            lambda t, x, e, s: (
                bridge_drifts.score_from_x_0(schedule, t, x, e, s)
                * marginals.expand(marginals.marginal_coefficients(schedule, t).C, x)
            ),
            lambda t, x, e, s: bridge_drifts.reverse_sde_drift(schedule, t, x, e, s),
        ):
            single = function(jnp.asarray(t, jnp.float32), *map(jnp.asarray, (x_t, x_T, x_0)))
            double = function(t, *map(np.float64, (x_t, x_T, x_0)))
            scale = np.abs(double).max(axis=(1, 2, 3), keepdims=True)
            # x_t - A x_T - B x_0 may cancel: errors are relative to the largest of these terms.
            terms = np.abs(doubles).max() + np.abs(double).max(axis=(1, 2, 3), keepdims=True)
            error = np.abs(np.asarray(single, np.float64) - double) / np.maximum(scale, terms)
            assert error.max() < tolerance


@schedules
def test_h_is_regular_at_t_0_and_takes_python_numbers(schedule):
    x_t, x_T = np.array([[0.2, -0.3]]), np.array([[0.5, 0.4]])
    start = marginals.h_transform(schedule, np.array([0.0]), x_t, x_T)
    near = marginals.h_transform(schedule, 1e-9, x_t, x_T)
    np.testing.assert_allclose(start, near, rtol=1e-6)
    assert np.isfinite(bridge_drifts.bridge_drift(schedule, 0.5 * schedule.t_max, x_t, x_T)).all()


@schedules
def test_float32_times_stay_float32(schedule):
    with jax.enable_x64(True):
        t = jnp.float32(0.3)
        assert {value.dtype for value in _scalars(schedule, t)} == {jnp.dtype("float32")}


@schedules
def test_score_is_the_gradient_of_the_log_marginal_and_inverts(schedule):
    rng = np.random.default_rng(1)
    x_0, x_T, x_t = rng.normal(size=(3, 5, 2, 2, 1))
    t = np.linspace(0.05, 0.95, 5) * schedule.t_max
    score = bridge_drifts.score_from_x_0(schedule, t, x_t, x_T, x_0)
    with jax.enable_x64(True):

        def log_marginal(x_t):
            C = marginals.marginal_coefficients(schedule, jnp.asarray(t)).C
            mean = marginals.marginal_mean(schedule, jnp.asarray(t), x_0, x_T)
            return -jnp.sum((x_t - mean) ** 2 / (2 * marginals.expand(C, x_t)))

        np.testing.assert_allclose(score, jax.grad(log_marginal)(jnp.asarray(x_t)), rtol=1e-9)
    again = bridge_drifts.x_0_from_score(schedule, t, x_t, x_T, score)
    np.testing.assert_allclose(again, x_0, rtol=1e-6, atol=1e-9)


@schedules
def test_flow_with_known_x_0_and_x_T_follows_the_marginal(schedule):
    """With x_0 known, A x_T + B x_0 + sqrt(C) eps solves the ODE: its d/dt equals the drift."""
    rng = np.random.default_rng(2)
    x_0, x_T, noise = rng.normal(size=(3, 1, 2, 2, 1))
    for fraction in (0.1, 0.5, 0.9):
        t, step = fraction * schedule.t_max, 1e-6 * schedule.t_max
        around = [
            marginals.marginal_sample(schedule, np.array([t + s]), x_0, x_T, noise)
            for s in (-step, 0, step)
        ]
        slope = (around[2] - around[0]) / (2 * step)
        score = bridge_drifts.score_from_x_0(schedule, np.array([t]), around[1], x_T, x_0)
        flow = bridge_drifts.probability_flow_drift(schedule, np.array([t]), around[1], x_T, score)
        np.testing.assert_allclose(flow, slope, rtol=1e-6)
        reverse = bridge_drifts.reverse_sde_drift(schedule, np.array([t]), around[1], x_T, score)
        g2 = schedule.diffusion_squared(np.float64(t))
        np.testing.assert_allclose(flow - reverse, g2 * score / 2, rtol=1e-9)


@schedules
def test_marginals_are_fixed_to_x_0_at_0_and_to_x_T_at_T(schedule):
    A, B, C = marginals.marginal_coefficients(schedule, np.array([0.0, schedule.t_max]))
    np.testing.assert_allclose(A, [0, 1], atol=1e-12)
    np.testing.assert_allclose(B, [1, 0], atol=1e-12)
    np.testing.assert_allclose(C, [0, 0], atol=1e-9)


@schedules
def test_preconditioning_gives_unit_variance(schedule):
    """c_in x_t and the network's target have unit variance under the assumed moments."""
    moments = preconditioning.Moments(data_std=0.4, endpoint_std=0.9, covariance=0.2)
    rng = np.random.default_rng(3)
    cov = [[0.16, 0.2], [0.2, 0.81]]
    x_0, x_T = rng.multivariate_normal([0, 0], cov, size=400_000).T
    noise = rng.normal(size=x_0.shape)
    for fraction in (0.02, 0.4, 0.97):
        t = np.float64(fraction * schedule.t_max)
        at = preconditioning.Bridge(schedule, moments).at(t)
        x_t = marginals.marginal_sample(schedule, t, x_0, x_T, noise)
        target = (x_0 - at.c_skip * x_t) / at.c_out
        # The standard error of a variance of 400,000 normal numbers is 0.0022.
        assert np.var(at.c_in * x_t) == pytest.approx(1, abs=0.011)
        assert np.var(target) == pytest.approx(1, abs=0.011)
        assert abs(np.mean(target * x_t)) < 5 * x_t.std() / np.sqrt(x_t.size)
        assert at.weight == pytest.approx(at.c_out**-2)


def test_without_preconditioning_the_network_is_the_denoiser():
    plain = preconditioning.Bridge(VP(), None)
    x_t, x_T = jnp.ones((2, 4, 4, 1)), jnp.zeros((2, 4, 4, 1))
    denoise_fn = preconditioning.make_denoiser(lambda x, c_noise, z: 3 * x[..., :1] + x[..., 1:])
    out = denoise_fn(x_t, plain.at(jnp.array([0.2, 0.4])), x_T, None)
    np.testing.assert_array_equal(out, 3 * x_t)
    np.testing.assert_array_equal(plain.at(jnp.array([0.2])).weight, [1])


def test_a_wrong_shape_of_t_is_refused():
    x = jnp.zeros((3, 4, 4, 1))
    with pytest.raises(ValueError, match=r"scalar or of shape \[B\] = \[3\]"):
        marginals.marginal_mean(VP(), jnp.ones((3, 1)), x, x)
