"""Time grids and samplers: coefficients, evaluations, errors, independence of the batch."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dbae_jax.bridge import marginals
from dbae_jax.bridge.preconditioning import Bridge, Moments
from dbae_jax.bridge.schedules import VE, VP
from dbae_jax.errors import ConfigError, DataError
from dbae_jax.sampling import grids, integrate, tables
from dbae_jax.sampling.plan import SAMPLERS, Plan
from tests.helpers import bridge_drifts, sample_by_plan, tiny

BRIDGES = {"vp": Bridge(VP()), "ve": Bridge(VE())}
bridges = pytest.mark.parametrize("b", BRIDGES.values(), ids=BRIDGES)
VP_BRIDGE = BRIDGES["vp"]


def _times(b, steps, rho=7.0):
    start = b.schedule.t_max - grids.DISTANCE_TO_END
    return grids.karras(b.schedule, steps, start=start, rho=rho)


def _grid(name, b, steps, start, rho=3.0):
    return grids.GRIDS[name](b.schedule, steps, start=start, rho=rho)


# --- time grids -----------------------------------------------------------------------------


@bridges
@pytest.mark.parametrize("name", grids.GRIDS)
@pytest.mark.parametrize("gap", [0.0, 1e-4])
def test_grids_fall_from_their_start_to_zero(b, name, gap):
    start = b.schedule.t_max - gap
    for steps in (2, 3, 10, 57, 1000):
        times = _grid(name, b, steps, start)
        assert times.dtype == np.float64 and times.shape == (steps + 1,)
        assert times[0] == start and times[-1] == 0
        if name != "near_end":
            assert times[-2] == pytest.approx(b.schedule.t_min, rel=1e-9)
        assert np.all(np.diff(times) < 0)


def test_grids_have_equal_intervals_of_their_own_variable():
    b, start = VP_BRIDGE, 1 - 1e-4

    def steps_of(values):
        return np.diff(values)

    karras = _grid("karras", b, 9, start)[:-1] ** (1 / 3)
    uniform = _grid("uniform", b, 9, start)[:-1]
    power = (_grid("power", b, 9, start)[:-1] - b.schedule.t_min) ** (1 / 3)
    by_lambda = marginals.lambda_of(b.schedule, _grid("lambda", b, 9, start)[:-1])
    for values in (karras, uniform, power, by_lambda):
        np.testing.assert_allclose(steps_of(values), steps_of(values).mean(), rtol=1e-6)


@pytest.mark.parametrize("name", grids.GRIDS)
@pytest.mark.parametrize(
    ("change", "words"),
    [({"steps": 1}, "2 steps"), ({"rho": 0.0}, "positive"), ({"start": 1.1}, "must be in")],
)
def test_bad_grids_cannot_be_made(name, change, words):
    wanted = {"steps": 5, "start": 1.0, "rho": 3.0} | change
    with pytest.raises(ValueError, match=words):
        grids.GRIDS[name](VP(), wanted.pop("steps"), **wanted)


@pytest.mark.parametrize(
    ("times", "words"),
    [
        ([0.5, 0.6, 0.0], "fall strictly"),
        ([0.5, 0.5, 0.0], "fall strictly"),
        ([0.0], "steps are needed"),
        ([0.5, 0.2, 0.1], "to 0"),
        ([0.5, np.nan, 0.0], "fall strictly"),
        ([1.2, 0.5, 0.0], "below T = 1"),
        ([[0.5, 0.1, 0.0]], "steps are needed"),
    ],
)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_bad_grids_are_refused_by_every_sampler(sampler, times, words):
    with pytest.raises(ValueError, match=words):
        Plan(sampler, grid=np.array(times)).table(VP_BRIDGE)


def test_drifts_are_not_evaluated_at_T():
    times = np.array([1.0, 0.5, 0.0])
    with pytest.raises(ValueError, match="start below T"):
        Plan("euler", grid=times).table(VP_BRIDGE)
    assert Plan("dbim", grid=times).table(VP_BRIDGE).nfe == 2


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (Plan("ddim"), "sampler='ddim'"),
        (Plan("heun", 1), "at least 2 for euler and heun"),
        (Plan("dbim", 0), "at least 1"),
        (Plan("heun", grid="cosine"), "grid='cosine'"),
        (Plan("heun", churn=1.0), r"churn=1.0 is not allowed: it must be in \[0, 1\)"),
        (Plan("dbim", eta=-0.1), r"eta=-0.1 is not allowed: it must be in \[0, 1\]"),
        (Plan("dbim", churn=0.1), "0 except for euler and heun"),
        (Plan("multistep2", eta=0.1), "0 except for dbim"),
        (Plan("heun", boot=True), "boot=True is not allowed: it must be False except for dbim"),
        (Plan("power", rho=float("nan")), "sampler='power'"),
        (Plan("heun", rho=float("nan")), "rho=nan is not allowed: it must be positive"),
        (Plan("dbim", 1000, "power"), "take a smaller rho"),
    ],
)
def test_bad_plans_are_refused(plan, words):
    with pytest.raises((ConfigError, ValueError), match=words):
        plan.table(VP_BRIDGE)


def test_endpoint_std_0_needs_a_sampler_that_starts_below_T():
    bridge = Bridge(VP(), Moments(endpoint_std=0.0))
    assert np.isfinite(Plan("euler", 5).table(bridge).at).all()
    with pytest.raises(ValueError, match="not finite at T"):
        Plan("dbim", 5).table(bridge)


def test_order_of_multistep_is_checked():
    with pytest.raises(ValueError, match="order=4"):
        tables.multistep_table(VP_BRIDGE, _times(VP_BRIDGE, 5), order=4)


def test_a_plan_is_not_combined_with_other_options():
    plan = Plan("euler", 20)
    assert Plan.recommended(plan, rho=7.0, churn=0.0, eta=0.0, boot=False) is plan
    for options in ({"steps": 3}, {"sampler": "dbim"}, {"grid": np.ones(2)}, {"eta": 1.0}):
        with pytest.raises(DataError, match=f"leave out {next(iter(options))}"):
            Plan.recommended(plan, **options)


def test_configs_name_the_samplers_and_grids_that_exist():
    for name in SAMPLERS:
        assert tiny.config(**{"sample.sampler": name}).sample.sampler == name
    for name in grids.GRIDS:
        assert tiny.config(**{"sample.grid": name}).sample.grid == name


# --- steps ----------------------------------------------------------------------------------


@bridges
@pytest.mark.parametrize(
    ("plan", "nfe"),
    [
        (Plan("euler", 7), 7),
        (Plan("euler", 7, churn=0.3), 14),
        (Plan("heun", 7), 13),
        (Plan("heun", 7, churn=0.3), 20),
        (Plan("dbim", 7), 7),
        (Plan("dbim", 7, eta=1.0), 7),
        (Plan("multistep2", 7), 7),
        (Plan("multistep3", 7, "lambda"), 7),
    ],
)
def test_reported_nfe_is_the_number_of_calls(b, plan, nfe):
    calls = []

    def denoise_fn(x, at, x_T):
        jax.debug.callback(lambda t: calls.append(float(t)), at.t)
        return 0.5 * x

    x_T = jnp.full((2, 4, 4, 1), 0.2)
    result = sample_by_plan.sample(denoise_fn, x_T, plan, jax.random.key(0), bridge=b)
    jax.effects_barrier()
    assert result.nfe == len(calls) == nfe
    assert result.x_0.shape == x_T.shape and np.abs(result.x_0).max() <= 1


@bridges
@pytest.mark.parametrize("name", ["euler", "heun"])
def test_euler_and_heun_steps_use_the_drift_of_the_ode(b, name):
    """The tables take the same Euler and Heun steps as the drifts of `bridge_drifts`."""
    rng = np.random.default_rng(0)
    x_T, target = rng.uniform(-0.4, 0.4, (2, 3, 2, 2, 1))
    times = _times(b, 5, rho=3.0)

    def denoise(x):  # some smooth function with values inside [-1, 1]
        return 0.3 * np.tanh(x) + target

    def drift(x, t):
        t = np.float64(t)
        score = bridge_drifts.score_from_x_0(b.schedule, t, x, x_T, denoise(x))
        return bridge_drifts.probability_flow_drift(b.schedule, t, x, x_T, score)

    x = x_T
    for start, end in itertools.pairwise(times):
        slope = drift(x, start)
        full = x + (end - start) * slope
        heun = name == "heun" and end > 0
        x = x + (end - start) * (slope + drift(full, end)) / 2 if heun else full
    with jax.enable_x64(True):
        got = sample_by_plan.sample(
            lambda x, at, x_T: 0.3 * jnp.tanh(x) + target,
            jnp.asarray(x_T),
            Plan(name, grid=times),
            bridge=b,
        ).x_0
    np.testing.assert_allclose(got, np.clip(x, -1, 1), rtol=1e-8, atol=1e-10)


@bridges
def test_churn_is_a_step_of_the_reverse_sde_and_then_an_ode_step(b):
    x_T = np.full((1, 1, 1, 1), 0.3)
    times, churn = _times(b, 4, rho=3.0), 0.4
    noises = np.random.default_rng(1).normal(size=(4, 1, 1, 1, 1))
    x = x_T
    for i, (start, end) in enumerate(itertools.pairwise(times)):
        middle = start + churn * (end - start)
        score = bridge_drifts.score_from_x_0(b.schedule, np.float64(start), x, x_T, 0.1 * np.cos(x))
        drift = bridge_drifts.reverse_sde_drift(b.schedule, np.float64(start), x, x_T, score)
        scale = np.sqrt(b.schedule.diffusion_squared(start) * (start - middle))
        x = x + (middle - start) * drift + scale * noises[i]
        score = bridge_drifts.score_from_x_0(
            b.schedule, np.float64(middle), x, x_T, 0.1 * np.cos(x)
        )
        flow = bridge_drifts.probability_flow_drift(b.schedule, np.float64(middle), x, x_T, score)
        x = x + (end - middle) * flow
    with jax.enable_x64(True):
        got, _ = integrate.integrate(
            lambda x, at, x_T: 0.1 * jnp.cos(x),
            jnp.asarray(x_T),
            tables.euler_table(b, times, churn=churn),
            lambda i: jnp.asarray(noises)[i],
        )
    np.testing.assert_allclose(got, np.clip(x, -1, 1), rtol=1e-7, atol=1e-9)


@bridges
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_implicit_steps_keep_the_marginals(b, eta):
    """With the true x_0 as D, each step takes q(x_s | x_0, x_T) to q(x_t | x_0, x_T)."""
    times = _grid("karras", b, 8, b.schedule.t_max)
    table = tables.dbim_table(b, times, eta=eta, boot=True)
    x_0, x_T = 0.7, -0.4
    mean, variance = x_T, 0.0
    for i, t in enumerate(times[1:]):
        w_x, w_xT, w_D, w = (c[i] for c in (table.w_x, table.w_xT, table.w_D, table.w_noise))
        mean = mean + w_x * (mean - x_T) + w_xT * x_T + w_D * x_0
        variance = (1 + w_x) ** 2 * variance + w**2
        A, B, C = marginals.marginal_coefficients(b.schedule, t)
        assert mean == pytest.approx(A * x_T + B * x_0, rel=1e-9, abs=1e-12)
        assert variance == pytest.approx(C, rel=1e-9, abs=1e-15)
    assert table.w_noise[-1] == 0


@bridges
def test_steps_of_a_markov_bridge_have_no_term_in_x_T(b):
    """eta = 1: below T, the coefficient of x_T in (k x + ... x_T) is 0."""
    table = tables.dbim_table(b, _grid("karras", b, 8, b.schedule.t_max), eta=1.0)
    of_x_T = table.w_xT[1:-1] - table.w_x[1:-1]
    np.testing.assert_allclose(of_x_T, 0, atol=1e-9)
    other = tables.dbim_table(b, _grid("karras", b, 8, b.schedule.t_max), eta=0.5)
    assert np.abs(other.w_xT[1:-1] - other.w_x[1:-1]).max() > 0.01


@bridges
def test_multistep_of_order_one_is_the_deterministic_implicit_sampler(b):
    times = _grid("lambda", b, 9, b.schedule.t_max)
    one = tables.multistep_table(b, times, order=1)
    dbim = tables.dbim_table(b, times)
    for name in ("w_x", "w_xT", "w_D"):
        np.testing.assert_allclose(getattr(one, name), getattr(dbim, name), rtol=1e-9, atol=1e-12)


@bridges
@pytest.mark.parametrize("order", [2, 3])
def test_multistep_is_exact_where_D_is_a_polynomial_of_lambda(b, order):
    """For D quadratic (linear) in lambda, order 3 (2) is exact after the first steps."""
    times = _grid("lambda", b, 12, b.schedule.t_max)
    table = tables.multistep_table(b, times, order=order)
    lam = marginals.lambda_of(b.schedule, times[1:-1])
    poly = np.polynomial.Polynomial([0.3, -0.2, 0.05][:order])
    D = poly(lam)
    for i in range(order, len(times) - 2):  # row i: from times[i] to times[i + 1]
        s, t = times[i], times[i + 1]
        A_s, _, C_s = marginals.marginal_coefficients(b.schedule, s)
        A_t, _, C_t = marginals.marginal_coefficients(b.schedule, t)
        x_T, x = -0.3, 0.2
        nodes, weights = np.polynomial.legendre.leggauss(20)
        at = (lam[i] + lam[i - 1]) / 2 + nodes * (lam[i] - lam[i - 1]) / 2
        # Without their terms in x_T, x_t / sqrt(C_t) - x_s / sqrt(C_s) = integral of e^lambda D.
        integral = np.sum(weights * np.exp(at) * poly(at)) * (lam[i] - lam[i - 1]) / 2
        want = A_t * x_T + np.sqrt(C_t) * ((x - A_s * x_T) / np.sqrt(C_s) + integral)
        got = x + table.w_x[i] * (x - x_T) + table.w_xT[i] * x_T + table.w_D[i] * D[i - 1]
        got += table.w_D1[i] * D[i - 2]
        got += table.w_D2[i] * D[i - 3] if order == 3 else 0
        assert got == pytest.approx(want, rel=1e-9)


# --- whole runs -----------------------------------------------------------------------------

KEY = jax.random.key(2)
PLANS = [Plan(name, 20) for name in SAMPLERS]


@bridges
@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.sampler)
def test_a_perfect_denoiser_reconstructs_the_image(b, plan):
    x_0 = jax.random.uniform(jax.random.key(0), (2, 8, 8, 3), minval=-1)
    x_T = jax.random.normal(jax.random.key(1), x_0.shape)
    out = sample_by_plan.sample(lambda *_: x_0, x_T, plan, KEY, bridge=b).x_0
    np.testing.assert_allclose(out, x_0, atol=5e-3)


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.sampler)
def test_paths_start_at_x_T_and_have_one_state_per_step(plan):
    x_T = jnp.full((2, 4, 4, 1), 0.2)
    result = sample_by_plan.sample(
        lambda x, at, x_T: 0.5 * x, x_T, plan, KEY, bridge=VP_BRIDGE, keep_path=True
    )
    assert result.path.shape == (21, *x_T.shape)
    np.testing.assert_array_equal(result.path[0], x_T)
    np.testing.assert_array_equal(result.path[-1], result.x_0)


NOISY = [
    *(Plan("euler", 6, churn=0.5), Plan("dbim", 6, eta=0.7), Plan("multistep3", 6, boot=True)),
    Plan("consistency", 2, "near_end"),
]


@pytest.mark.parametrize("plan", NOISY, ids=lambda plan: plan.sampler)
def test_an_image_depends_on_its_key_and_not_on_its_batch(plan):
    x_T = jax.random.normal(jax.random.key(4), (5, 4, 4, 1))

    def run(x_T, seed=3):
        key = jax.random.key(seed)
        return sample_by_plan.sample(lambda x, at, _: 0.5 * x, x_T, plan, key, bridge=VP_BRIDGE).x_0

    np.testing.assert_array_equal(run(x_T)[:2], run(x_T[:2]))
    np.testing.assert_array_equal(run(x_T), run(x_T))
    assert not np.allclose(run(x_T), run(x_T, seed=4))
    assert not np.allclose(run(x_T)[0], run(x_T[::-1])[4])  # the noise depends on the index
    keys, order = jax.random.split(jax.random.key(8), 5), np.array([3, 0, 4])
    whole = sample_by_plan.sample(lambda x, at, _: 0.5 * x, x_T, plan, keys, bridge=VP_BRIDGE).x_0
    part = sample_by_plan.sample(
        lambda x, at, _: 0.5 * x, x_T[order], plan, keys[order], bridge=VP_BRIDGE
    ).x_0
    np.testing.assert_array_equal(whole[order], part)


def test_implicit_samplers_without_a_key_have_no_noise():
    x_T = jax.random.normal(jax.random.key(4), (2, 4, 4, 1))
    for name in ("dbim", "multistep2", "multistep3"):
        assert Plan(name, 6).table(VP_BRIDGE).w_noise is None
        assert Plan(name, 6, boot=True).table(VP_BRIDGE).w_noise[0] > 0
        result = sample_by_plan.sample(lambda x, *_: 0.5 * x, x_T, Plan(name, 6), bridge=VP_BRIDGE)
        assert np.isfinite(result.x_0).all()


@pytest.mark.parametrize("plan", NOISY, ids=lambda plan: plan.sampler)
def test_noise_without_a_key_is_refused(plan):
    with pytest.raises(ValueError, match="pass a key"):
        sample_by_plan.sample(lambda x, *_: x, jnp.ones((1, 4, 4, 1)), plan, bridge=VP_BRIDGE)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_second_grid_of_the_same_length_compiles_nothing_and_no_step_calls_the_host(name):
    traces = []

    @jax.jit
    def run(x_T, table):
        traces.append(1)

        # Random numbers would be a second loop.
        def noise_fn(index):
            return jnp.ones_like(x_T)

        return integrate.integrate(lambda x, at, x_T: 0.5 * x, x_T, table, noise_fn)[0]

    x_T = jnp.ones((1, 4, 4, 1))
    made = [
        Plan(name, 6, grid, rho).table(VP_BRIDGE)
        for grid, rho in (("karras", 7.0), ("karras", 2.0), ("uniform", 1.0))
    ]
    outs = [run(x_T, table) for table in made]
    assert len(traces) == 1
    assert not np.array_equal(outs[0], outs[1])
    text = run.lower(x_T, made[0]).as_text()
    assert text.count("stablehlo.while") == 1
    assert "callback" not in text and "infeed" not in text
