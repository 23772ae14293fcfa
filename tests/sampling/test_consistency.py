"""The sampler of consistency models, with the exact consistency function of a Gaussian world."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dbae_jax.bridge.marginals import marginal_coefficients
from dbae_jax.bridge.preconditioning import Bridge
from dbae_jax.errors import DataError
from dbae_jax.sampling import grids
from dbae_jax.sampling.plan import CONSISTENCY, NAMES, Plan
from tests.helpers import gaussian_world, sample_by_plan
from tests.helpers.gaussian_world import SCHEDULES

schedules = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)


def _run(table, x_T, consistency_fn, noises):
    """Runs a table in float64, as `integrate` does, with the noise of every row given."""
    x = x_T
    for i in range(table.nfe):
        D = consistency_fn(table.at.t[i], x)
        x = x + table.w_x[i] * (x - x_T) + table.w_xT[i] * x_T + table.w_D[i] * D
        if table.w_noise is not None and table.w_noise[i]:
            x = x + table.w_noise[i] * noises[int(table.noise_index[i])]
    return x


def test_its_grid_begins_near_the_end():
    times = grids.near_end(SCHEDULES["vp"], 2, start=1.0)
    np.testing.assert_allclose(times, [1.0, 0.85, 0.0])
    np.testing.assert_allclose(
        grids.near_end(SCHEDULES["ve"], 3, start=80.0), [80.0, 68.0, 34.0, 0.0]
    )


@schedules
@pytest.mark.parametrize("steps", [2, 3, 5])
def test_two_evaluations_have_the_mean_and_covariance_of_the_images(schedule, steps):
    """x_0 is affine in the noise, so both moments follow from runs with unit noise."""
    world = gaussian_world.make_world(4)
    z = world.code.sample(np.random.default_rng(0), 1)
    x_T, d = world.decoder(z), world.widths[0]
    mean = world.posterior.code_mean(z)

    def consistency_fn(t, x):
        return mean if t == schedule.t_max else world.flow(schedule, t, 0.0, x, z)

    table = Plan("consistency", steps, "near_end").table(Bridge(schedule))
    assert table.nfe == steps and Plan("consistency", steps, "near_end").needs_noise
    zero = np.zeros((steps - 1, 1, d))
    centre = _run(table, x_T, consistency_fn, zero)
    np.testing.assert_allclose(centre, mean, rtol=1e-6)
    columns = []
    for i in range(steps - 1):
        for j in range(d):
            unit = zero.copy()
            unit[i, 0, j] = 1
            columns.append((_run(table, x_T, consistency_fn, unit) - centre)[0])
    cov = sum(np.outer(c, c) for c in columns)
    vectors, values = world.posterior.vectors, world.posterior.values
    expected = vectors @ np.diag(values) @ vectors.T
    # At the first noisy time, the marginal has the variance B^2 Cov[x_0 | z] + C; the sampler
    # leaves out the first term.
    _, B, C = marginal_coefficients(schedule, np.float64(grids.NOISE_FRACTION * schedule.t_max))
    left_out = B**2 * values.max() / C
    assert left_out < 0.01
    np.testing.assert_allclose(cov, expected, atol=2 * left_out * values.max() + 1e-9)
    if steps == 2:
        exact = vectors @ np.diag(values * C / (B**2 * values + C)) @ vectors.T
        np.testing.assert_allclose(cov, exact, rtol=1e-5, atol=1e-12)


@schedules
@pytest.mark.parametrize("sampler", ["dbim", "multistep2", "multistep3", "consistency"])
def test_one_step_is_the_denoiser_at_T(schedule, sampler):
    x_T = jax.random.normal(jax.random.key(0), (2, 4, 4, 1))

    def denoise_fn(x_t, at, x_T):
        return jnp.sin(x_T) + 3 * (x_t - x_T) + at.t - schedule.t_max

    bridge = Bridge(schedule)
    found = sample_by_plan.sample(denoise_fn, x_T, Plan(sampler, 1, "lambda"), bridge=bridge)
    assert found.nfe == 1
    np.testing.assert_allclose(found.x_0, jnp.clip(jnp.sin(x_T), -1, 1), atol=2e-5)
    tables = [Plan(sampler, 1, grid).table(bridge) for grid in grids.GRIDS]
    assert all(table.at.t == schedule.t_max for table in tables)


def test_plans_have_names():
    """The stochastic sampler and the two evaluations of a distilled model; and the best of each."""
    for default, nfes in (("dbim", (5, 666)), (CONSISTENCY, (1, 2))):
        named = [Plan.recommended(name, default) for name in NAMES]
        assert tuple(plan.table(Bridge(SCHEDULES["vp"])).nfe for plan in named) == nfes
        assert [plan.needs_noise for plan in named] == [False, True]
    # Given times that begin below T have one more step, from T to the first of them.
    assert Plan(CONSISTENCY, grid=np.array([0.9, 0.0])).needs_noise
    assert Plan.named("accurate") == Plan.recommended()
    assert Plan.named("sharp", CONSISTENCY) == Plan.recommended(default=CONSISTENCY)
    with pytest.raises(DataError, match="leave out steps"):
        Plan.recommended("sharp", steps=3)
    with pytest.raises(DataError, match="no plan 'best': the names are accurate, sharp"):
        Plan.recommended("best")
