"""Samplers from x_T down to x_0: a table of float64 coefficients, then one scan on the device.

Every sampler here is a list of network evaluations, and what each does to the state is linear in
x, x_T, the denoised image D and fresh noise. The coefficients depend on the time grid alone, so
they are computed on the host in float64 (T - t_0 = 1e-4 would drown in float32) and one generic
scan runs them; a row is one network evaluation, the number of rows is the NFE.

The terms in x and x_T are written as w_x (x - x_T) + w_xT x_T: near T, w_x diverges like
1 / (T - t) while x - x_T vanishes, and this form does not cancel.

Source: DBAE, algorithm 2; DDBM (Zhou et al., 2024), algorithm 1 for the churned Heun sampler.
"""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dbae_jax import rngs
from dbae_jax.bridge import marginal_coefficients
from dbae_jax.precond import At, Bridge
from dbae_jax.schedules import Schedule

# (x_t [B, H, W, C], at of scalars, x_T [B, H, W, C]) -> estimate of x_0, with z already bound
BoundDenoiseFn = Callable[[jax.Array, At, jax.Array], jax.Array]
# index of a noise -> standard normal [B, H, W, C]
NoiseFn = Callable[[jax.Array], jax.Array]


class Table(NamedTuple):
    """A sampler, unrolled: one row a network evaluation, arrays of shape [NFE].

    A row evaluates D at x and `at`, and moves the state,
      move = w_x (x - x_T) + w_xT x_T + w_D D
      x' = (saved if from_saved else x) + move + w_noise eps
      saved' = x + move / 2
    so that a Heun step is two rows: the full Euler step, which also saves the half step, and
    half a step with the slope at its end, added to the saved one.
    """

    at: At  # where D is evaluated: the time and the scalings there
    w_x: np.ndarray
    w_xT: np.ndarray
    w_D: np.ndarray
    w_noise: np.ndarray
    noise_index: np.ndarray  # which noise, counted from 0
    from_saved: np.ndarray  # bool
    on_path: np.ndarray  # bool: the state after this row belongs to the trajectory

    @property
    def nfe(self) -> int:
        """Number of network evaluations."""
        return len(self.on_path)


class Sample(NamedTuple):
    """x_0: [B, H, W, C] in [-1, 1]; path: states from x_T to x_0 or None; nfe: evaluations."""

    x_0: jax.Array
    path: jax.Array | None
    nfe: int


def euler_table(bridge: Bridge, times: np.ndarray, *, churn: float = 0.0) -> Table:
    """Tabulates the Euler sampler: an evaluation an interval, one more with churn.

    Args:
      bridge: schedule and scalings.
      times: [N + 1], falling, the last one 0.
      churn: share in [0, 1) of each interval that the reverse SDE walks first; the ODE then
        walks from there to the interval's end.
    """
    rows, schedule = [], bridge.schedule
    for i, (start, end) in enumerate(_intervals(times)):
        start, churned = _churn_rows(schedule, start, end, churn, i)
        rows += [*churned, _ode_row(schedule, start, end - start)]
    return _stack(bridge, rows)


def heun_table(bridge: Bridge, times: np.ndarray, *, churn: float = 0.0) -> Table:
    """Tabulates Heun's sampler: 2 N - 1 evaluations (the last step, to 0, is Euler's).

    Takes what `euler_table` takes; churn adds an evaluation an interval.
    """
    rows, schedule = [], bridge.schedule
    for i, (start, end) in enumerate(_intervals(times)):
        start, churned = _churn_rows(schedule, start, end, churn, i)
        rows += churned
        full = _ode_row(schedule, start, end - start)
        if end == 0:
            rows.append(full)
        else:
            half = _ode_row(schedule, end, (end - start) / 2)
            rows += [full | {"on_path": False}, half | {"from_saved": True}]
    return _stack(bridge, rows)


def _intervals(times: np.ndarray) -> list[tuple[float, float]]:
    times = np.asarray(times, np.float64)
    if times.ndim != 1 or len(times) < 2 or np.any(np.diff(times) >= 0) or times[-1] != 0:
        raise ValueError(f"times must fall strictly from near T to 0, got {times!r}.")
    return list(itertools.pairwise(times))


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
    blank = {"w_noise": 0.0, "noise_index": 0, "from_saved": False, "on_path": True}
    rows = [blank | row for row in rows]
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return Table(at=bridge.at(columns.pop("t")), **columns)


def integrate(
    denoise_fn: BoundDenoiseFn,
    x_T: jax.Array,
    table: Table,
    noise_fn: NoiseFn | None = None,
    *,
    keep_path: bool = False,
) -> tuple[jax.Array, jax.Array | None]:
    """Runs a table from x_T: one `lax.scan`, to be called inside jit.

    Args:
      denoise_fn: the denoiser with z bound; its answer is clipped to [-1, 1] here.
      x_T: [B, H, W, C].
      table: of a sampler; may be traced, so other grids of the same length compile nothing.
      noise_fn: gives the i-th noise; None for tables without noise.
      keep_path: also returns the state after every row.

    Returns:
      x_0 [B, H, W, C], clipped to [-1, 1], and the states [NFE, B, H, W, C] or None.
    """

    def body(carry, row):
        x, saved = carry
        denoised = jnp.clip(denoise_fn(x, row.at, x_T), -1, 1)
        move = row.w_x * (x - x_T) + row.w_xT * x_T + row.w_D * denoised
        new = jnp.where(row.from_saved, saved, x) + move
        if noise_fn is not None:
            new = new + row.w_noise * noise_fn(row.noise_index)
        return (new, x + 0.5 * move), new if keep_path else None

    rows = jax.tree.map(lambda a: a.astype(x_T.dtype) if a.dtype.kind == "f" else a, table)
    (x, _), path = lax.scan(body, (x_T, x_T), rows)
    return jnp.clip(x, -1, 1), path


def example_noise_fn(keys: jax.Array, image_shape: tuple[int, ...]) -> NoiseFn:
    """Returns noises from one key an example: an image does not depend on its batch.

    Args:
      keys: [B] keys, for instance of `rngs.per_example`.
      image_shape: (H, W, C).
    """

    def noise_fn(index: jax.Array) -> jax.Array:
        return jax.vmap(lambda k: jax.random.normal(jax.random.fold_in(k, index), image_shape))(
            keys
        )

    return noise_fn


def sample_euler(
    denoise_fn: BoundDenoiseFn,
    x_T: jax.Array,
    times: np.ndarray,
    key: jax.Array | None = None,
    *,
    bridge: Bridge,
    churn: float = 0.0,
    keep_path: bool = False,
) -> Sample:
    """Samples with Euler steps, preceded by reverse-SDE steps if `churn` is positive.

    Args:
      denoise_fn: (x_t, at, x_T) -> estimate of x_0, with z bound.
      x_T: [B, H, W, C].
      times: [N + 1] from `time_grids`.
      key: of the churn noise; needed when churn > 0.
      bridge: schedule and scalings.
      churn: see `euler_table`.
      keep_path: also returns x_T and the state after every step, clipped to [-1, 1].

    Returns:
      x_0, the trajectory or None, and the number of evaluations: N, or 2 N with churn.
    """
    table = euler_table(bridge, times, churn=churn)
    return _sample(denoise_fn, x_T, table, key, churn=churn, keep_path=keep_path)


def sample_heun(
    denoise_fn: BoundDenoiseFn,
    x_T: jax.Array,
    times: np.ndarray,
    key: jax.Array | None = None,
    *,
    bridge: Bridge,
    churn: float = 0.0,
    keep_path: bool = False,
) -> Sample:
    """As `sample_euler` with Heun's second-order steps: 2 N - 1 evaluations, 3 N - 1 with churn."""
    table = heun_table(bridge, times, churn=churn)
    return _sample(denoise_fn, x_T, table, key, churn=churn, keep_path=keep_path)


TABLES = {"euler": euler_table, "heun": heun_table}


def path_states(x_T: jax.Array, states: jax.Array, table: Table) -> jax.Array:
    """Returns the trajectory [S, B, H, W, C]: x_T, then the states that the table puts on it."""
    return jnp.clip(jnp.concatenate([x_T[None], states[np.flatnonzero(table.on_path)]]), -1, 1)


def _sample(denoise_fn, x_T, table, key, *, churn, keep_path) -> Sample:
    noise_fn = None
    if churn:
        if key is None:
            raise ValueError(f"churn={churn} draws noise: pass a key.")
        keys = rngs.per_example(key, 0, x_T.shape[0])
        noise_fn = example_noise_fn(keys, x_T.shape[1:])
    x_0, states = integrate(denoise_fn, x_T, table, noise_fn, keep_path=keep_path)
    path = path_states(x_T, states, table) if keep_path else None
    return Sample(x_0, path, table.nfe)
