"""Checks and converts the arguments of `DBAE`; wrong arguments raise DataError."""

from typing import Any

import jax
import numpy as np

from dbae_jax.bridge.preconditioning import Bridge
from dbae_jax.bridge.schedules import Schedule
from dbae_jax.configuration.sections import DataConfig
from dbae_jax.errors import DataError
from dbae_jax.runtime import rngs
from dbae_jax.sampling.plan import Plan
from dbae_jax.sampling.tables import Table

DECODED = "This model decodes x_T from z. Call endpoint(z)."
GAUSSIAN = (
    "The x_T of this model is Gaussian noise and is not decoded from z. Sample x_T with draw_x_T "
    "or rng, or infer x_T with invert(images)."
)

NO_DIRECTIONS = (
    "This model was not loaded from a workdir, where directions of attributes are kept: find them "
    "with dbae_jax.editing.directions, and pass one to edit."
)
NO_PRIOR = (
    "This model has no latent prior to sample from: train one in its workdir with "
    "`dbae train_prior`, and load the model from there."
)

Rng = int | jax.Array | None  # a seed, a key of jax.random.key, keys [B], or None for seed 0


def make_key(rng: Rng, count: int) -> jax.Array:
    """Returns one key, or `count` keys.

    Args:
      rng: a seed, a key, keys [count], or None for seed 0.
      count: number of examples.

    Raises:
      DataError: if `rng` is none of these.
    """
    if rng is None:
        return jax.random.key(0)
    allowed = f"a seed (an integer, 0 or more), a key of jax.random.key, or {count} such keys"
    if isinstance(rng, (int, np.integer)) and not isinstance(rng, bool):
        if rng < 0:
            raise DataError(f"rng={rng} is not allowed: it must be {allowed}.")
        return rngs.key_of(int(rng))
    given: Any = rng
    dtype = getattr(given, "dtype", None)
    if dtype is None or not jax.numpy.issubdtype(dtype, jax.dtypes.prng_key):
        found = f"{rng!r:.60} ({type(rng).__name__})" if dtype is None else f"an array of {dtype}"
        raise DataError(f"rng must be {allowed}, got {found}.")
    if given.shape not in ((), (count,)):
        raise DataError(f"rng must be {allowed}, got keys of shape {list(given.shape)}.")
    return given


def check_count(value: int, name: str, least: int = 1) -> int:
    """Returns a number of images or steps, or raises DataError if it is no such integer."""
    is_integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not is_integer or value < least:
        kind = "" if is_integer else f" ({type(value).__name__})"
        raise DataError(f"{name}={value!r}{kind} is not allowed: give an integer, {least} or more.")
    return int(value)


def check_codes(z: np.ndarray, latent_dim: int) -> np.ndarray:
    """Returns latent codes as float32 [B, latent_dim], or raises DataError."""
    z = np.asarray(z)
    if z.ndim != 2 or z.shape[1] != latent_dim or len(z) == 0:
        raise DataError(f"z must be [B, {latent_dim}], got shape {list(z.shape)}.")
    return _finite_float(z, "z")


def check_states(x: np.ndarray, name: str, count: int, data: DataConfig) -> np.ndarray:
    """Returns states of the bridge as float32, or raises DataError.

    Args:
      x: [count, H, W, C].
      name: name of the argument for the error.
      count: expected number of states.
      data: section of the model's config, with the size and channels of its images.
    """
    x, want = np.asarray(x), (count, data.image_size, data.image_size, data.channels)
    if x.shape != want:
        raise DataError(f"{name} must be {list(want)}, got shape {list(x.shape)}.")
    return _finite_float(x, name)


def check_times(t: float | np.ndarray, count: int, schedule: Schedule) -> np.ndarray:
    """Returns times, a scalar or [count] in the schedule's range, or raises DataError."""
    t = np.asarray(t, np.float64)
    if t.shape not in ((), (count,)):
        raise DataError(f"t must be a scalar or [{count}], got shape {list(t.shape)}.")
    low, high = schedule.t_min * (1 - 1e-6), schedule.t_max * (1 + 1e-6)  # float32 rounding
    if not np.all((t >= low) & (t <= high)):
        raise DataError(f"t must lie in [{schedule.t_min:g}, {schedule.t_max:g}], got {t}.")
    return t


def _finite_float(array: np.ndarray, name: str) -> np.ndarray:
    """Returns an array as float32, or raises DataError if a value is not real and finite."""
    real = np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)
    if not real or not np.isfinite(array).all():
        raise DataError(f"{name} must hold real, finite numbers, without NaN or infinity.")
    return array.astype(np.float32)


def table_of(plan: Plan, bridge: Bridge) -> Table:
    """Returns the sampler's table of coefficients, or raises DataError for options that fail."""
    try:
        return plan.table(bridge)
    except ValueError as error:  # ConfigError among them
        raise DataError(str(error)) from error
