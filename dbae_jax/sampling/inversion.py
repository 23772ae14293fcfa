"""Gaussian x_T (DiffAE): its scale, and DDIM inversion, which infers it from an image."""

import numpy as np

from dbae_jax.bridge.preconditioning import Bridge
from dbae_jax.bridge.schedules import Schedule
from dbae_jax.errors import DataError
from dbae_jax.sampling import grids
from dbae_jax.sampling.tables import Table, inversion_table

INVERSION_STEPS = 100  # network evaluations, where nothing else is asked for


def end_scale(schedule: Schedule) -> float:
    """Returns s_T, the std of a free x_T."""
    return float(np.sqrt(schedule.variance(np.float64(schedule.t_max))))


def initial_state(x_0: np.ndarray, schedule: Schedule) -> np.ndarray:
    """Returns the state at t_min, a x_0: the ODE moves it by less than the noise there, s^2."""
    return (schedule.alpha(np.float64(schedule.t_min)) * x_0).astype(x_0.dtype)


def inversion(bridge: Bridge, steps: int, grid: str) -> Table:
    """Tabulates DDIM from t_min up to T in `steps` evaluations, on a grid of `time_grids.GRIDS`.

    Raises:
      DataError: for an unknown grid or too few steps.
    """
    if grid not in grids.GRIDS:
        names = ", ".join(grids.GRIDS)
        raise DataError(f"grid={grid!r} is not allowed: it must be one of {names}.")
    if steps < 2:
        raise DataError(f"steps={steps}: inferring x_T takes at least 2.")
    times = grids.GRIDS[grid](bridge.schedule, steps + 1, start=bridge.schedule.t_max)
    return inversion_table(bridge, times[-2::-1])  # all but 0, where there is no noise to infer
