"""The bridge's SDEs and ODE have the marginals N(A x_T + B x_0, C I).

There are two kinds of tests. Moments: in the Gaussian world drifts are affine, so mean and
covariance solve linear ODEs, which are solved to about 1e-9. Monte Carlo: an estimate from
simulated paths must lie within 5 standard errors of the exact value, plus the error of the time
steps (DISCRETISATION).
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dbae_jax.bridge import marginals, preconditioning
from dbae_jax.sampling import plan
from tests.helpers import bridge_drifts, gaussian_world, sample_by_plan
from tests.helpers.gaussian_world import (
    SCHEDULES,
    Gaussian,
    affine_of,
    make_world,
    place_of,
    propagate,
    time_at,
)

# Allowed error of 250 Heun steps, in units of the standard deviation (for a covariance: of the
# product of both standard deviations). The exact moments of the scheme, computed by recursion, have
# an error of at most 1.5e-3.
DISCRETISATION = 2e-3

on_schedules = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
on_worlds = pytest.mark.parametrize("code_width", [2, 4])
on_fractions = pytest.mark.parametrize("fraction", [1e-3, 0.1, 0.5, 0.9, 0.999])


def drift_fn_of(process, world, schedule):
    """Returns the drift of a process, with the score of the exact denoiser."""
    denoiser_fn = world.denoiser(schedule)

    def drift_fn(t, x_t, z):
        x_T = world.decoder(z)
        if process == "forward":
            return bridge_drifts.bridge_drift(schedule, t, x_t, x_T)
        score = bridge_drifts.score_from_x_0(schedule, t, x_t, x_T, denoiser_fn(t, x_t, z))
        if process == "reverse":
            return bridge_drifts.reverse_sde_drift(schedule, t, x_t, x_T, score)
        return bridge_drifts.probability_flow_drift(schedule, t, x_t, x_T, score)

    return drift_fn


NOISE = {"forward": 1, "reverse": -1, "flow": 0}


def simulate(drift_fn, schedule, x, z, times, rng, *, noise, steps=250):
    """Yields x at times[1:], by Heun steps of equal length in v.

    g^2 is linear in t, so its mean over a step is exact.
    """
    v = [place_of(schedule, t) for t in times]
    for v_0, v_1 in itertools.pairwise(v):
        grid = time_at(schedule, np.linspace(v_0, v_1, steps // (len(times) - 1) + 1))[0]
        for t_0, t_1 in itertools.pairwise(grid):
            g2 = (schedule.diffusion_squared(t_0) + schedule.diffusion_squared(t_1)) / 2
            dw = np.sqrt(abs(noise) * g2 * abs(t_1 - t_0)) * rng.standard_normal(x.shape)
            first = drift_fn(t_0, x, z)
            second = drift_fn(t_1, x + (t_1 - t_0) * first + dw, z)
            x = x + (t_1 - t_0) * (first + second) / 2 + dw
        yield x


def assert_moments(samples, expected):
    """Checks that samples [n, w] have the moments of a Gaussian, within Monte Carlo error."""
    n, std = len(samples), np.sqrt(np.diag(expected.cov))
    mean_error = np.abs(samples.mean(0) - expected.mean)
    assert np.all(mean_error <= std * (5 / np.sqrt(n) + DISCRETISATION))
    scale = np.outer(std, std)
    cov_error = np.abs(np.cov(samples.T) - expected.cov)
    assert np.all(
        cov_error <= 5 * np.sqrt((scale**2 + expected.cov**2) / n) + DISCRETISATION * scale
    )


@on_schedules
@on_fractions
def test_marginal_is_the_reference_diffusion_conditioned_on_x_T(schedule, fraction):
    """A, B, C follow from (x_t, x_T | x_0) of the reference diffusion: Cov = a_T/a_t s_t^2."""
    t, T = np.float64(fraction * schedule.t_max), np.float64(schedule.t_max)
    a_t, a_T = schedule.alpha(t), schedule.alpha(T)
    s2_t, s2_T = schedule.variance(t), schedule.variance(T)
    slope = a_T / a_t * s2_t / s2_T
    expected = [slope, a_t - slope * a_T, s2_t - slope**2 * s2_T]
    np.testing.assert_allclose(marginals.marginal_coefficients(schedule, t), expected, rtol=1e-9)


@on_schedules
@on_fractions
def test_h_is_the_gradient_of_the_log_transition_density(schedule, fraction):
    x_t, x_T = np.random.default_rng(0).standard_normal((2, 3))

    def log_density(x_t, t, T):
        ratio = schedule.alpha(T) / schedule.alpha(t)
        variance = schedule.variance(T) - ratio**2 * schedule.variance(t)
        return -jnp.sum((x_T - ratio * x_t) ** 2) / (2 * variance)

    with jax.enable_x64(True):
        t, T = jnp.float64(fraction * schedule.t_max), jnp.float64(schedule.t_max)
        expected = jax.grad(log_density)(jnp.asarray(x_t), t, T)
        h = marginals.h_transform(schedule, t, jnp.asarray(x_t), jnp.asarray(x_T))
        np.testing.assert_allclose(h, expected, rtol=1e-9)


@on_schedules
def test_forward_bridge_paths_have_marginals_a_b_c(schedule):
    """Paths start in x_0 at t = 1e-6 T, where C < 1e-6, not in a sample of q(x_t | x_0, x_T)."""
    world, count = make_world(2), 10_000
    rng = np.random.default_rng(1)
    x_0, z = (one[:1] for one in world.sample(rng, 1))
    times = np.array([1e-6, 0.02, 0.3, 0.8, 0.98]) * schedule.t_max
    drift_fn = drift_fn_of("forward", world, schedule)
    start, codes = np.repeat(x_0, count, 0), np.repeat(z, count, 0)
    paths = simulate(drift_fn, schedule, start, codes, times, rng, noise=1)
    for t, x_t in zip(times[1:], paths, strict=True):
        A, B, C = marginals.marginal_coefficients(schedule, t)
        mean = A * world.decoder(z)[0] + B * x_0[0]
        assert_moments(x_t, Gaussian(mean, C * np.eye(3)))


@on_schedules
@pytest.mark.parametrize("process", NOISE)
def test_simulated_marginals(schedule, process):
    world, rng = make_world(4), np.random.default_rng(2)
    times = np.array([0.01, 0.2, 0.7, 0.98]) * schedule.t_max
    times = times if process == "forward" else times[::-1]
    start = world.state(schedule, times[0]).sample(rng, 10_000)
    paths = simulate(
        drift_fn_of(process, world, schedule),
        schedule,
        *world.split(start),
        times,
        rng,
        noise=NOISE[process],
    )
    for t, x_t in zip(times[1:], paths, strict=True):
        assert_moments(np.c_[x_t, world.split(start)[1]], world.state(schedule, t))


@on_schedules
@on_worlds
@pytest.mark.parametrize("process", NOISE)
def test_propagated_marginals(schedule, process, code_width):
    world = make_world(code_width)
    times = np.array([1e-4, 1e-2, 0.3, 0.9, 1 - 1e-4]) * schedule.t_max
    times = times if process == "forward" else times[::-1]
    drift_fn = drift_fn_of(process, world, schedule)
    start = world.state(schedule, times[0])
    states = propagate(world, schedule, drift_fn, start, times, noise=NOISE[process])
    for t, state in zip(times[1:], states, strict=True):
        expected = world.state(schedule, t)
        np.testing.assert_allclose(state.mean, expected.mean, rtol=0, atol=1e-8)
        scale = np.sqrt(np.outer(np.diag(expected.cov), np.diag(expected.cov)))
        np.testing.assert_allclose(state.cov / scale, expected.cov / scale, rtol=0, atol=1e-8)


@on_schedules
@on_worlds
@on_fractions
def test_exact_denoiser_is_the_conditional_mean_and_gives_the_exact_score(
    schedule, code_width, fraction
):
    world, t = make_world(code_width), np.float64(fraction * schedule.t_max)
    mean, cov = world.joint(schedule, t)
    state = np.random.default_rng(3).standard_normal((5, 3 + code_width))
    x_t, z = world.split(state)
    denoised = world.denoiser(schedule)(t, x_t, z)
    expected = mean[:3] + (state - mean[3:]) @ np.linalg.solve(cov[3:, 3:], cov[3:, :3])
    np.testing.assert_allclose(denoised, expected, rtol=1e-6, atol=1e-9)
    score = bridge_drifts.score_from_x_0(schedule, t, x_t, world.decoder(z), denoised)
    np.testing.assert_allclose(score, world.score(schedule)(t, x_t, z), rtol=1e-9, atol=1e-12)
    back = bridge_drifts.x_0_from_score(schedule, t, x_t, world.decoder(z), score)
    np.testing.assert_allclose(back, denoised, rtol=1e-9, atol=1e-9)


@on_schedules
def test_flow_solves_the_probability_flow_ode(schedule):
    """`flow` solves the probability-flow ODE with the drift of `bridge_drifts`."""
    world, rng = make_world(2), np.random.default_rng(4)
    times = np.array([0.999, 0.5, 0.01, 1e-4]) * schedule.t_max
    drift_fn = drift_fn_of("flow", world, schedule)
    state = Gaussian(world.state(schedule, times[0]).sample(rng, 1)[0], np.zeros((5, 5)))
    x, z = world.split(state.mean[None])
    for t, solution in zip(
        times[1:], propagate(world, schedule, drift_fn, state, times, noise=0), strict=True
    ):
        expected = world.flow(schedule, times[0], t, x, z)[0]
        np.testing.assert_allclose(solution.mean[:3], expected, rtol=1e-8, atol=1e-10)
    at_T = world.path(schedule, np.float64(schedule.t_max), z, rng.standard_normal((1, 3)))
    np.testing.assert_allclose(at_T, world.decoder(z), rtol=1e-12)


@on_schedules
@pytest.mark.parametrize("code_width", [2, 4, None], ids=["z2", "z4", "x_T"])
def test_heun_sampler_follows_the_exact_flow(schedule, code_width):
    """Heun with the exact denoiser, given z or given x_T alone (code_width None).

    The grid has equal intervals of v. Near T the flow changes like (T - t)^(1/2), so on grids with
    few times near T (Karras) Heun loses its order. Measured errors of Heun: 7e-4 for VP, 2e-5 for
    VE; of Euler: 7e-3 and 1.5e-4.
    """
    world, rng = make_world(code_width or 4), np.random.default_rng(5)
    z = world.sample(rng, 8)[1]
    x_T, codes = world.decoder(z), None if code_width is None else z
    v = np.linspace(
        place_of(schedule, schedule.t_max - 1e-4), place_of(schedule, schedule.t_min), 64
    )
    times = np.append(time_at(schedule, v)[0], 0.0)
    with jax.enable_x64(True):
        denoise_fn = gaussian_world.make_denoise_fn(world, schedule, codes)
        sample = sample_by_plan.sample(
            denoise_fn,
            jnp.asarray(x_T)[:, None, None],
            plan.Plan("heun", grid=times),
            bridge=preconditioning.Bridge(schedule),
        )
        x_0 = np.asarray(sample.x_0)[:, 0, 0]
    given = world.with_endpoint_as_code() if codes is None else world
    code = x_T if codes is None else z
    expected = given.flow(schedule, times[0], np.float64(0), x_T, code)
    assert np.abs(expected).max() < 0.9
    tolerance = 1e-3 if schedule is SCHEDULES["vp"] else 5e-5
    np.testing.assert_allclose(x_0, expected, rtol=0, atol=tolerance)


@on_schedules
@pytest.mark.parametrize(("code_width", "by_endpoint"), [(2, False), (4, False), (4, True)])
def test_closed_forms_agree_with_the_joint_distribution(schedule, code_width, by_endpoint):
    """H(x_0 | x_t, c), I(x_0; c), I(x_0; x_t | c) equal those of the joint covariance.

    c is z, or x_T for a decoder that is surjective, so that x_T has a density.
    """
    world = make_world(code_width)
    given = world.with_endpoint_as_code() if by_endpoint else world
    for fraction in (1e-3, 0.5):
        t = fraction * schedule.t_max
        joint, state = given.joint(schedule, t), given.state(schedule, t)
        entropy = given.entropy_given(schedule, t)
        assert entropy == pytest.approx(joint.entropy() - state.entropy(), abs=1e-8)
        information = given.data.entropy() - given.information() - entropy
        assert given.information_at(schedule, t) == pytest.approx(information, abs=1e-9)
        h_given_c = given.entropy_given(schedule, schedule.t_max)
        assert h_given_c == pytest.approx(entropy + information)


def test_affine_of_reads_back_a_matrix():
    affine = gaussian_world.Affine(np.arange(6.0).reshape(2, 3), np.ones(2))
    read = affine_of(affine, 3)
    np.testing.assert_array_equal(read.matrix, affine.matrix)
    np.testing.assert_array_equal(read.offset, affine.offset)
