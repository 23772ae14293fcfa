"""Samplers: what they evaluate, what they need, and that one batch does not touch another."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dbae_jax import bridge, samplers, time_grids
from dbae_jax.precond import Bridge
from dbae_jax.schedules import VE, VP

BRIDGES = [Bridge(VP()), Bridge(VE())]
bridges = pytest.mark.parametrize("b", BRIDGES, ids=["vp", "ve"])


def _times(b, steps, rho=7.0):
    return time_grids.karras(b.schedule.t_min, b.schedule.t_max, steps, rho)


@pytest.mark.parametrize(("steps", "rho"), [(2, 7.0), (10, 7.0), (100, 1.0)])
def test_karras_grid(steps, rho):
    times = time_grids.karras(1e-4, 1.0, steps, rho)
    assert times.dtype == np.float64 and len(times) == steps + 1
    np.testing.assert_allclose(times[[0, -2, -1]], [1 - 1e-4, 1e-4, 0], rtol=1e-12)
    roots = times[:-1] ** (1 / rho)
    np.testing.assert_allclose(np.diff(roots), np.diff(roots).mean(), rtol=1e-9)


@pytest.mark.parametrize(("steps", "rho", "words"), [(1, 7.0, "2 steps"), (5, 0.0, "positive")])
def test_bad_karras_grids_are_refused(steps, rho, words):
    with pytest.raises(ValueError, match=words):
        time_grids.karras(1e-4, 1.0, steps, rho)


@bridges
@pytest.mark.parametrize(
    ("name", "churn", "nfe"),
    [("euler", 0, 7), ("euler", 0.3, 14), ("heun", 0, 13), ("heun", 0.3, 20)],
)
def test_reported_evaluations_are_those_made(b, name, churn, nfe):
    calls = []

    def denoise_fn(x, at, x_T):
        jax.debug.callback(lambda t: calls.append(float(t)), at.t)
        return 0.5 * x

    x_T = jnp.full((2, 4, 4, 1), 0.2)
    sample = {"euler": samplers.sample_euler, "heun": samplers.sample_heun}[name]
    result = sample(denoise_fn, x_T, _times(b, 7), jax.random.key(0), bridge=b, churn=churn)
    jax.effects_barrier()
    assert result.nfe == len(calls) == nfe
    assert result.x_0.shape == x_T.shape and np.abs(result.x_0).max() <= 1


@bridges
@pytest.mark.parametrize("name", ["euler", "heun"])
def test_steps_are_those_of_the_drifts(b, name):
    """The table's coefficients against Euler and Heun steps taken with `bridge`'s drifts."""
    rng = np.random.default_rng(0)
    x_T, target = rng.uniform(-0.4, 0.4, (2, 3, 2, 2, 1))
    times = _times(b, 5, rho=3.0)

    def denoise(x):  # some smooth function with values inside [-1, 1]
        return 0.3 * np.tanh(x) + target

    def drift(x, t):
        t = np.float64(t)
        score = bridge.score_from_x_0(b.schedule, t, x, x_T, denoise(x))
        return bridge.probability_flow_drift(b.schedule, t, x, x_T, score)

    x = x_T
    for start, end in itertools.pairwise(times):
        slope = drift(x, start)
        full = x + (end - start) * slope
        heun = name == "heun" and end > 0
        x = x + (end - start) * (slope + drift(full, end)) / 2 if heun else full
    with jax.enable_x64(True):
        got, _ = samplers.integrate(
            lambda x, at, x_T: 0.3 * jnp.tanh(x) + target,
            jnp.asarray(x_T),
            samplers.TABLES[name](b, times),
        )
    np.testing.assert_allclose(got, np.clip(x, -1, 1), rtol=1e-8, atol=1e-10)


@bridges
def test_churn_is_a_step_of_the_reverse_sde_and_then_the_whole_ode_step(b):
    x_T = np.full((1, 1, 1, 1), 0.3)
    times, churn = _times(b, 4, rho=3.0), 0.4
    noises = np.random.default_rng(1).normal(size=(4, 1, 1, 1, 1))
    x = x_T
    for i, (start, end) in enumerate(itertools.pairwise(times)):
        middle = start + churn * (end - start)
        score = bridge.score_from_x_0(b.schedule, np.float64(start), x, x_T, 0.1 * np.cos(x))
        drift = bridge.reverse_sde_drift(b.schedule, np.float64(start), x, x_T, score)
        scale = np.sqrt(b.schedule.diffusion_squared(start) * (start - middle))
        x = x + (middle - start) * drift + scale * noises[i]
        score = bridge.score_from_x_0(b.schedule, np.float64(middle), x, x_T, 0.1 * np.cos(x))
        flow = bridge.probability_flow_drift(b.schedule, np.float64(middle), x, x_T, score)
        x = x + (end - middle) * flow
    with jax.enable_x64(True):
        got, _ = samplers.integrate(
            lambda x, at, x_T: 0.1 * jnp.cos(x),
            jnp.asarray(x_T),
            samplers.euler_table(b, times, churn=churn),
            lambda i: jnp.asarray(noises)[i],
        )
    np.testing.assert_allclose(got, np.clip(x, -1, 1), rtol=1e-7, atol=1e-9)


@bridges
def test_a_perfect_denoiser_brings_the_image_back(b):
    x_0 = jax.random.uniform(jax.random.key(0), (2, 8, 8, 3), minval=-1)
    x_T = jax.random.normal(jax.random.key(1), x_0.shape)
    for sample in (samplers.sample_euler, samplers.sample_heun):
        out = sample(lambda *_: x_0, x_T, _times(b, 20), bridge=b).x_0
        np.testing.assert_allclose(out, x_0, atol=5e-3)


def test_paths_start_at_x_T_and_hold_a_state_a_step():
    b, x_T = BRIDGES[0], jnp.full((2, 4, 4, 1), 0.2)
    for churn, states in ((0.0, 6), (0.2, 11)):
        result = samplers.sample_heun(
            lambda x, at, x_T: 0.5 * x,
            x_T,
            _times(b, 5),
            jax.random.key(0),
            bridge=b,
            churn=churn,
            keep_path=True,
        )
        assert result.path.shape == (states, *x_T.shape)
        np.testing.assert_array_equal(result.path[0], x_T)
        np.testing.assert_array_equal(result.path[-1], result.x_0)


def test_an_image_does_not_depend_on_its_batch():
    b, key = BRIDGES[0], jax.random.key(3)
    x_T = jax.random.normal(jax.random.key(4), (5, 4, 4, 1))

    def run(x_T):
        return samplers.sample_euler(
            lambda x, at, x_T: 0.5 * x, x_T, _times(b, 6), key, bridge=b, churn=0.5
        ).x_0

    np.testing.assert_array_equal(run(x_T)[:2], run(x_T[:2]))
    assert not np.allclose(run(x_T)[0], run(x_T[::-1])[4])


def test_a_second_grid_of_the_same_length_compiles_nothing():
    b, traces = BRIDGES[0], []

    @jax.jit
    def run(x_T, table):
        traces.append(1)
        return samplers.integrate(lambda x, at, x_T: 0.5 * x, x_T, table)[0]

    x_T = jnp.ones((1, 4, 4, 1))
    outs = [run(x_T, samplers.euler_table(b, _times(b, 6, rho))) for rho in (7.0, 2.0)]
    assert len(traces) == 1
    assert not np.array_equal(*outs)


@pytest.mark.parametrize(
    ("times", "churn", "words"),
    [
        ([0.5, 0.6, 0.0], 0.0, "fall strictly"),
        ([0.5, 0.1], 0.0, "to 0"),
        ([0.5, 0.1, 0.0], 1.0, "churn"),
    ],
)
def test_bad_grids_and_churns_are_refused(times, churn, words):
    with pytest.raises(ValueError, match=words):
        samplers.euler_table(BRIDGES[0], np.array(times), churn=churn)


def test_churn_without_a_key_is_refused():
    x_T = jnp.ones((1, 4, 4, 1))
    with pytest.raises(ValueError, match="pass a key"):
        samplers.sample_euler(
            lambda x, at, x_T: x, x_T, _times(BRIDGES[0], 4), bridge=BRIDGES[0], churn=0.3
        )
