"""Images for the page, as `data:` URIs: strips of them, reconstructions and samples."""

import base64
import dataclasses
import io
from typing import NamedTuple

import numpy as np
from PIL import Image

from dbae_jax.api.dbae import DBAE
from dbae_jax.data.images import to_float, to_uint8
from dbae_jax.evaluation.suites.reconstruction import noise_seed
from dbae_jax.sampling.plan import Plan

# From this size on pictures are JPEG, which keeps a page of 128-pixel images in a few megabytes.
JPEG_FROM, JPEG_QUALITY = 64, 92


SEED = 0  # of samples
SMALL, LARGE = 72, 96  # pixels of the screen that a picture should about have


class Strip(NamedTuple):
    """Pictures of one size side by side in one file: a slider shows one at a time.

    uri: the file. count: of pictures. size: of each, in its own pixels.
    """

    uri: str
    count: int
    size: int


def strip(images: np.ndarray) -> Strip:
    """Returns images [N, S, S, C] in [-1, 1], clipped to it, as a strip.

    Of channel counts other than 1 and 3, the first channel is shown.
    """
    pixels = to_uint8(images)
    count, size = pixels.shape[:2]
    beside = np.concatenate(list(pixels), axis=1)
    picture = Image.fromarray(beside if beside.shape[-1] == 3 else beside[..., 0])
    content = io.BytesIO()
    if is_lossless(size):
        picture.save(content, "png", optimize=True)
    else:  # chroma at full size: frames of a strip must not bleed into each other
        picture.save(content, "jpeg", quality=JPEG_QUALITY, subsampling=0)
    kind = "png" if is_lossless(size) else "jpeg"
    encoded = base64.b64encode(content.getvalue()).decode("ascii")
    return Strip(f"data:image/{kind};base64,{encoded}", count, size)


def strips(images: np.ndarray) -> list[Strip]:
    """Returns a strip for each image [N, S, S, C], of that image alone."""
    return [strip(image[None]) for image in images]


def is_lossless(size: int) -> bool:
    """Whether pictures of this size keep every pixel's value."""
    return size < JPEG_FROM


def shown_size(size: int, target: int) -> int:
    """Returns how wide an image is shown: a whole multiple of its size, about `target`."""
    return size * max(1, round(target / size))


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
    model: DBAE, images: np.ndarray, sample: Plan, *, first: int, worst: int
) -> Reconstructions:
    """Reconstructs images, uint8 [N, S, S, C]; errors are of pixels in [0, 1]."""
    z, seed = model.encode(images), noise_seed(sample, free=model.gaussian_endpoint)
    x_T = model.draw_x_T(len(z), seed) if model.gaussian_endpoint else model.endpoint(z)
    again = model.decode(z, x_T, rng=seed, plan=sample)
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
