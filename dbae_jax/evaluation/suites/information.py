"""What z knows of the image, in nats: the bound of Theorem 2, from the loss over time.

For a linear diffusion the weight of the denoising error in the bound is the rate of the
signal-to-noise ratio, lambda dt = -d SNR, so that with e = t_min

  h(x_0 | z) <= 1/2 Int_{SNR_T}^{SNR_e} E|D - x_0|^2 dSNR + h(x_0 | x_e, z),

and the last term, the little that is left at e, is at most the entropy of a Gaussian with the error
of D at e. Then I(x_0; z) = h(x_0) - h(x_0 | z) is at least h(x_0) minus the right-hand side.

On a bridge x_t holds nothing at T that z does not. A free x_T, as DiffAE's, holds I(x_0; x_T | z),
at most SNR_T E|x_0|^2 / 2, which is added; with this the bound is the same, and the two compare.

Pixels have 256 levels, so densities need dequantisation: uniform noise of one level is added.

Source: DBAE, Theorems 1 and 2; the I-MMSE relation (Guo et al., 2005).
"""

import dataclasses
import logging
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
from dbae_jax.sampling.grids import invert_falling

LEVEL = 2 / 256  # width of a level of 8-bit pixels, in units of [-1, 1]

log = logging.getLogger(__name__)

# (x_t [B, H, W, C], t [B], x_T, z) -> estimate of x_0
ModelFn = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class LossOverTime:
    """Errors of the denoiser on held-out images, at times drawn evenly in log SNR.

    Row: an image; column: one of N equal cells of log SNR, from T down to e. t: [B, N], drawn in
    its cell for each image. snr_step: [B, N], the part of the SNR's range that it stands for.
    error: [B, N], squared error of D, summed over the image's dimensions. weight: [B, N], of the
    training loss. error_at_e: [B]. at_end: [B], nats that a free x_T may hold. dimensions: H W C.
    """

    t: np.ndarray
    snr_step: np.ndarray
    error: np.ndarray
    weight: np.ndarray
    error_at_e: np.ndarray
    at_end: np.ndarray
    dimensions: int

    @property
    def training_loss(self) -> np.ndarray:
        """The loss that training sees in each cell: [N]."""
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
    """Measures the denoiser at `points` times an image, and at e = t_min.

    Args:
      model_fn: unclipped denoiser.
      x_0: [B, H, W, C] in [-1, 1], held out and dequantised.
      x_T: [B, H, W, C], endpoints of the codes; free ones may be anything.
      z: [B, D].
      bridge: schedule and scalings.
      draws: [B], of each image's times and noises, see `image_draws`.
      points: number of cells, N.

    Raises:
      DataError: if what the denoiser returns is not finite.
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
                f"The denoiser returns NaN or infinity at t = {worst:.4g}: the weights are of a "
                "training that diverged, or config.model.dtype does not hold their values."
            )
        return error

    ends = _log_snr(schedule, np.array([schedule.t_max, schedule.t_min]))
    snr_free = np.exp(ends[0]) if has_gaussian_endpoint(schedule) else 0.0
    cell = (ends[1] - ends[0]) / points
    uniform = np.stack([rng.uniform(size=points) for rng in draws])
    places = ends[0] + cell * (np.arange(points) + uniform)
    t = invert_falling(lambda t: _log_snr(schedule, t), places, schedule.t_min, schedule.t_max)
    return LossOverTime(
        t=t,
        snr_step=np.exp(places) * cell,
        error=np.stack([error_at(column) for column in t.T], axis=1),
        weight=np.asarray(bridge.at(t).weight),
        error_at_e=error_at(np.full(len(x_0), schedule.t_min)),
        at_end=0.5 * snr_free * np.sum(x_0**2, axis=(1, 2, 3)),
        dimensions=math.prod(x_0.shape[1:]),
    )


def entropy_bound(measured: LossOverTime) -> tuple[float, float]:
    """Returns the upper bound of h(x_0 | z) in nats an image, and its standard error.

    Every image has times and noises of its own, so the standard error over images covers them too.
    """
    path = measured.at_end + 0.5 * np.sum(measured.error * measured.snr_step, axis=1)
    left, half = measured.error_at_e, 0.5 * measured.dimensions
    entropy = half * math.log(2 * math.pi * math.e * left.mean() / measured.dimensions)
    # Linearised: how much each image moves the logarithm of the mean.
    values = path + half * (left / left.mean() - 1)
    return float(path.mean() + entropy), float(values.std(ddof=1) / math.sqrt(len(values)))


def image_draws(seed: int, indices: np.ndarray) -> list[np.random.Generator]:
    """Returns what draws times and noises of each image: image i depends on (seed, i) alone."""
    return [np.random.default_rng([seed, int(index)]) for index in indices]


def measure(
    model: DBAE, images: np.ndarray, *, points: int, seed: int = 0, first: int = 0
) -> LossOverTime:
    """Returns `loss_over_time` of a model on uint8 images, dequantised.

    Args:
      model: which.
      images: [B, H, W, C].
      points: times an image.
      seed: of all draws.
      first: number of the first image, among those that are measured in parts.
    """
    indices = np.arange(first, first + len(images))
    draws = image_draws(seed, indices)
    x_0 = LEVEL * (images + np.stack([rng.uniform(size=images.shape[1:]) for rng in draws])) - 1
    keys = rngs.per_example(rngs.stream(jax.random.key(seed), "code"), indices)
    z = model.encode(x_0, rng=keys if model.config.model.stochastic else None)
    x_T = (
        np.zeros_like(x_0) if model.gaussian_endpoint else model.endpoint(z)
    )  # a free one: times A = 0
    return loss_over_time(model.denoise, x_0, x_T, z, model.bridge, draws, points=points)


def joined(parts: Sequence[LossOverTime]) -> LossOverTime:
    """Returns what was measured of images in parts as one."""
    arrays = [field.name for field in dataclasses.fields(LossOverTime)][:-1]
    whole = {name: np.concatenate([getattr(part, name) for part in parts]) for name in arrays}
    return LossOverTime(**whole, dimensions=parts[0].dimensions)


def summary(measured: LossOverTime) -> dict[str, float]:
    """Returns what `evaluate` reports of the bound.

    information_bound_nats: lower bound of I(x_0; z) - h(x_0), an image. unexplained_bits_per_dim:
    upper bound of what z leaves open of an 8-bit pixel. Each with its standard error.
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
    """Returns what there is to draw, [N] each: mean t of a cell, training loss, squared error.

    The error is of D, a dimension.
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
    for images in context.chunks("test"):
        parts.append(measure(context.model, images, points=points, first=count))
        count += len(images)
        log.info("Measured the loss over time of %d of %d images.", count, context.limit("test"))
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
