"""Checks and converts the arguments of `DBAE`; wrong arguments raise DataError."""

import jax
import numpy as np

from dbae_jax.bridge.schedules import Schedule
from dbae_jax.configuration.sections import DataConfig
from dbae_jax.errors import DataError

DECODED = "This model decodes x_T from z. Call endpoint(z)."
GAUSSIAN = (
    "The x_T of this model is Gaussian noise and is not decoded from z. Sample x_T with draw_x_T "
    "or rng, or infer x_T with invert(images)."
)

NO_PRIOR = (
    "This model has no latent prior to sample from: train one in its workdir with "
    "--mode=train_prior, and load the model from there."
)

Rng = int | jax.Array | None  # a seed, a key of jax.random.key, keys [B], or None


def make_key(rng: Rng, count: int) -> jax.Array:
    """Returns one key, or `count` keys.

    Args:
      rng: a seed, a key, keys [count], or None for seed 0.
      count: number of examples.
    """
    if rng is None or isinstance(rng, (int, np.integer)):
        return jax.random.key(rng or 0)
    if not jax.numpy.issubdtype(rng.dtype, jax.dtypes.prng_key) or rng.shape not in ((), (count,)):
        raise DataError(f"rng must be a seed, a key of jax.random.key, or {count} such keys.")
    return rng


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
    low, high = (
        schedule.t_min * (1 - 1e-6),
        schedule.t_max * (1 + 1e-6),
    )  # float32 rounding
    if not np.all((t >= low) & (t <= high)):
        raise DataError(f"t must lie in [{schedule.t_min:g}, {schedule.t_max:g}], got {t}.")
    return t


def _finite_float(array: np.ndarray, name: str) -> np.ndarray:
    """Returns an array as float32, or raises DataError if a value is not real and finite."""
    real = np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)
    if not real or not np.isfinite(array).all():
        raise DataError(f"{name} must hold real, finite numbers, without NaN or infinity.")
    return array.astype(np.float32)


def check_images(images: np.ndarray | jax.Array, data: DataConfig) -> np.ndarray:
    """Returns images as a numpy array, uint8 or float32, if they fit the model.

    Args:
      images: [B, H, W, C], uint8, or float in [-1, 1].
      data: section of the model's config, with the size and channels of its images.

    Raises:
      DataError: if the shape, dtype or range is wrong, or values are not finite.
    """
    images, size, channels = np.asarray(images), data.image_size, data.channels
    want = f"[B, {size}, {size}, {channels}]"
    if images.ndim != 4:
        raise DataError(f"images must have 4 axes, {want}, got shape {list(images.shape)}.")
    if images.shape[1:] != (size, size, channels):
        raise DataError(f"images must be {want} for this model, got {list(images.shape)}.")
    if images.shape[0] == 0:
        raise DataError(f"images must hold at least one image, got shape {list(images.shape)}.")
    if images.dtype == np.uint8:
        return images
    if not np.issubdtype(images.dtype, np.floating):
        raise DataError(f"images must be uint8 or float in [-1, 1], got {images.dtype}.")
    if not np.isfinite(images).all():
        raise DataError("images hold values that are not finite (NaN or infinity).")
    low, high = float(images.min()), float(images.max())
    if low < -1 - 1e-6 or high > 1 + 1e-6:
        raise DataError(
            f"float images must lie in [-1, 1], got [{low:g}, {high:g}]; "
            "pass uint8, or scale 0..255 by x / 127.5 - 1."
        )
    return images.astype(np.float32)
