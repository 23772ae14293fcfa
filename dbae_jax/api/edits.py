"""Latent codes and endpoints of interpolations and edits, and their decoding."""

from typing import Any, Protocol

import numpy as np

from dbae_jax import editing
from dbae_jax.api.checks import Rng, make_key
from dbae_jax.runtime import rngs


class Model(Protocol):
    """The methods of a model that this module uses; `DBAE` has them."""

    @property
    def latent_dim(self) -> int: ...

    @property
    def gaussian_endpoint(self) -> bool: ...

    def encode(self, images: np.ndarray) -> np.ndarray: ...

    def endpoint(self, z: np.ndarray) -> np.ndarray: ...

    def invert(self, images: np.ndarray, z: np.ndarray | None = None) -> np.ndarray: ...

    def decode(self, *args: Any, **kwargs: Any) -> np.ndarray: ...


def latent_paths(
    model: Model,
    first: np.ndarray,
    second: np.ndarray,
    points: int,
    method: str,
    infer_endpoint: bool = False,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns the latent codes and the inferred endpoints that `DBAE.interpolate` decodes.

    The arguments are those of `DBAE.interpolate`.

    Returns:
      z: [B, points, D]; x_T: [B * points, H, W, C], or None if endpoints are not inferred.
    """
    z_0, z_1 = model.encode(first), model.encode(second)
    z = editing.path(z_0, z_1, points, method)
    if not infer_endpoint:
        return z, None
    x_T, other = model.invert(first, z_0), model.invert(second, z_1)
    count = len(x_T)
    arcs = editing.path(x_T.reshape(count, -1), other.reshape(count, -1), points, "spherical")
    return z, arcs.reshape(-1, *x_T.shape[1:])


def endpoint_before_edit(model: Model, images: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Returns the endpoints that edits with a fixed x_T start from: [B, H, W, C].

    They are decoded from z; where x_T is Gaussian they are inferred from the images.

    Args:
      model: a trained model.
      images: [B, H, W, C].
      z: [B, D], their latent codes.
    """
    return model.invert(images, z) if model.gaussian_endpoint else model.endpoint(z)


def decode_rows(
    model: Model, z: np.ndarray, x_T: np.ndarray | None = None, rng: Rng = None, **plan: Any
) -> np.ndarray:
    """Decodes several latent codes for each image: [B, P, H, W, C], float32 in [-1, 1].

    Args:
      model: a trained model.
      z: [B, P, D], P latent codes for each of B images.
      x_T: [B, H, W, C], one endpoint for the codes of an image, or [B * P, H, W, C], one for
        each code. Default: `DBAE.endpoint` of each code, or if x_T is Gaussian, one sample for the
        codes of an image.
      rng: a seed, a key, or keys [B], as for `DBAE.decode`; the codes of an image share it.
      **plan: sampler options, as for `DBAE.decode`.
    """
    keys = None
    if rng is not None:
        rows = np.repeat(np.arange(len(z)), z.shape[1])
        keys = rngs.per_example(make_key(rng, len(z)), rows)
    if x_T is not None and len(x_T) == len(z):
        x_T = np.repeat(x_T, z.shape[1], axis=0)
    x_0 = model.decode(z.reshape(-1, model.latent_dim), x_T, rng=keys, **plan)
    return x_0.reshape(*z.shape[:2], *x_0.shape[1:])
