"""The suite "information": bounds on the information of z about the image, in nats.

The bound of Theorem 2 follows from the denoising error over time. For a linear diffusion, the
weight of the error is the derivative of the signal-to-noise ratio, lambda dt = -d SNR. With
e = t_min,

  h(x_0 | z) <= 1/2 Int_{SNR_T}^{SNR_e} E|D - x_0|^2 dSNR + h(x_0 | x_e, z).

The last term is at most the entropy of a Gaussian with the error of D at e. Therefore
I(x_0; z) = h(x_0) - h(x_0 | z) is at least h(x_0) minus the right-hand side.

On a bridge, x_T has no information about x_0 beyond z. A Gaussian x_T (DiffAE) has the additional
information I(x_0; x_T | z), which is at most SNR_T E|x_0|^2 / 2. This bound is added, so that the
results of both kinds of model are comparable.

Pixels have 256 levels, so their density needs dequantisation: uniform noise of one level is added.

Source: DBAE, Theorems 1 and 2; the I-MMSE relation (Guo et al., 2005).
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from dbae_jax.api.dbae import DBAE
from dbae_jax.bridge.marginals import has_gaussian_endpoint, marginal_sample
from dbae_jax.bridge.preconditioning import Bridge
from dbae_jax.bridge.schedules import Schedule
from dbae_jax.errors import DataError
from dbae_jax.evaluation.context import Context, Suite, always
from dbae_jax.evaluation.results import Measured, score
from dbae_jax.runtime import rngs
from dbae_jax.runtime.progress import Progress
from dbae_jax.sampling.grids import invert_falling

LEVEL = 2 / 256  # width of a level of 8-bit pixels, in units of [-1, 1]

# (x_t [B, H, W, C], t [B], x_T, z) -> estimate of x_0
ModelFn = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class LossOverTime:
    """Errors of the denoiser on held-out images, at random times that are uniform in log SNR.

    Rows are images. Columns are N cells of equal width in log SNR, from T down to e.

    Attributes:
      t: times [B, N], one random time per image and cell.
      snr_step: widths [B, N] of the SNR intervals that the times represent.
      error: squared errors of D [B, N], summed over the pixels.
      weight: weights of the training loss [B, N].
      error_at_e: squared errors of D at e [B].
      at_endpoint: upper bound [B] in nats on the information of a Gaussian x_T; 0 on a bridge.
      dimensions: H W C.
    """

    t: np.ndarray
    snr_step: np.ndarray
    error: np.ndarray
    weight: np.ndarray
    error_at_e: np.ndarray
    at_endpoint: np.ndarray
    dimensions: int

    @property
    def training_loss(self) -> np.ndarray:
        """The training loss in each cell, [N]."""
        return (self.weight * self.error).mean(axis=0) / self.dimensions


def loss_over_time(
    model_fn: ModelFn,
    x_0: np.ndarray,
    x_T: np.ndarray,
    z: np.ndarray,
    bridge: Bridge,
    draws: Sequence[np.random.Generator],
    *,
    points: int,
) -> LossOverTime:
    """Measures the denoiser at `points` times per image, and at e = t_min.

    Args:
      model_fn: denoiser without clipping.
      x_0: held-out images [B, H, W, C] in [-1, 1], dequantised.
      x_T: endpoints [B, H, W, C] of the codes; a Gaussian x_T may have any value.
      z: latent codes [B, D].
      bridge: schedule and scalings.
      draws: random generators [B] of the images' times and noises, see `image_draws`.
      points: number of cells N.

    Raises:
      DataError: if the denoiser returns NaN or infinity.
    """
    schedule = bridge.schedule

    def error_at(t: np.ndarray) -> np.ndarray:
        noise = np.stack([rng.standard_normal(x_0.shape[1:]) for rng in draws])
        x_t = marginal_sample(schedule, t, x_0, x_T, noise)
        difference = np.asarray(model_fn(x_t, t, x_T, z), np.float64) - x_0
        error = np.sum(difference**2, axis=(1, 2, 3))
        if not np.isfinite(error).all():
            worst = t[np.flatnonzero(~np.isfinite(error))[0]]
            raise DataError(
                f"The denoiser returns NaN or infinity at t = {worst:.4g}: the training diverged, "
                "or the weights do not fit the number format config.model.dtype."
            )
        return error

    log_snr = _log_snr(schedule, np.array([schedule.t_max, schedule.t_min]))
    snr_T = np.exp(log_snr[0]) if has_gaussian_endpoint(schedule) else 0.0
    cell = (log_snr[1] - log_snr[0]) / points
    uniform = np.stack([rng.uniform(size=points) for rng in draws])
    places = log_snr[0] + cell * (np.arange(points) + uniform)
    t = invert_falling(lambda t: _log_snr(schedule, t), places, schedule.t_min, schedule.t_max)
    return LossOverTime(
        t=t,
        snr_step=np.exp(places) * cell,
        error=np.stack([error_at(column) for column in t.T], axis=1),
        weight=np.asarray(bridge.at(t).weight),
        error_at_e=error_at(np.full(len(x_0), schedule.t_min)),
        at_endpoint=0.5 * snr_T * np.sum(x_0**2, axis=(1, 2, 3)),
        dimensions=math.prod(x_0.shape[1:]),
    )


def entropy_bound(measured: LossOverTime) -> tuple[float, float]:
    """Returns the upper bound on h(x_0 | z) in nats per image, and its standard error.

    Each image has its own times and noises, so the standard error over the images includes their
    randomness.
    """
    integral = measured.at_endpoint + 0.5 * np.sum(measured.error * measured.snr_step, axis=1)
    error, half = measured.error_at_e, 0.5 * measured.dimensions
    entropy = half * math.log(2 * math.pi * math.e * error.mean() / measured.dimensions)
    # First order: the contribution of each image to the logarithm of the mean.
    values = integral + half * (error / error.mean() - 1)
    return float(integral.mean() + entropy), float(values.std(ddof=1) / math.sqrt(len(values)))


def image_draws(seed: int, indices: np.ndarray) -> list[np.random.Generator]:
    """Returns one random generator per image, which depends on the seed and the index alone."""
    return [np.random.default_rng([seed, int(index)]) for index in indices]


def progress(count: int, points: int) -> Progress:
    """Returns the progress of `measure` over `count` images with `points` times each."""
    return Progress("Measuring the loss over time", count * (points + 1), "network evaluations")


def measure(
    model: DBAE,
    images: np.ndarray,
    *,
    points: int,
    progress: Progress | None = None,
    seed: int = 0,
    first: int = 0,
) -> LossOverTime:
    """Returns `loss_over_time` of a model on uint8 images, which are dequantised.

    Args:
      model: the model.
      images: uint8 [B, H, W, C].
      points: number of times per image.
      progress: counts the network evaluations; None for no progress.
      seed: seed of all random numbers.
      first: index of the first image, if a set is measured in parts.
    """
    indices = np.arange(first, first + len(images))
    draws = image_draws(seed, indices)
    x_0 = LEVEL * (images + np.stack([rng.uniform(size=images.shape[1:]) for rng in draws])) - 1
    keys = rngs.per_example(rngs.stream(jax.random.key(seed), "code"), indices)
    z = model.encode(x_0, rng=keys if model.config.model.stochastic else None)
    # A Gaussian x_T is not an input of the denoiser: its coefficient is 0.
    x_T = np.zeros_like(x_0) if model.gaussian_endpoint else model.endpoint(z)

    def denoise(x_t: np.ndarray, *inputs: np.ndarray) -> np.ndarray:
        estimate = model.denoise(x_t, *inputs)
        if progress is not None:
            progress.advance(len(x_t))
        return estimate

    return loss_over_time(denoise, x_0, x_T, z, model.bridge, draws, points=points)


def joined(parts: Sequence[LossOverTime]) -> LossOverTime:
    """Returns the measurements of several parts of a set as one."""
    arrays = [field.name for field in dataclasses.fields(LossOverTime)][:-1]
    whole = {name: np.concatenate([getattr(part, name) for part in parts]) for name in arrays}
    return LossOverTime(**whole, dimensions=parts[0].dimensions)


def summary(measured: LossOverTime) -> dict[str, float]:
    """Returns the two bounds, each with its standard error ("_se").

    Returns:
      information_bound_nats: lower bound on I(x_0; z) - h(x_0) per image.
      unexplained_bits_per_dim: upper bound on H(x_0 given z) in bits per 8-bit pixel value.
    """
    nats, error = entropy_bound(measured)
    bits = 1 / (measured.dimensions * math.log(2))
    return {
        "information_bound_nats": -nats,
        "information_bound_nats_se": error,
        "unexplained_bits_per_dim": nats * bits - math.log2(LEVEL),
        "unexplained_bits_per_dim_se": error * bits,
    }


def curves(measured: LossOverTime) -> dict[str, list[float]]:
    """Returns the curves for a plot: mean t, training loss and squared error of D, [N] each.

    The squared error is per dimension.
    """
    values = {
        "t": measured.t.mean(axis=0),
        "training_loss": measured.training_loss,
        "error": measured.error.mean(axis=0) / measured.dimensions,
    }
    return {name: value.tolist() for name, value in values.items()}


def _settings(context: Context) -> dict[str, Any]:
    return {"images": context.limit("test"), "points": context.config.eval.information_points}


def _measure(context: Context) -> Measured:
    points, parts, count = context.config.eval.information_points, [], 0
    with progress(context.limit("test"), points) as shown:
        for images in context.chunks("test"):
            part = measure(context.model, images, points=points, progress=shown, first=count)
            parts.append(part)
            count += len(images)
    measured = joined(parts)
    found = summary(measured)
    scores = {
        name: score(found[name], better, standard_error=found[f"{name}_se"])
        for name, better in (
            ("information_bound_nats", "higher"),
            ("unexplained_bits_per_dim", "lower"),
        )
    }
    scores["unexplained_bits_per_dim"]["details"]["curves"] = curves(measured)
    return Measured(scores, {"test": count})


SUITE = Suite(always, _settings, _measure)


def _log_snr(schedule: Schedule, t: np.ndarray) -> np.ndarray:
    return 2 * np.log(schedule.alpha(t)) - np.log(schedule.variance(t))
