"""Pictures that stand still: images with their endpoints and reconstructions, and samples."""

import dataclasses
from typing import NamedTuple

import numpy as np

from dbae_jax.api.dbae import DBAE
from dbae_jax.configuration.sections import SampleConfig
from dbae_jax.data.images import to_float
from dbae_jax.evaluation.suites.reconstruction import noise_seed
from dbae_jax.report.frames import Strip, strips

SEED = 0  # of samples


class Reconstruction(NamedTuple):
    """An image, the endpoint x_T of its walk, what comes back, and the squared error a pixel."""

    image: Strip
    endpoint: Strip
    again: Strip
    error: float


@dataclasses.dataclass(frozen=True)
class Reconstructions:
    """The first images, and those of `count` images that come back worst, worst first."""

    first: list[Reconstruction]
    worst: list[Reconstruction]
    count: int


def reconstructions(
    model: DBAE, images: np.ndarray, sample: SampleConfig, *, first: int, worst: int
) -> Reconstructions:
    """Reconstructs images, uint8 [N, S, S, C]; errors are of pixels in [0, 1]."""
    z, seed = model.encode(images), noise_seed(sample, free=model.gaussian_endpoint)
    x_T = model.draw_x_T(len(z), seed) if model.gaussian_endpoint else model.endpoint(z)
    again = model.decode(z, x_T, rng=seed, **vars(sample))
    real = np.asarray(to_float(images))
    errors = np.mean(((np.asarray(again, np.float64) - real) / 2) ** 2, axis=(1, 2, 3))
    last = np.argsort(-errors, kind="stable")[:worst]

    def shown(chosen: np.ndarray) -> list[Reconstruction]:
        columns = (strips(array[chosen]) for array in (real, x_T, again))
        return [Reconstruction(*column) for column in zip(*columns, errors[chosen], strict=True)]

    return Reconstructions(shown(np.arange(min(first, len(real)))), shown(last), len(real))


def samples(model: DBAE, count: int, **how) -> list[Strip]:
    """Draws images 0 ... count - 1 of SEED from the prior, as `--mode=sample` does.

    Raises:
      CheckpointError: if the model has no prior.
    """
    return strips(model.sample(count, SEED, **how))
