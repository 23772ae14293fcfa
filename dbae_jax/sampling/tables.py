"""Each sampler as a table of coefficients: Euler, Heun, DBIM, multistep, consistency, inversion.

A sampler is a sequence of network evaluations. Each evaluation changes the state linearly in the
state x, in x_T, in the denoised images D (the current one and up to two earlier ones) and in new
noise. The coefficients depend only on the time grid, and are computed in float64 on the host.
`integrate.integrate` runs any table as one loop. One row is one network evaluation, so the number
of rows is the NFE.

To add a sampler, write a function (bridge, times, options) -> `Table`: it builds one dict per row
(the keys are "t" and column names of `Table`) and passes the list of rows to `_table_from`. Then
name the function in `plan.SAMPLERS`.

The terms in x and x_T have the form w_x (x - x_T) + w_xT x_T. Near T, w_x of the ODE diverges like
1 / (T - t) while x - x_T vanishes; in this form no large terms cancel.

Letters: s -> t is a step down in time. A, B, C are the coefficients of the bridge marginal (C is a
variance). k is the factor of x_s in x_t. lambda_t = log(B_t / sqrt(C_t)).

Sources: DBAE, algorithm 2; DDBM (Zhou et al., 2024), algorithm 1, for Heun with churn; DBIM (Zheng
et al., 2025) for the implicit samplers, derived here from the marginals of `bridge`.
"""

import itertools
from typing import Any, NamedTuple

import jax
import numpy as np

from dbae_jax.bridge.marginals import has_gaussian_endpoint, lambda_of, marginal_coefficients
from dbae_jax.bridge.preconditioning import At, Bridge
from dbae_jax.bridge.schedules import Scalar, Schedule


class Table(NamedTuple):
    """The coefficients of a sampler: one row per network evaluation, columns of shape [NFE].

    A row evaluates the denoiser D at x and `at`, and updates the state:
      move = w_x (x - x_T) + w_xT x_T + w_D D + w_D1 D_1 + w_D2 D_2
      x' = (saved if from_saved else x) + move + w_noise eps
      saved' = x + move / 2
    D_1 and D_2 are the denoised images one and two rows earlier. A Heun step is two rows. The
    first row is a full Euler step, and saves the state after half of this step. The second row
    adds half a step, with the slope at the end of the interval, to the saved state. Columns that a
    sampler does not use are None.
    """

    at: At  # the time at which D is evaluated, and the scalings at that time
    w_x: np.ndarray
    w_xT: np.ndarray
    w_D: np.ndarray
    on_path: np.ndarray  # bool: whether the state after this row belongs to the trajectory
    w_D1: np.ndarray | None = None
    w_D2: np.ndarray | None = None
    from_saved: np.ndarray | None = None  # bool: whether the row starts from the saved state
    w_noise: np.ndarray | None = None
    noise_index: np.ndarray | None = None  # index of the noise eps, from 0

    @property
    def nfe(self) -> int:
        """Number of network evaluations."""
        return len(self.on_path)

    @property
    def path_times(self) -> np.ndarray:
        """Times of the states on the trajectory, [S]: the first time, then one per path row.

        The last row must end at t = 0, which that of `inversion_table` does not.
        """
        times_after = np.append(self.at.t[1:], 0.0)
        return np.append(self.at.t[0], times_after[self.on_path])


def of_one_form(table: Table, length: int) -> Table:
    """Returns the table with all columns, and with rows of zeros up to a length.

    Tables of one length then have the same form, whatever their sampler and number of steps, and
    run as one compiled program. Only the first `table.nfe` rows may be run, so `nfe` and
    `path_times` of the result mean nothing.

    Args:
      table: coefficients of a sampler.
      length: number of rows of the result, at least `table.nfe`.
    """
    weights, flags = np.zeros(table.nfe), np.zeros(table.nfe, bool)
    others: dict[str, Any] = {"w_D1": weights, "w_D2": weights, "from_saved": flags}
    others |= {"w_noise": weights, "noise_index": np.zeros(table.nfe, int)}
    missing = {name: zeros for name, zeros in others.items() if getattr(table, name) is None}
    return jax.tree.map(
        lambda column: np.pad(column, (0, length - table.nfe)), table._replace(**missing)
    )


def euler_table(bridge: Bridge, times: np.ndarray, *, churn: float = 0.0) -> Table:
    """Returns the table of the Euler sampler: N evaluations, or 2 N with churn.

    Args:
      bridge: schedule and scalings.
      times: time grid [N + 1], falling from below T to 0. For a Gaussian x_T the grid starts
        at T; if it does not, it is extended to T, which costs one more step.
      churn: fraction, in [0, 1), of every interval integrated with the reverse SDE. The ODE is
        then integrated from there to the end of the interval.

    Raises:
      ValueError: for a bad grid or churn.
    """
    rows, schedule = [], bridge.schedule
    for i, (start, end) in enumerate(_intervals(schedule, times, start_at_T=False)):
        start, churned = _churn_rows(schedule, start, end, churn, i)
        rows += [*churned, _ode_row(schedule, start, end - start)]
    return _table_from(bridge, rows)


def heun_table(bridge: Bridge, times: np.ndarray, *, churn: float = 0.0) -> Table:
    """Returns the table of Heun's sampler: 2 N - 1 evaluations, or 3 N - 1 with churn.

    The last step, to t = 0, is an Euler step. The arguments and errors are those of `euler_table`.
    """
    rows, schedule = [], bridge.schedule
    for i, (start, end) in enumerate(_intervals(schedule, times, start_at_T=False)):
        start, churned = _churn_rows(schedule, start, end, churn, i)
        rows += churned
        full = _ode_row(schedule, start, end - start)
        if end == 0:
            rows.append(full)
        else:
            half = _ode_row(schedule, end, (end - start) / 2)
            rows += [full | {"on_path": False}, half | {"from_saved": True}]
    return _table_from(bridge, rows)


def dbim_table(bridge: Bridge, times: np.ndarray, *, eta: float = 0.0, boot: bool = False) -> Table:
    """Returns the table of the diffusion bridge implicit model (DBIM): N evaluations.

    Each step keeps the trained marginals:
    x_t = k x_s + (B_t - k B_s) D + (A_t - k A_s) x_T + w eps,
    k = sqrt(C_t - w^2) / sqrt(C_s), w = eta s_t sqrt(1 - SNR_s / SNR_t).

    Args:
      bridge: schedule and scalings.
      times: time grid [N + 1], falling to 0. A grid that starts below T is extended to T, which
        costs one more evaluation.
      eta: amount of noise, in [0, 1]. With 0 the steps are deterministic. With 1 the sampler is a
        Markov bridge: its steps below T have no term in x_T.
      boot: whether the first step, from T to t, draws the noise of the marginal, sqrt(C_t) eps
        (DBIM's "booting noise"). Without it this noise is 0.

    Raises:
      ValueError: for a bad grid or eta, or boot with a Gaussian x_T.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta={eta}: must be in [0, 1].")
    schedule = bridge.schedule
    rows, intervals = _rows_from_T(schedule, times, boot=boot)
    for index, (start, end) in enumerate(intervals, start=len(rows)):
        rows.append(_implicit_row(schedule, start, end, eta, index))
    return _table_from(bridge, rows)


def multistep_table(bridge: Bridge, times: np.ndarray, *, order: int, boot: bool = False) -> Table:
    """Returns the table of the multistep sampler: N evaluations.

    The probability-flow ODE is exact in x and x_T; what remains is an integral of D over lambda:
    x_t = sqrt(C_t/C_s) x_s + (A_t - A_s sqrt(C_t/C_s)) x_T
      + B_t [(1 - e^-h) D + (e^-h + h - 1) D' + (h^2/2 - h + 1 - e^-h) D''],
    h = lambda_t - lambda_s. The derivatives D', D'' over lambda come from earlier evaluations.
    Order 1 drops both. Order 2 uses one earlier D and has D' (D is linear in lambda). Order 3 uses
    two earlier D and has both (D is quadratic in lambda).

    The first interval below T has order 1, and the second has order 2 at most. The last interval
    ends at t = 0, where lambda is infinite: it has order 1, which means x_0 = D.

    Args:
      bridge: schedule and scalings.
      times: time grid, as in `dbim_table`.
      order: 1 (the same as DBIM with eta = 0), 2 or 3.
      boot: whether to draw the booting noise, as in `dbim_table`.

    Raises:
      ValueError: for a bad grid or order, or boot with a Gaussian x_T.
    """
    if order not in (1, 2, 3):
        raise ValueError(f"order={order}: must be 1, 2 or 3.")
    schedule = bridge.schedule
    rows, intervals = _rows_from_T(schedule, times, boot=boot)
    times_of_D: list[Scalar] = []
    for start, end in intervals:
        times_of_D = [start, *times_of_D][: order if end > 0 else 1]
        rows.append(_multistep_row(schedule, times_of_D, end))
    return _table_from(bridge, rows)


def consistency_table(bridge: Bridge, times: np.ndarray) -> Table:
    """Returns the table of the sampler of consistency models: N evaluations, noise between them.

    Each evaluation takes the denoised image D for x_0, and noises it again: the next state is a
    sample of the bridge marginal of D, A_t x_T + B_t D + sqrt(C_t) eps. The last one is D.

    Args:
      bridge: schedule and scalings.
      times: time grid, as in `dbim_table`.

    Raises:
      ValueError: for a bad grid, or a Gaussian x_T.

    Source: CDBM (He et al., 2024), for the bridge; consistency models (Song et al., 2023).
    """
    schedule = bridge.schedule
    if has_gaussian_endpoint(schedule):
        raise ValueError(
            "the sampler consistency needs an x_T that is decoded from z, and x_T of this model is "
            "Gaussian; use dbim, euler or heun."
        )
    rows = []
    for index, (start, end) in enumerate(_intervals(schedule, times, start_at_T=True)):
        A, B, C = marginal_coefficients(schedule, end)
        row = {"t": np.float64(start), "w_x": -1.0, "w_xT": A - 1, "w_D": B}
        if end > 0:
            row |= {"w_noise": np.sqrt(C), "noise_index": index}
        rows.append(row)
    return _table_from(bridge, rows)


def inversion_table(bridge: Bridge, times: np.ndarray) -> Table:
    """Returns the table of DDIM inversion, from the state at times[0] to x_T: N evaluations.

    Each step is a step of `dbim_table` with eta = 0, in rising time. Sampling from the inferred x_T
    therefore returns to the image, up to an error of first order in the length of the steps.

    Args:
      bridge: schedule and scalings of a model with a Gaussian x_T.
      times: times [N + 1] in (0, T], rising to T.

    Raises:
      ValueError: for a bad grid, or a bridge to a decoded x_T.

    Source: DDIM (Song et al., 2021), section 4.3; DiffAE (Preechakul et al., 2022), eq. (8).
    """
    schedule, times = bridge.schedule, np.asarray(times, np.float64)
    if not has_gaussian_endpoint(schedule):
        raise ValueError("inversion needs a Gaussian x_T; this bridge is fixed to a decoded x_T.")
    rising = times.ndim == 1 and len(times) >= 2 and (np.diff(times) > 0).all()
    if not (rising and times[0] > 0 and times[-1] == schedule.t_max):
        raise ValueError(f"times must rise from above 0 to T = {schedule.t_max:g}, got {times}.")
    steps = itertools.pairwise(times)
    return _table_from(bridge, [_multistep_row(schedule, [s], t) for s, t in steps])


def _rows_from_T(
    schedule: Schedule, times: np.ndarray, *, boot: bool
) -> tuple[list[dict], list[tuple[Scalar, Scalar]]]:
    """Returns the special first row, which starts at T, and the intervals after it.

    For a Gaussian x_T, C_T > 0: no step is special, and all intervals are returned.
    """
    intervals = _intervals(schedule, times, start_at_T=True)
    if not has_gaussian_endpoint(schedule):
        return [_first_row(schedule, intervals[0][1], boot=boot)], intervals[1:]
    if boot:
        raise ValueError("boot=True: a Gaussian x_T is noise already; boot needs a decoded x_T.")
    return [], intervals


def _intervals(
    schedule: Schedule, times: np.ndarray, *, start_at_T: bool
) -> list[tuple[Scalar, Scalar]]:
    """Checks a grid and returns its intervals (s, t).

    `start_at_T` extends the grid to T. A Gaussian x_T always does so.
    """
    times, T = np.asarray(times, np.float64), schedule.t_max
    start_at_T = start_at_T or has_gaussian_endpoint(schedule)
    fewest = 1 if start_at_T else 2  # the drift at T would take the state anywhere
    if times.ndim != 1 or len(times) < fewest + 1:
        raise ValueError(
            f"a grid is one array of at least {fewest + 1} times, so at least {fewest} steps are "
            f"needed, got the shape {list(times.shape)}."
        )
    falling = np.diff(times) < 0  # False for NaN too
    if not falling.all():
        at = int(np.argmin(falling))
        raise ValueError(f"times must fall strictly, got {times[at]:g} and then {times[at + 1]:g}.")
    if times[-1] != 0:
        raise ValueError(f"times must fall to 0, got {times[-1]:g} as the last time.")
    if times[0] > T or (times[0] == T and not start_at_T):
        at_or = "at or " * start_at_T
        raise ValueError(f"times must start {at_or}below T = {T:g}, got {times[0]}.")
    if start_at_T and times[0] < T:
        times = np.insert(times, 0, T)
    return list(itertools.pairwise(times))


def _first_row(schedule: Schedule, t: Scalar, *, boot: bool) -> dict:
    """Returns the step from x = x_T at T, where C_T = 0, to A_t x_T + B_t D [+ sqrt(C_t) eps]."""
    A, B, C = marginal_coefficients(schedule, t)
    row = {"t": np.float64(schedule.t_max), "w_x": 0.0, "w_xT": A - 1, "w_D": B}
    return row | ({"w_noise": np.sqrt(C), "noise_index": 0} if boot else {})


def _implicit_row(schedule: Schedule, s: Scalar, t: Scalar, eta: float, noise_index: int) -> dict:
    """Returns the step of `dbim_table` from s to t."""
    A_s, B_s, C_s = marginal_coefficients(schedule, s)
    A_t, B_t, C_t = marginal_coefficients(schedule, t)
    a_ratio = schedule.alpha(s) / schedule.alpha(t)
    snr_ratio = a_ratio**2 * schedule.variance(t) / schedule.variance(s)  # SNR_s / SNR_t
    w = eta * np.sqrt(schedule.variance(t) * (1 - snr_ratio))
    k = np.sqrt(max(C_t - w**2, 0.0) / C_s)
    row = _terms_of_x_and_x_T(k, A_s, A_t) | {"t": s, "w_D": B_t - k * B_s}
    return row | ({"w_noise": w, "noise_index": noise_index} if w > 0 else {})


def _multistep_row(schedule: Schedule, times_of_D: list[Scalar], t: Scalar) -> dict:
    """Returns the step from times_of_D[0] to t; D is known at `times_of_D`, the latest first."""
    s = times_of_D[0]
    A_s, _, C_s = marginal_coefficients(schedule, s)
    A_t, B_t, C_t = marginal_coefficients(schedule, t)
    row = _terms_of_x_and_x_T(np.sqrt(C_t / C_s), A_s, A_t) | {"t": s}
    if t == 0:
        return row | {"w_D": B_t}
    lambdas = [lambda_of(schedule, time) for time in times_of_D]
    h = lambda_of(schedule, t) - lambdas[0]
    e = -np.expm1(-h)  # 1 - e^-h
    integrals = B_t * np.array([e, h - e, h**2 / 2 - h + e])  # of D, D', D'' over the step
    weights = integrals[: len(lambdas)] @ _derivative_matrix(np.array(lambdas))
    return row | dict(zip(("w_D", "w_D1", "w_D2"), weights, strict=False))


def _derivative_matrix(points: np.ndarray) -> np.ndarray:
    """Returns the matrix [n, n] from values at n <= 3 points to derivatives at the first point.

    Row i gives the i-th derivative of the polynomial through the values.
    """
    powers = (points - points[0])[:, None] ** np.arange(len(points))
    factorials = np.array([1.0, 1.0, 2.0])[: len(points)]
    return factorials[:, None] * np.linalg.inv(powers)


def _terms_of_x_and_x_T(k: Scalar, A_s: Scalar, A_t: Scalar) -> dict:
    """Returns w_x and w_xT of a step to k x + (A_t - k A_s) x_T + ..."""
    return {"w_x": k - 1, "w_xT": k - 1 + A_t - k * A_s}


def _ode_row(schedule: Schedule, t: Scalar, dt: Scalar) -> dict:
    """Returns dt times the drift of the probability-flow ODE, by terms in x - x_T, x_T and D."""
    t = np.float64(t)
    A, B, C = marginal_coefficients(schedule, t)
    half = schedule.diffusion_squared(t) / (2 * C)
    x_drift = schedule.drift(t) + half * (1 - 2 * schedule.snr_ratio(t))
    return {"t": t, "w_x": dt * x_drift, "w_xT": dt * (x_drift + half * A), "w_D": -dt * half * B}


def _sde_row(schedule: Schedule, t: Scalar, dt: Scalar, noise_index: int) -> dict:
    """Returns an Euler-Maruyama step of the reverse SDE, whose drift has no term in x_T."""
    t = np.float64(t)
    g2, variance = schedule.diffusion_squared(t), schedule.variance(t)
    x_drift = schedule.drift(t) + g2 / variance
    return {
        "t": t,
        "w_x": dt * x_drift,
        "w_xT": dt * x_drift,
        "w_D": -dt * g2 * schedule.alpha(t) / variance,
        "w_noise": np.sqrt(g2 * abs(dt)),
        "noise_index": noise_index,
    }


def _churn_rows(
    schedule: Schedule, start: float, end: float, churn: float, index: int
) -> tuple[float, list[dict]]:
    """Returns the time at which the ODE step starts, and the row of the SDE step before it."""
    if not 0 <= churn < 1:
        raise ValueError(f"churn={churn}: must be in [0, 1).")
    if churn == 0:
        return start, []
    middle = start + churn * (end - start)
    return middle, [_sde_row(schedule, start, middle - start, index)]


def _table_from(bridge: Bridge, rows: list[dict]) -> Table:
    """Returns the table of the rows; a column that no row names stays None."""
    defaults = {"on_path": True, "w_D1": 0.0, "w_D2": 0.0, "from_saved": False}
    defaults |= {"w_noise": 0.0, "noise_index": 0}
    used = set().union(*rows) | {"on_path"}
    columns = {
        name: np.array([(defaults | row)[name] for row in rows])
        for name in Table._fields
        if name in used
    }
    with np.errstate(divide="ignore", invalid="ignore"):
        at = bridge.at(np.array([row["t"] for row in rows]))
    if not np.isfinite(at).all():
        raise ValueError(
            "The scalings of the U-Net are not finite at T, because config.bridge.endpoint_std is "
            "0, or config.bridge.covariance is as large as data_std * endpoint_std. Use the "
            "sampler euler or heun; the others start at T."
        )
    return Table(at=at, **columns)
