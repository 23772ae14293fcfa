"""Test images, their endpoints x_T, their reconstructions, and the errors."""

import dataclasses
from typing import NamedTuple

import jax
import numpy as np

from dbae_jax.api.dbae import DBAE
from dbae_jax.data.images import to_float
from dbae_jax.evaluation.suites.reconstruction import noise_seed
from dbae_jax.report.charts import Chart
from dbae_jax.report.pictures import Strip, in_batches, scale_of, strips
from dbae_jax.report.plots import histogram
from dbae_jax.sampling.plan import Plan


class Reconstruction(NamedTuple):
    """An image, its x_T, its reconstruction, their absolute difference, and the MSE in [0, 1]."""

    image: Strip
    endpoint: Strip
    decoded: Strip
    difference: Strip
    error: float


@dataclasses.dataclass(frozen=True)
class Reconstructions:
    """Reconstructions of test images.

    Attributes:
      first: the first images.
      worst: the images with the largest errors, largest first.
      count: number of images that were reconstructed.
      endpoint_scale: value of x_T that is shown as white; its negative is black.
      difference_scale: absolute difference, of pixels in [0, 1], that is shown as white.
      histogram: chart of the errors; None for fewer than two images.
      spread: sentence on the errors of all images.
    """

    first: list[Reconstruction]
    worst: list[Reconstruction]
    count: int
    endpoint_scale: float
    difference_scale: float
    histogram: Chart | None
    spread: str


class Decoded(NamedTuple):
    """Images in [-1, 1], their x_T and their reconstructions, each [N, S, S, C]."""

    real: np.ndarray
    x_T: np.ndarray
    x_0: np.ndarray

    @property
    def errors(self) -> np.ndarray:
        """Mean squared error of each image [N], pixels in [0, 1]."""
        return np.mean(self.differences**2, axis=(1, 2, 3))

    @property
    def differences(self) -> np.ndarray:
        """Absolute differences [N, S, S, C], pixels in [0, 1]."""
        return np.abs(np.asarray(self.x_0, np.float64) - self.real) / 2


def decode(model: DBAE, images: np.ndarray, sample: Plan) -> Decoded:
    """Encodes and decodes images.

    Args:
      model: a trained model.
      images: uint8 [N, S, S, C].
      sample: the sampler.
    """
    z, seed = model.encode(images), noise_seed(sample, free=model.gaussian_endpoint)
    x_T = model.draw_x_T(len(z), seed) if model.gaussian_endpoint else model.endpoint(z)

    def decode_batch(indices: np.ndarray, keys: jax.Array | None) -> np.ndarray:
        return model.decode(z[indices], x_T[indices], rng=keys, plan=sample)

    what = "Reconstructing test images"
    # Keys even where nothing is random: one program serves all images of the page.
    x_0 = in_batches(decode_batch, len(images), model.batch_size, what, seed=seed or 0)
    return Decoded(np.asarray(to_float(images)), np.asarray(x_T), x_0)


def shown(
    decoded: Decoded, chosen: np.ndarray, endpoint_scale: float, difference_scale: float
) -> list[Reconstruction]:
    """Returns reconstructions as pictures.

    Args:
      decoded: the images.
      chosen: their indices.
      endpoint_scale: see `Reconstructions`.
      difference_scale: see `Reconstructions`.
    """
    difference = decoded.differences[chosen].mean(axis=-1, keepdims=True) / difference_scale
    arrays = (
        decoded.real[chosen],
        decoded.x_T[chosen] / endpoint_scale,
        decoded.x_0[chosen],
        2 * difference - 1,
    )
    columns = zip(*map(strips, arrays), decoded.errors[chosen], strict=True)
    return [Reconstruction(*column) for column in columns]


def scales(decoded: Decoded) -> tuple[float, float]:
    """Returns the scales of x_T and of the absolute differences, see `Reconstructions`."""
    largest = float(np.percentile(decoded.differences.mean(axis=-1), 99.9))
    return scale_of(decoded.x_T), max(largest, 1 / 255)


def reconstructions(
    model: DBAE, images: np.ndarray, sample: Plan, *, first: int, worst: int
) -> Reconstructions:
    """Reconstructs images.

    Args:
      model: a trained model.
      images: uint8 [N, S, S, C].
      sample: the sampler.
      first: number of images from the beginning that are shown.
      worst: number of worst reconstructions that are shown.
    """
    decoded = decode(model, images, sample)
    errors = decoded.errors
    order = np.argsort(-errors, kind="stable")[:worst]
    both = scales(decoded)
    return Reconstructions(
        shown(decoded, np.arange(min(first, len(errors))), *both),
        shown(decoded, order, *both),
        len(errors),
        *both,
        histogram(
            1000 * errors,
            title="Errors of reconstruction",
            x_label="MSE of an image \u00d7 1,000, pixels in [0, 1]",
            y_label="number of test images",
        ),
        spread_of(errors),
    )


def spread_of(errors: np.ndarray) -> str:
    """Returns a sentence on the mean and the spread of errors [N]."""
    if len(errors) < 2:
        return ""
    mean, error = 1000 * errors.mean(), 1000 * errors.std(ddof=1) / np.sqrt(len(errors))
    low, middle, high = (f"{1000 * q:.3g}" for q in np.quantile(errors, (0.05, 0.5, 0.95)))
    return (
        f"{len(errors):,} test images: mean {mean:.3g} \u00b1 {error:.1g} (standard error), median "
        f"{middle}; 90% of the images lie between {low} and {high}."
    )
