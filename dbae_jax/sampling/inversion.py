"""Gaussian x_T (DiffAE): its standard deviation, and DDIM inversion, which infers x_T from x_0."""

import numpy as np

from dbae_jax.bridge.preconditioning import Bridge
from dbae_jax.bridge.schedules import Schedule
from dbae_jax.errors import DataError
from dbae_jax.sampling import grids
from dbae_jax.sampling.tables import Table, inversion_table

INVERSION_STEPS = 100  # default number of network evaluations


def end_scale(schedule: Schedule) -> float:
    """Returns s_T, the standard deviation of a Gaussian x_T."""
    return float(np.sqrt(schedule.variance(np.asarray(schedule.t_max))))


def initial_state(x_0: np.ndarray, schedule: Schedule) -> np.ndarray:
    """Returns a_t x_0 at t = t_min, the state at which inversion starts: [B, H, W, C].

    Between 0 and t_min the ODE changes the state by less than the noise level at t_min.

    Args:
      x_0: images [B, H, W, C], in [-1, 1].
      schedule: the noise schedule of the model.
    """
    return (schedule.alpha(np.asarray(schedule.t_min)) * x_0).astype(x_0.dtype)


def inversion(bridge: Bridge, steps: int, grid: str) -> Table:
    """Returns the table of DDIM inversion, from t_min up to T.

    Args:
      bridge: schedule and scalings of a model with a Gaussian x_T.
      steps: number of network evaluations, 2 or more.
      grid: name of a time grid, one of `grids.GRIDS`.

    Raises:
      DataError: for an unknown grid or too few steps.
      ValueError: if x_T is decoded from z.
    """
    if grid not in grids.GRIDS:
        names = ", ".join(grids.GRIDS)
        raise DataError(f"grid={grid!r} is not allowed: it must be one of {names}.")
    if steps < 2:
        raise DataError(f"steps={steps} is not allowed: inferring x_T takes at least 2 steps.")
    times = grids.GRIDS[grid](bridge.schedule, steps + 1, start=bridge.schedule.t_max)
    return inversion_table(bridge, times[-2::-1])  # rising, without t = 0
