"""Time grids for samplers: falling arrays of times, float64, on the host."""

import numpy as np

# The authors start this far below T, whatever the schedule: h diverges at T itself.
DISTANCE_TO_END = 1e-4


def karras(t_min: float, t_max: float, steps: int, rho: float = 7.0) -> np.ndarray:
    """Returns t_i = (hi + i/(N-1) (lo - hi))^rho for i < N = steps, then 0.

    hi = (t_max - 1e-4)^(1/rho), lo = t_min^(1/rho); rho > 1 crowds the times near 0.

    Returns:
      [steps + 1], float64.

    Raises:
      ValueError: for fewer than two steps, or rho not positive.

    Source: EDM (Karras et al., 2022), eq. (5), as the authors of DBAE use it.
    """
    if steps < 2:
        raise ValueError(f"steps={steps}: a time grid needs at least 2 steps.")
    if rho <= 0:
        raise ValueError(f"rho={rho}: must be positive.")
    high, low = (t_max - DISTANCE_TO_END) ** (1 / rho), t_min ** (1 / rho)
    times = (high + np.arange(steps) / (steps - 1) * (low - high)) ** rho
    return np.append(times, 0.0)
