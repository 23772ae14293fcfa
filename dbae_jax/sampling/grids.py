"""Time grids (time discretizations) for samplers: float64 arrays of times that fall to 0.

`GRIDS` names them: "karras", "uniform", "power", "lambda" and "near_end". Each function but the
last places `steps` times from `start` down to t_min, evenly in its own variable, and appends 0. A
grid therefore has `steps` intervals. All grids are computed on the host.

`start` is T for dbim, consistency and the multistep samplers. Euler and Heun evaluate drifts, which
diverge at T for a decoded x_T, so their grids start `DISTANCE_TO_END` below T. For a Gaussian x_T
(DiffAE) all grids start at T.
"""

from collections.abc import Callable

import numpy as np

from dbae_jax.bridge.marginals import has_gaussian_endpoint, lambda_of
from dbae_jax.bridge.schedules import Schedule

# T minus the first time of Euler and Heun grids. The authors use this value for VP and for VE.
DISTANCE_TO_END = 1e-4


def karras(schedule: Schedule, steps: int, *, start: float, rho: float = 7.0) -> np.ndarray:
    """Returns t_i = (hi + i/(N-1) (lo - hi))^rho for i < N = steps, then 0.

    hi = start^(1/rho), lo = t_min^(1/rho). A larger rho places more of the times near 0.

    Args:
      schedule: the noise schedule; its t_min and T bound the grid.
      steps: number of intervals N, 2 or more.
      start: first time, in (t_min, T].
      rho: exponent, positive; 1 gives the uniform grid.

    Returns:
      [steps + 1], float64.

    Raises:
      ValueError: if steps is below 2, start is not in (t_min, T], or rho is not positive.

    Source: EDM (Karras et al., 2022), eq. (5), as the authors of DBAE use it.
    """
    _check(schedule, steps, start, rho)
    high, low = start ** (1 / rho), schedule.t_min ** (1 / rho)
    return _grid_from(high + np.linspace(0, 1, steps) * (low - high), lambda v: v**rho, start)


def uniform(schedule: Schedule, steps: int, *, start: float, rho: float = 7.0) -> np.ndarray:
    """Returns times with equal intervals from start to t_min, then 0: [steps + 1].

    The arguments and errors are those of `karras`; `rho` has no effect.
    """
    _check(schedule, steps, start, rho)
    return _grid_from(np.linspace(start, schedule.t_min, steps), lambda v: v, start)


def power(schedule: Schedule, steps: int, *, start: float, rho: float = 7.0) -> np.ndarray:
    """Returns t_i = t_min + (start - t_min) (1 - i/(N-1))^rho, then 0: [steps + 1].

    A larger rho places more of the times near t_min, as in `karras`. The arguments and errors are
    those of `karras`. A ValueError is also raised if rho is so large that the last times coincide.
    """
    _check(schedule, steps, start, rho)
    span = start - schedule.t_min
    if span * (1 / (steps - 1)) ** rho < 1e-14 * schedule.t_min:
        raise ValueError(
            f"the last times of the grid power coincide for steps={steps} and rho={rho}; take a "
            "smaller rho."
        )
    return _grid_from(np.linspace(1, 0, steps), lambda v: schedule.t_min + span * v**rho, start)


def uniform_lambda(schedule: Schedule, steps: int, *, start: float, rho: float = 7.0) -> np.ndarray:
    """Returns times with equal intervals of lambda = log(B / sqrt(C)), then 0: [steps + 1].

    Multistep samplers integrate over lambda. For a decoded x_T, lambda is infinite at T: the first
    interval then goes from T to `START_FRACTION` T, and equal intervals follow; with 2 steps the
    grid is [T, t_min, 0]. For a Gaussian x_T, lambda is finite at T, and all intervals down to
    t_min are equal.

    The arguments and errors are those of `karras`; `rho` has no effect.
    """
    _check(schedule, steps, start, rho)
    starts_at_infinity = start == schedule.t_max and not has_gaussian_endpoint(schedule)
    if steps - starts_at_infinity < 2:
        return np.array([start, schedule.t_min, 0.0])
    first = START_FRACTION * start if starts_at_infinity else start
    low, high = lambda_of(schedule, np.array([first, schedule.t_min]))
    lambdas = np.linspace(low, high, steps - starts_at_infinity)[1:-1]
    inner = invert_falling(lambda t: lambda_of(schedule, t), lambdas, schedule.t_min, first)
    return np.array([*[start] * starts_at_infinity, first, *inner, schedule.t_min, 0.0])


def near_end(schedule: Schedule, steps: int, *, start: float, rho: float = 7.0) -> np.ndarray:
    """Returns start, then equal intervals from `NOISE_FRACTION` start to 0: [steps + 1].

    It is the grid of the consistency sampler: noise enters where little of the image is decided
    yet. `rho` has no effect, and the other arguments and errors are those of `karras`.

    Source: CDBM (He et al., 2024), which begins at 0.999 T. There the noise is a few hundredths of
    x_T, and a network that is trained for minutes cannot tell it apart.
    """
    _check(schedule, steps, start, rho)
    return np.append(start, np.linspace(NOISE_FRACTION * start, 0, steps))


# The first time at which the consistency sampler adds noise, as a fraction of T. Measured on
# distilled models of emoji and shapes: docs/results/emoji.md.
NOISE_FRACTION = 0.85

# The second time of the lambda grid of a decoded x_T, as a fraction of T. Measured on trained
# digits models: docs/results/samplers.md.
START_FRACTION = 0.9

GRIDS: dict[str, Callable[..., np.ndarray]] = {
    "karras": karras,
    "uniform": uniform,
    "power": power,
    "lambda": uniform_lambda,
    "near_end": near_end,
}


def _check(schedule: Schedule, steps: int, start: float, rho: float) -> None:
    if steps < 2:
        raise ValueError(f"steps={steps}: a time grid needs at least 2 steps.")
    if not rho > 0:
        raise ValueError(f"rho={rho}: must be positive.")
    if not schedule.t_min < start <= schedule.t_max:
        raise ValueError(f"start={start}: must be in ({schedule.t_min:g}, {schedule.t_max:g}].")


def _grid_from(
    values: np.ndarray, to_time: Callable[[np.ndarray], np.ndarray], start: float
) -> np.ndarray:
    """Returns the times of the values, then 0; the first time is exactly `start`."""
    times = np.append(to_time(values), 0.0)
    times[0] = start  # start^(1/rho)^rho differs from start by rounding
    return times


def invert_falling(
    fn: Callable[[np.ndarray], np.ndarray], value: np.ndarray, low: float, high: float
) -> np.ndarray:
    """Returns t with fn(t) = value by bisection, for a function that falls over [low, high].

    Args:
      fn: elementwise function of times.
      value: values within the range of fn, of any shape.
      low: lower bound of t.
      high: upper bound of t.

    Returns:
      Times, of the shape of `value`.
    """
    lower, upper = np.full_like(value, low), np.full_like(value, high)
    for _ in range(100):
        middle = (lower + upper) / 2
        above = fn(middle) > value
        lower, upper = np.where(above, middle, lower), np.where(above, upper, middle)
    return (lower + upper) / 2
