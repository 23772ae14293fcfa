"""Order of convergence of every sampler, measured against the exact flow of a Gaussian world.

Errors are measured at t_min: the last step, from t_min to 0, has order 1 for every sampler and does
not become shorter on finer grids. The first time is 0.99 T. The grid has equal intervals of lambda:
near T the flow changes like (T - t)^(1/2), so on grids with few times near T no sampler shows its
order. The first step of multistep3 has order 1. It would reduce the measured order to 2 if D
changed with lambda during that step; at 0.99 T D does not change yet.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dbae_jax.bridge import preconditioning
from dbae_jax.sampling import grids, integrate
from dbae_jax.sampling.plan import Plan
from tests.helpers import gaussian_world
from tests.helpers.gaussian_world import SCHEDULES, make_world

START = 0.99
# Sampler -> (order, grid, numbers of steps between which the order is measured)
ORDERS = {
    "euler": (1, "lambda", (40, 80, 160)),
    "heun": (2, "lambda", (40, 80, 160)),
    "dbim": (1, "lambda", (40, 80, 160)),
    "multistep2": (2, "lambda", (40, 80, 160)),
    "multistep3": (3, "lambda", (320, 640, 1280)),
}


def _errors(name, schedule):
    """Returns the distances to the exact flow at t_min, one per number of steps."""
    world, rng = make_world(4), np.random.default_rng(0)
    z = world.sample(rng, 16)[1]
    x_T = world.decoder(z)
    noise = rng.standard_normal(x_T.shape)
    bridge, errors = preconditioning.Bridge(schedule), []
    denoise_fn = gaussian_world.make_denoise_fn(world, schedule, z)
    _, grid, numbers = ORDERS[name]
    for steps in numbers:
        start = START * schedule.t_max
        times = grids.GRIDS[grid](schedule, steps, start=start)
        implicit = name not in ("euler", "heun")
        table = Plan(name, grid=times, boot=implicit).table(bridge)
        _, states = integrate.integrate(
            denoise_fn,
            jnp.asarray(x_T)[:, None, None],
            table,
            lambda _: jnp.asarray(noise)[:, None, None],
            keep_path=True,
        )
        # The first row of an implicit sampler leads from T to `start`. Euler and Heun start in x_T.
        first = np.asarray(states)[0, :, 0, 0] if implicit else x_T
        exact = world.flow(schedule, np.float64(start), np.float64(schedule.t_min), first, z)
        at_t_min = np.asarray(states)[np.flatnonzero(table.on_path)[-2], :, 0, 0]
        errors.append(np.abs(at_t_min - exact).max())
    return np.array(errors)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("name", ORDERS)
def test_order_of_convergence(name, schedule):
    with jax.enable_x64(True):
        errors = _errors(name, schedule)
    order, _, numbers = ORDERS[name]
    ratios = [b / a for a, b in itertools.pairwise(numbers)]
    measured = np.log(errors[:-1] / errors[1:]) / np.log(ratios)
    assert measured[-1] == pytest.approx(order, abs=0.2), (errors, measured)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_the_grid_decides_whether_an_order_shows(schedule):
    """At 40 steps, multistep3 has its smallest error on the lambda grid."""
    with jax.enable_x64(True):
        errors = {}
        for grid in grids.GRIDS:
            with pytest.MonkeyPatch.context() as patch:
                patch.setitem(ORDERS, "multistep3", (3, grid, (40,)))
                errors[grid] = _errors("multistep3", schedule)[0]
    assert errors["lambda"] < 0.5 * min(v for name, v in errors.items() if name != "lambda"), errors


def _moments(plan_of, schedule, steps):
    """Returns the exact (mean, covariance) at t_min of a sampler's states for one latent code.

    With a linear denoiser the state is affine in the noise. Example 0 has no noise. In every other
    example, one coordinate of one noise is 1 and all others are 0.
    """
    world, rng = make_world(4), np.random.default_rng(0)
    z = world.sample(rng, 1)[1]
    times = grids.GRIDS["lambda"](schedule, steps, start=START * schedule.t_max)
    bridge = preconditioning.Bridge(schedule)
    table = plan_of(times).table(bridge)
    count = int(table.noise_index.max()) + 1
    units = np.zeros((count, 1 + 3 * count, 1, 1, 3))
    for i, j in itertools.product(range(count), range(3)):
        units[i, 1 + 3 * i + j, 0, 0, j] = 1
    codes = np.repeat(z, units.shape[1], axis=0)
    _, states = integrate.integrate(
        gaussian_world.make_denoise_fn(world, schedule, codes),
        jnp.asarray(world.decoder(codes))[:, None, None],
        table,
        lambda i: jnp.asarray(units)[i],
        keep_path=True,
    )
    before_last = np.flatnonzero(table.at.t == schedule.t_min)[0] - 1
    out = np.asarray(states)[before_last, :, 0, 0]
    columns = out[1:] - out[0]
    return out[0], columns.T @ columns, (world, z)


STOCHASTIC = {
    "euler churn": lambda times: Plan("euler", grid=times, churn=0.33),
    "heun churn": lambda times: Plan("heun", grid=times, churn=0.33),
    "dbim eta=1": lambda times: Plan("dbim", grid=times, eta=1.0, boot=True),
    "dbim eta=0.5": lambda times: Plan("dbim", grid=times, eta=0.5, boot=True),
}


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("name", STOCHASTIC)
def test_weak_order_of_noisy_samplers(name, schedule):
    """Mean and covariance converge with order 1: differences between grids halve."""
    with jax.enable_x64(True):
        moments = [_moments(STOCHASTIC[name], schedule, n)[:2] for n in (40, 80, 160, 320)]
    gaps = [
        np.linalg.norm(np.subtract(a[1], b[1])) + np.linalg.norm(np.subtract(a[0], b[0]))
        for a, b in itertools.pairwise(moments)
    ]
    assert np.log2(gaps[-2] / gaps[-1]) == pytest.approx(1, abs=0.2), gaps


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_implicit_samplers_sample_from_the_marginal(schedule):
    """With booting noise and eta, the covariance of x_t given z is exact up to the grid's error."""
    t = np.float64(schedule.t_min)
    for name in ("dbim eta=1", "dbim eta=0.5"):
        with jax.enable_x64(True):
            mean, cov, (world, z) = _moments(STOCHASTIC[name], schedule, 320)
        np.testing.assert_allclose(mean, world.path_mean(schedule, t, z)[0], atol=1e-3)
        variances = world._path_variances(schedule, t, mean[None])[0]
        exact = world.posterior.vectors @ np.diag(variances) @ world.posterior.vectors.T
        assert np.linalg.norm(cov - exact) < 0.06 * np.linalg.norm(exact)
