"""What z knows of the image, in nats: the bound of Theorem 2, from the loss over time.

For a linear diffusion the weight of the denoising error in the bound is the rate of the
signal-to-noise ratio, lambda dt = -d SNR, so that with e = t_min

  h(x_0 | z) <= 1/2 Int_{SNR_T}^{SNR_e} E|D - x_0|^2 dSNR + h(x_0 | x_e, z),

and the last term, the little that is left at e, is at most the entropy of a Gaussian with the error
of D at e. Then I(x_0; z) = h(x_0) - h(x_0 | z) is at least h(x_0) minus the right-hand side.

Pixels have 256 levels, so densities need dequantisation: uniform noise of one level is added.

Source: DBAE, Theorems 1 and 2; the I-MMSE relation (Guo et al., 2005).
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from dbae_jax.api import DBAE
from dbae_jax.bridge import marginal_sample
from dbae_jax.precond import Bridge

LEVEL = 2 / 256  # width of a level of 8-bit pixels, in units of [-1, 1]

# (x_t [B, H, W, C], t scalar, x_T, z) -> estimate of x_0
DenoiseFn = Callable[[np.ndarray, float, np.ndarray, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class LossOverTime:
    """Errors of the denoiser at times that lie evenly in log SNR, on held-out images.

    t: [N], falling. snr_step: [N], the part of the SNR's range that each time stands for.
    error: [B, N], squared error of an image, summed over its dimensions. weight: [N], of the
    training loss. dimensions: H W C.
    """

    t: np.ndarray
    snr_step: np.ndarray
    error: np.ndarray
    weight: np.ndarray
    dimensions: int

    @property
    def training_loss(self) -> np.ndarray:
        """The loss that training sees at each time: [N]."""
        return self.weight * self.error.mean(axis=0) / self.dimensions


def loss_over_time(
    denoise_fn: DenoiseFn,
    x_0: np.ndarray,
    x_T: np.ndarray,
    z: np.ndarray,
    bridge: Bridge,
    *,
    points: int,
    seed: int = 0,
) -> LossOverTime:
    """Measures the denoiser at `points` times, one uniform draw in each of equal cells of log SNR.

    Args:
      denoise_fn: unclipped denoiser.
      x_0: [B, H, W, C] in [-1, 1], held out and dequantised.
      x_T: [B, H, W, C], endpoints of the codes.
      z: [B, D].
      bridge: schedule and scalings.
      points: number of times.
      seed: of times and noises.
    """
    rng, schedule = np.random.default_rng(seed), bridge.schedule
    edges = np.linspace(
        *(_log_snr(schedule, t) for t in (schedule.t_max, schedule.t_min)), points + 1
    )
    places = edges[:-1] + rng.uniform(size=points) * np.diff(edges)
    times = np.array([_time_of(schedule, place) for place in places])
    errors = []
    for t in times:
        noise = rng.standard_normal(x_0.shape)
        x_t = marginal_sample(schedule, np.float64(t), x_0, x_T, noise)
        difference = np.asarray(denoise_fn(x_t, float(t), x_T, z), np.float64) - x_0
        errors.append(np.sum(difference**2, axis=(1, 2, 3)))
    return LossOverTime(
        t=times,
        snr_step=np.exp(places) * np.diff(edges),
        error=np.stack(errors, axis=1),
        weight=np.asarray(bridge.at(times).weight),
        dimensions=math.prod(x_0.shape[1:]),
    )


def entropy_bound(measured: LossOverTime) -> tuple[float, float]:
    """Returns the upper bound of h(x_0 | z) in nats an image, and its standard error.

    The standard error is over images (each with its own noises); the Gaussian term at e uses the
    mean error of the time nearest to e.
    """
    path = 0.5 * measured.error @ measured.snr_step
    left = measured.error[:, np.argmin(measured.t)] / measured.dimensions
    entropy = 0.5 * measured.dimensions * math.log(2 * math.pi * math.e * left.mean())
    # Linearised: how much each image moves the logarithm of the mean.
    moved = 0.5 * measured.dimensions * (left / left.mean() - 1)
    values = path + moved
    return float(path.mean() + entropy), float(values.std(ddof=1) / math.sqrt(len(values)))


def measure(model: DBAE, images: np.ndarray, *, points: int, seed: int = 0) -> LossOverTime:
    """Returns `loss_over_time` of a model on uint8 images, dequantised."""
    rng = np.random.default_rng(seed)
    x_0 = LEVEL * (images + rng.uniform(size=images.shape)) - 1
    z = model.encode(x_0, rng=seed if model.config.model.stochastic else None)
    x_T = model.endpoint(z)
    return loss_over_time(model.denoise, x_0, x_T, z, model.bridge, points=points, seed=seed)


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


def _log_snr(schedule, t: float) -> float:
    t = np.float64(t)
    return float(2 * np.log(schedule.alpha(t)) - np.log(schedule.variance(t)))


def _time_of(schedule, log_snr: float) -> float:
    """Inverts log SNR, which falls in t, by bisection in log t."""
    low, high = math.log(schedule.t_min), math.log(schedule.t_max)
    for _ in range(100):
        middle = (low + high) / 2
        above = _log_snr(schedule, math.exp(middle)) > log_snr
        low, high = (middle, high) if above else (low, middle)
    return math.exp((low + high) / 2)
