"""Order of convergence of every sampler, measured against the exact flow of a Gaussian world.

Errors are taken at t_min (the last step, to 0, is of order 1 for every sampler and does not shrink
with the grid), from a start at 0.99 T, on the grid even in lambda, which suits all of them: near T
the flow moves like (T - t)^(1/2), which no order survives on grids that do not crowd there. The
order-1 first step of multistep3 would show as order 2 in the end if it fell where D changes with
lambda; at 0.99 T it does not yet.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dbae_jax import precond, samplers, time_grids
from dbae_jax.samplers import Plan
from tests import gaussian_world
from tests.gaussian_world import SCHEDULES, make_world

START = 0.99
# Sampler -> (order, grid, numbers of steps at which the order shows)
ORDERS = {
    "euler": (1, "lambda", (40, 80, 160)),
    "heun": (2, "lambda", (40, 80, 160)),
    "dbim": (1, "lambda", (40, 80, 160)),
    "multistep2": (2, "lambda", (40, 80, 160)),
    "multistep3": (3, "lambda", (320, 640, 1280)),
}


def _errors(name, schedule):
    """Distances to the exact flow at t_min, one a number of steps."""
    world, rng = make_world(4), np.random.default_rng(0)
    z = world.sample(rng, 16)[1]
    x_T = world.decoder(z)
    noise = rng.standard_normal(x_T.shape)
    bridge, errors = precond.Bridge(schedule), []
    denoise_fn = gaussian_world.make_denoise_fn(world, schedule, z)
    _, grid, numbers = ORDERS[name]
    for steps in numbers:
        start = START * schedule.t_max
        times = time_grids.GRIDS[grid](schedule, steps, start=start)
        implicit = name not in ("euler", "heun")
        table = Plan(name, grid=times, boot=implicit).table(bridge)
        _, states = samplers.integrate(
            denoise_fn,
            jnp.asarray(x_T)[:, None, None],
            table,
            lambda _: jnp.asarray(noise)[:, None, None],
            keep_path=True,
        )
        # Implicit samplers come to `start` by their first row, the others begin there at x_T.
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
    """At 40 steps, order 3 on the grid even in lambda beats itself on the others."""
    with jax.enable_x64(True):
        errors = {}
        for grid in time_grids.GRIDS:
            with pytest.MonkeyPatch.context() as patch:
                patch.setitem(ORDERS, "multistep3", (3, grid, (40,)))
                errors[grid] = _errors("multistep3", schedule)[0]
    assert errors["lambda"] < 0.5 * min(v for name, v in errors.items() if name != "lambda"), errors
