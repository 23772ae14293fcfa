"""Time grids for samplers: falling arrays of times that end with 0; float64, on the host.

Each function spreads `steps` times from `start` down to t_min, in its own measure, and appends 0: a
grid has `steps` intervals. `start` is T for the implicit and multistep samplers, and a little below
T for those that evaluate drifts, which diverge at T itself unless the end is free.
"""

from collections.abc import Callable

import numpy as np

from dbae_jax.bridge.marginals import has_gaussian_endpoint, lambda_of
from dbae_jax.bridge.schedules import Schedule

# The authors start this far below T, whatever the schedule.
DISTANCE_TO_END = 1e-4


def karras(schedule: Schedule, steps: int, *, start: float, rho: float = 7.0) -> np.ndarray:
    """Returns t_i = (hi + i/(N-1) (lo - hi))^rho for i < N = steps, then 0.

    hi = start^(1/rho), lo = t_min^(1/rho); rho > 1 crowds the times near 0.

    Args:
      schedule: gives t_min and T.
      steps: N, 2 or more.
      start: first time, in (t_min, T].
      rho: positive; 1 is the uniform grid.

    Returns:
      [steps + 1], float64.

    Raises:
      ValueError: for too few steps, a start off the schedule or rho not positive.

    Source: EDM (Karras et al., 2022), eq. (5), as the authors of DBAE use it.
    """
    _check(schedule, steps, start, rho)
    high, low = start ** (1 / rho), schedule.t_min ** (1 / rho)
    return _closed(high + np.linspace(0, 1, steps) * (low - high), lambda v: v**rho, start)


def uniform(schedule: Schedule, steps: int, *, start: float, rho: float = 7.0) -> np.ndarray:
    """Returns equal intervals of t; takes and raises what `karras` does, `rho` has no effect."""
    _check(schedule, steps, start, rho)
    return _closed(np.linspace(start, schedule.t_min, steps), lambda v: v, start)


def power(schedule: Schedule, steps: int, *, start: float, rho: float = 7.0) -> np.ndarray:
    """Returns t_min + (start - t_min) (1 - i/(N-1))^rho, then 0: as `karras`, crowding by t itself.

    Takes and raises what `karras` does.
    """
    _check(schedule, steps, start, rho)
    span = start - schedule.t_min
    if span * (1 / (steps - 1)) ** rho < 1e-14 * schedule.t_min:
        raise ValueError(f"steps={steps}, rho={rho}: the last times coincide; take a smaller rho.")
    return _closed(np.linspace(1, 0, steps), lambda v: schedule.t_min + span * v**rho, start)


def uniform_lambda(schedule: Schedule, steps: int, *, start: float, rho: float = 7.0) -> np.ndarray:
    """Returns equal intervals of lambda = log(B / sqrt(C)), in which multistep samplers think.

    From T, where lambda is infinite, the first interval goes to where equal intervals begin:
    `START_SHARE` T; a free end has a finite lambda, and they begin at T. Takes and raises what
    `karras` does; `rho` has no effect.
    """
    _check(schedule, steps, start, rho)
    at_end = start == schedule.t_max and not has_gaussian_endpoint(schedule)
    if steps - at_end < 2:
        return np.array([start, schedule.t_min, 0.0])
    first = START_SHARE * start if at_end else start
    ends = lambda_of(schedule, np.array([first, schedule.t_min]))
    places = np.linspace(*ends, steps - at_end)[1:-1]
    inner = invert_falling(lambda t: lambda_of(schedule, t), places, schedule.t_min, first)
    return np.array([*[start] * at_end, first, *inner, schedule.t_min, 0.0])


# Measured on trained digits models: docs/samplers.md.
START_SHARE = 0.9

GRIDS: dict[str, Callable[..., np.ndarray]] = {
    "karras": karras,
    "uniform": uniform,
    "power": power,
    "lambda": uniform_lambda,
}


def _check(schedule: Schedule, steps: int, start: float, rho: float) -> None:
    if steps < 2:
        raise ValueError(f"steps={steps}: a time grid needs at least 2 steps.")
    if not rho > 0:
        raise ValueError(f"rho={rho}: must be positive.")
    if not schedule.t_min < start <= schedule.t_max:
        raise ValueError(f"start={start}: must be in ({schedule.t_min:g}, {schedule.t_max:g}].")


def _closed(values: np.ndarray, to_time: Callable, start: float) -> np.ndarray:
    times = np.append(to_time(values), 0.0)
    times[0] = start  # exactly: roots and powers need not come back to it
    return times


def invert_falling(fn: Callable, value: np.ndarray, low: float, high: float) -> np.ndarray:
    """Returns t with fn(t) = value, for fn that falls over [low, high], by bisection.

    value: of any shape, within fn's range.
    """
    low, high = np.full_like(value, low), np.full_like(value, high)
    for _ in range(100):
        middle = (low + high) / 2
        above = fn(middle) > value
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return (low + high) / 2
