"""What the app does with a model: pixels and settings in, pixels and latent codes out."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from dbae_jax import editing
from dbae_jax.api.dbae import DBAE
from dbae_jax.configuration.distillation import is_distilled
from dbae_jax.data.images import to_float, to_uint8
from dbae_jax.data.sources import Source
from dbae_jax.errors import DataError, DBAEError
from dbae_jax.metrics.similarity import pixel_mse, psnr

NFES = (3, 5, 10, 20, 50)  # choices of network evaluations per image, by `dbim`
NFES_OF_DISTILLED = (1, 2)  # the same of a distilled model, by its own sampler
POINTS = 11  # latent codes of an interpolation, both ends included
SPREAD_FROM = 128  # images that standard deviations of z are estimated from


class Encoded(NamedTuple):
    """An image, its latent code, and the image that the model decodes from the code."""

    image: np.ndarray  # uint8 [H, W, C]
    z: np.ndarray  # float32 [D]
    x_T: np.ndarray  # float32 [H, W, C], unbounded
    reconstruction: np.ndarray  # uint8 [H, W, C]
    mse: float  # mean squared error of pixels in [0, 1]
    psnr: float  # peak signal-to-noise ratio, in dB


class Decoded(NamedTuple):
    """Latent codes and the images that the model decodes from them."""

    z: np.ndarray  # float32 [B, D]
    images: np.ndarray  # uint8 [B, H, W, C]


class Edited(NamedTuple):
    """A changed latent code, and the image that the model decodes from it."""

    z: np.ndarray  # float32 [D]
    x_T: np.ndarray  # float32 [H, W, C], unbounded
    image: np.ndarray  # uint8 [H, W, C]


class Abilities(NamedTuple):
    """What a model can do beyond reconstruction; a reason stands where it cannot."""

    directions: Mapping[str, np.ndarray]  # name of an attribute -> change [D] of z at scale 1
    no_directions: str
    spread: np.ndarray | None  # standard deviation of each dimension of z, [D]
    no_spread: str
    no_prior: str  # "" if the model can sample


def evaluations(model: DBAE) -> tuple[int, ...]:
    """Returns the choices of network evaluations per image; `model.nfe()` is recommended."""
    return NFES_OF_DISTILLED if is_distilled(model.config) else NFES


def abilities(model: DBAE, source: Source | None) -> Abilities:
    """Returns what a model can do.

    Args:
      model: a trained model.
      source: images of the model's data set, or None. A model without a latent prior needs them to
        estimate the standard deviations of z.
    """
    directions: Mapping[str, np.ndarray] = {}
    spread, no_directions, no_prior, no_spread = None, "", "", ""
    try:
        directions = model.directions
    except DBAEError as error:
        no_directions = str(error)
    try:
        spread = np.asarray(model.prior.variables["stats"]["std"])
    except DBAEError as error:
        no_prior = str(error)
    if spread is None and source is not None:
        images = np.stack([source[i]["image"] for i in range(min(SPREAD_FROM, len(source)))])
        spread = model.encode(images).std(axis=0)
    elif spread is None:
        no_spread = (
            "Standard deviations of the dimensions of z are unknown: they need a latent prior, or "
            "the images of the data set."
        )
    return Abilities(directions, no_directions, spread, no_spread, no_prior)


def encode(model: DBAE, image: np.ndarray, nfe: int) -> Encoded:
    """Encodes an image and decodes its latent code.

    A Gaussian x_T, as in DiffAE, is inferred from the image.

    Args:
      model: a trained model.
      image: uint8 [H, W, C].
      nfe: network evaluations.
    """
    z = model.encode(image)
    x_T = model.invert(image, z) if model.gaussian_endpoint else model.endpoint(z)
    x_0 = model.decode(z, x_T, steps=nfe)
    original = np.asarray(to_float(image))[None]
    return Encoded(
        *(image, z[0], x_T[0], to_uint8(x_0[0])), pixel_mse(x_0, original), psnr(x_0, original)
    )


def move(
    able: Abilities, z: np.ndarray, scales: Mapping[str, float], dimension: int, shift: float
) -> np.ndarray:
    """Returns a latent code that is moved along attributes and along one dimension.

    Args:
      able: abilities of the model.
      z: [D].
      scales: name of an attribute -> scale of its direction.
      dimension: place of the dimension in z, from 0.
      shift: change of the dimension, in standard deviations.

    Raises:
      DataError: for a dimension that z does not have, or a shift without standard deviations.
    """
    moved = np.array(z, np.float32)
    for name, scale in scales.items():
        moved += scale * able.directions[name]
    if shift:
        if able.spread is None:
            raise DataError(able.no_spread)
        if not 0 <= dimension < len(z):
            raise DataError(f"z has no dimension {dimension}: they are 0 to {len(z) - 1}.")
        moved[dimension] += shift * able.spread[dimension]
    return moved


def edit(model: DBAE, encoded: Encoded, z: np.ndarray, nfe: int) -> Edited:
    """Decodes a changed latent code of an image.

    x_T is computed from the changed code; a Gaussian x_T stays that of the image.

    Args:
      model: a trained model.
      encoded: the image.
      z: the changed code, [D].
      nfe: network evaluations.
    """
    x_T = encoded.x_T[None] if model.gaussian_endpoint else model.endpoint(z[None])
    return Edited(z, x_T[0], to_uint8(model.decode(z[None], x_T, steps=nfe)[0]))


def mix(model: DBAE, first: np.ndarray, second: np.ndarray, method: str, nfe: int) -> Decoded:
    """Decodes latent codes between those of two images: POINTS codes and images.

    Args:
      model: a trained model.
      first: uint8 [H, W, C].
      second: uint8 [H, W, C].
      method: "linear", or "spherical", along the arc between the codes.
      nfe: network evaluations per image.
    """
    path = model.interpolate(
        first, second, POINTS, method, infer_endpoint=model.gaussian_endpoint, steps=nfe
    )
    ends = model.encode(np.stack([first, second]))
    z = editing.path(ends[:1], ends[1:], POINTS, method)
    return Decoded(z[0], to_uint8(path[0]))


def draw(model: DBAE, num: int, seed: int, nfe: int) -> Decoded:
    """Draws latent codes from the prior and decodes them.

    Args:
      model: a trained model with a latent prior.
      num: number of images.
      seed: image i depends on the seed and i alone.
      nfe: network evaluations per image.

    Raises:
      CheckpointError: if the model has no latent prior.
    """
    z = model.sample_codes(num, seed)
    return Decoded(z, to_uint8(model.decode(z, rng=seed, steps=nfe)))
