"""Samplers as tables: coefficients of every step, in float64 on the host.

Every sampler is a list of network evaluations, and what each does to the state is linear in x, x_T,
the denoised images D (this one and up to two before) and fresh noise. The coefficients depend on
the time grid alone; `samplers.integrate` runs any table as one scan. A row is one network
evaluation, so the number of rows is the NFE.

The terms in x and x_T are written as w_x (x - x_T) + w_xT x_T: near T, w_x of the ODE diverges like
1 / (T - t) while x - x_T vanishes, and this form does not cancel.

Letters: s -> t, a step down in time; A, B, C of the bridge marginal (C a variance); k the share of
the noise of x_s that x_t keeps; lambda_t = log(B_t / sqrt(C_t)).

Sources: DBAE, algorithm 2; DDBM (Zhou et al., 2024), algorithm 1, for churned Heun; DBIM (Zheng et
al., 2025) for the implicit samplers, derived anew from `bridge`'s marginals.
"""

import itertools
from typing import NamedTuple

import numpy as np

from dbae_jax.bridge.marginals import has_gaussian_endpoint, lambda_of, marginal_coefficients
from dbae_jax.bridge.preconditioning import At, Bridge
from dbae_jax.bridge.schedules import Schedule


class Table(NamedTuple):
    """A sampler, unrolled: one row a network evaluation, arrays of shape [NFE].

    A row evaluates D at x and `at`, and moves the state,
      move = w_x (x - x_T) + w_xT x_T + w_D D + w_D1 D_before + w_D2 D_before_that
      x' = (saved if from_saved else x) + move + w_noise eps
      saved' = x + move / 2
    A Heun step is two rows: the full Euler step, which also saves the half step, and half a step
    with the slope at its end, added to the saved one. Columns that a sampler does not use are None.
    """

    at: At  # where D is evaluated: the time and the scalings there
    w_x: np.ndarray
    w_xT: np.ndarray
    w_D: np.ndarray
    on_path: np.ndarray  # bool: the state after this row belongs to the trajectory
    w_D1: np.ndarray | None = None
    w_D2: np.ndarray | None = None
    from_saved: np.ndarray | None = None  # bool
    w_noise: np.ndarray | None = None
    noise_index: np.ndarray | None = None  # which noise, counted from 0

    @property
    def nfe(self) -> int:
        """Number of network evaluations."""
        return len(self.on_path)

    @property
    def path_times(self) -> np.ndarray:
        """Times of the states on the trajectory: where it starts, then where each row leads."""
        leads_to = np.append(self.at.t[1:], 0.0)
        return np.append(self.at.t[0], leads_to[self.on_path])


def euler_table(bridge: Bridge, times: np.ndarray, *, churn: float = 0.0) -> Table:
    """Tabulates the Euler sampler: an evaluation an interval, one more with churn.

    Args:
      bridge: schedule and scalings.
      times: [N + 1], falling, below T (from T where x_T is free), the last one 0.
      churn: share in [0, 1) of each interval that the reverse SDE walks first; the ODE then
        walks from there to the interval's end.

    Raises:
      ValueError: for a bad grid or churn.
    """
    rows, schedule = [], bridge.schedule
    for i, (start, end) in enumerate(_intervals(schedule, times, from_end=False)):
        start, churned = _churn_rows(schedule, start, end, churn, i)
        rows += [*churned, _ode_row(schedule, start, end - start)]
    return _stack(bridge, rows)


def heun_table(bridge: Bridge, times: np.ndarray, *, churn: float = 0.0) -> Table:
    """Tabulates Heun's sampler: 2 N - 1 evaluations (the last step, to 0, is Euler's).

    Takes and raises what `euler_table` does; churn adds an evaluation an interval.
    """
    rows, schedule = [], bridge.schedule
    for i, (start, end) in enumerate(_intervals(schedule, times, from_end=False)):
        start, churned = _churn_rows(schedule, start, end, churn, i)
        rows += churned
        full = _ode_row(schedule, start, end - start)
        if end == 0:
            rows.append(full)
        else:
            half = _ode_row(schedule, end, (end - start) / 2)
            rows += [full | {"on_path": False}, half | {"from_saved": True}]
    return _stack(bridge, rows)


def dbim_table(bridge: Bridge, times: np.ndarray, *, eta: float = 0.0, boot: bool = False) -> Table:
    """Tabulates the diffusion bridge implicit model: an evaluation an interval.

    Each step keeps the trained marginals:
    x_t = k x_s + (B_t - k B_s) D + (A_t - k A_s) x_T + w eps.

    Args:
      bridge: schedule and scalings.
      times: [N + 1], falling to 0. From T itself, or from below: then the step from T to
        times[0] comes first and costs one more evaluation.
      eta: in [0, 1]: 0 deterministic; 1 a Markov bridge, in whose steps x_T does not appear.
      boot: draws a noise for the first step, the "booting noise", at whose end the marginal's
        is due; without it that noise is 0.

    Raises:
      ValueError: for a bad grid or eta.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta={eta}: must be in [0, 1].")
    schedule = bridge.schedule
    rows, rest = _begin(schedule, times, boot=boot)
    for index, (start, end) in enumerate(rest, start=len(rows)):
        rows.append(_implicit_row(schedule, start, end, eta, index))
    return _stack(bridge, rows)


def multistep_table(bridge: Bridge, times: np.ndarray, *, order: int, boot: bool = False) -> Table:
    """Tabulates the multistep sampler, exact in x and x_T: an evaluation an interval.

    In lambda the flow is an integral over D alone. Order 2 takes D as linear in lambda from this
    evaluation and the one before, order 3 as quadratic from two before. The first interval below T
    is of order 1, the next at most of order 2; the last one, to 0 where lambda is infinite, of
    order 1, which there means x_0 = D.

    Args:
      bridge: schedule and scalings.
      times: as `dbim_table` takes.
      order: 1 (the same as DBIM with eta = 0), 2 or 3.
      boot: as `dbim_table` takes.

    Raises:
      ValueError: for a bad grid or order.
    """
    if order not in (1, 2, 3):
        raise ValueError(f"order={order}: must be 1, 2 or 3.")
    schedule = bridge.schedule
    rows, rest = _begin(schedule, times, boot=boot)
    before = []
    for start, end in rest:
        before = [start, *before][: order if end > 0 else 1]
        rows.append(_multistep_row(schedule, before, end))
    return _stack(bridge, rows)


def inversion_table(bridge: Bridge, times: np.ndarray) -> Table:
    """Tabulates DDIM backwards: from x at times[0] to x_T, along the ODE; an evaluation a step.

    Each step is that of `dbim_table` with eta = 0, up in time, so that decoding from the x_T found
    leads back, up to an error that vanishes like the steps' length.

    Args:
      bridge: schedule and scalings; x_T must be free.
      times: [N + 1], rising in (0, T], the last one T.

    Raises:
      ValueError: for a bad grid, or a bridge whose end is pinned.

    Source: DDIM (Song et al., 2021), section 4.3; DiffAE (Preechakul et al., 2022), eq. (8).
    """
    schedule, times = bridge.schedule, np.asarray(times, np.float64)
    if not has_gaussian_endpoint(schedule):
        raise ValueError("x_T of a bridge is pinned: there is nothing to infer.")
    rising = times.ndim == 1 and len(times) >= 2 and (np.diff(times) > 0).all()
    if not (rising and times[0] > 0 and times[-1] == schedule.t_max):
        raise ValueError(f"times must rise from above 0 to T = {schedule.t_max:g}, got {times}.")
    steps = itertools.pairwise(times)
    return _stack(bridge, [_multistep_row(schedule, [s], t) for s, t in steps])


def _begin(
    schedule: Schedule, times: np.ndarray, *, boot: bool
) -> tuple[list[dict], list[tuple[np.float64, np.float64]]]:
    """Returns the row of the step from T and the steps after it.

    Where x_T is free, its marginal has width at T already, and all steps are alike.
    """
    intervals = _intervals(schedule, times, from_end=True)
    if not has_gaussian_endpoint(schedule):
        return [_boot_row(schedule, intervals[0][1], boot=boot)], intervals[1:]
    if boot:
        raise ValueError("boot=True: x_T is free and holds the noise that booting would draw.")
    return [], intervals


def _intervals(
    schedule: Schedule, times: np.ndarray, *, from_end: bool
) -> list[tuple[np.float64, np.float64]]:
    """Checks a grid and returns its steps; `from_end` starts them at T, as a free x_T does."""
    times, T = np.asarray(times, np.float64), schedule.t_max
    from_end = from_end or has_gaussian_endpoint(schedule)
    if times.ndim != 1 or len(times) < 3:
        raise ValueError(f"times of shape {list(times.shape)}: a grid needs at least 2 steps.")
    falling = np.diff(times) < 0  # False for NaN too
    if not falling.all():
        at = int(np.argmin(falling))
        raise ValueError(f"times must fall strictly, got {times[at]:g} and then {times[at + 1]:g}.")
    if times[-1] != 0:
        raise ValueError(f"times must fall to 0, got {times[-1]:g} at the end.")
    if times[0] > T or (times[0] == T and not from_end):
        raise ValueError(f"times must start {'at or ' * from_end}below T = {T:g}, got {times[0]}.")
    if from_end and times[0] < T:
        times = np.insert(times, 0, T)
    return list(itertools.pairwise(times))


def _boot_row(schedule: Schedule, t: np.float64, *, boot: bool) -> dict:
    """From x = x_T at T, where the marginal has no width, to its mean (and noise) at t."""
    A, B, C = marginal_coefficients(schedule, t)
    row = {"t": np.float64(schedule.t_max), "w_x": 0.0, "w_xT": A - 1, "w_D": B}
    return row | ({"w_noise": np.sqrt(C), "noise_index": 0} if boot else {})


def _implicit_row(
    schedule: Schedule, s: np.float64, t: np.float64, eta: float, noise_index: int
) -> dict:
    A_s, B_s, C_s = marginal_coefficients(schedule, s)
    A_t, B_t, C_t = marginal_coefficients(schedule, t)
    a_ratio = schedule.alpha(s) / schedule.alpha(t)
    snr_ratio = a_ratio**2 * schedule.variance(t) / schedule.variance(s)  # SNR_s / SNR_t
    w = eta * np.sqrt(schedule.variance(t) * (1 - snr_ratio))
    k = np.sqrt(max(C_t - w**2, 0.0) / C_s)
    row = _kept(k, A_s, A_t) | {"t": s, "w_D": B_t - k * B_s}
    return row | ({"w_noise": w, "noise_index": noise_index} if w > 0 else {})


def _multistep_row(schedule: Schedule, before: list[np.float64], t: np.float64) -> dict:
    """A step from before[0] to t, with D known at the times in `before`, newest first."""
    s = before[0]
    A_s, _, C_s = marginal_coefficients(schedule, s)
    A_t, B_t, C_t = marginal_coefficients(schedule, t)
    row = _kept(np.sqrt(C_t / C_s), A_s, A_t) | {"t": s}
    if t == 0:
        return row | {"w_D": B_t}
    known = [lambda_of(schedule, time) for time in before]
    h = lambda_of(schedule, t) - known[0]
    e = -np.expm1(-h)
    integrals = B_t * np.array([e, h - e, h**2 / 2 - h + e])  # of D, D', D'' over the step
    weights = integrals[: len(known)] @ _derivatives(np.array(known))
    return row | dict(zip(("w_D", "w_D1", "w_D2"), weights, strict=False))


def _derivatives(at: np.ndarray) -> np.ndarray:
    """Returns the matrix from values at points (up to 3) to derivatives 0, 1, ... at the first.

    Of the polynomial through the points: row i gives the i-th derivative.
    """
    powers = (at - at[0])[:, None] ** np.arange(len(at))
    factorials = np.array([1.0, 1.0, 2.0])[: len(at)]
    return factorials[:, None] * np.linalg.inv(powers)


def _kept(k: np.float64, A_s: np.float64, A_t: np.float64) -> dict:
    """Coefficients of k x + (A_t - k A_s) x_T."""
    return {"w_x": k - 1, "w_xT": k - 1 + A_t - k * A_s}


def _ode_row(schedule: Schedule, t: float, dt: float) -> dict:
    """dt times the probability-flow drift, as coefficients of x - x_T, x_T and D."""
    t = np.float64(t)
    A, B, C = marginal_coefficients(schedule, t)
    half = schedule.diffusion_squared(t) / (2 * C)
    of_x = schedule.drift(t) + half * (1 - 2 * schedule.snr_ratio(t))
    return {"t": t, "w_x": dt * of_x, "w_xT": dt * (of_x + half * A), "w_D": -dt * half * B}


def _sde_row(schedule: Schedule, t: float, dt: float, noise_index: int) -> dict:
    """An Euler-Maruyama step of the reverse SDE; its drift has no term in x_T."""
    t = np.float64(t)
    g2, variance = schedule.diffusion_squared(t), schedule.variance(t)
    of_x = schedule.drift(t) + g2 / variance
    return {
        "t": t,
        "w_x": dt * of_x,
        "w_xT": dt * of_x,
        "w_D": -dt * g2 * schedule.alpha(t) / variance,
        "w_noise": np.sqrt(g2 * abs(dt)),
        "noise_index": noise_index,
    }


def _churn_rows(
    schedule: Schedule, start: float, end: float, churn: float, index: int
) -> tuple[float, list[dict]]:
    if not 0 <= churn < 1:
        raise ValueError(f"churn={churn}: must be in [0, 1).")
    if churn == 0:
        return start, []
    middle = start + churn * (end - start)
    return middle, [_sde_row(schedule, start, middle - start, index)]


def _stack(bridge: Bridge, rows: list[dict]) -> Table:
    blank = {"on_path": True, "w_D1": 0.0, "w_D2": 0.0, "from_saved": False}
    blank |= {"w_noise": 0.0, "noise_index": 0}
    used = set().union(*rows) | {"on_path"}
    columns = {
        name: np.array([(blank | row)[name] for row in rows])
        for name in Table._fields
        if name in used
    }
    with np.errstate(divide="ignore", invalid="ignore"):
        at = bridge.at(np.array([row["t"] for row in rows]))
    if not np.isfinite(at).all():
        raise ValueError(
            "the scalings are not finite at T, where dbim and multistep begin, with "
            "config.bridge.endpoint_std=0 or perfectly correlated ends; use euler or heun."
        )
    return Table(at=at, **columns)
