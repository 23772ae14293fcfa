"""Latent codes and endpoints of interpolations and edits, and their decoding."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from dbae_jax import editing
from dbae_jax.api.checks import Rng, make_key
from dbae_jax.api.images import Images
from dbae_jax.errors import DataError
from dbae_jax.runtime import rngs
from dbae_jax.runtime.batching import ProgressFn
from dbae_jax.sampling.plan import Plan


class Model(Protocol):
    """The methods of a model that this module uses; `DBAE` has them."""

    @property
    def latent_dim(self) -> int: ...

    @property
    def gaussian_endpoint(self) -> bool: ...

    def encode(self, images: Images) -> np.ndarray: ...

    def endpoint(self, z: np.ndarray) -> np.ndarray: ...

    def invert(self, images: Images, z: np.ndarray | None = None) -> np.ndarray: ...

    def decode(self, *args: Any, **kwargs: Any) -> np.ndarray: ...


def latent_paths(
    model: Model,
    first: Images,
    second: Images,
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


def endpoint_before_edit(model: Model, images: Images, z: np.ndarray) -> np.ndarray:
    """Returns the endpoints that edits with a fixed x_T start from: [B, H, W, C].

    They are decoded from z; where x_T is Gaussian they are inferred from the images.

    Args:
      model: a trained model.
      images: [B, H, W, C].
      z: [B, D], their latent codes.
    """
    return model.invert(images, z) if model.gaussian_endpoint else model.endpoint(z)


def direction_of(
    kept: Callable[[], Mapping[str, np.ndarray]],
    direction: np.ndarray | None,
    attribute: str | None,
) -> np.ndarray:
    """Returns the direction [D] of an edit, which is given itself or by the name of an attribute.

    Args:
      kept: returns the model's directions by name; called for an attribute only.
      direction: [D], or None.
      attribute: name of an attribute, or None.

    Raises:
      DataError: if both or none are given, or there is no such attribute.
    """
    if (direction is None) == (attribute is None):
        raise DataError("edit takes either a direction [D] or the name of an attribute.")
    if attribute is None:
        return np.asarray(direction)
    directions = kept()
    return directions[editing.check_name(attribute, tuple(directions))]


def moved_codes(
    model: Model,
    images: Images,
    direction: np.ndarray,
    scale: float | Sequence[float],
    *,
    fix_endpoint: bool,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns the latent codes and the fixed endpoints that `DBAE.edit` decodes.

    The arguments are those of `DBAE.edit`.

    Returns:
      z: [B, S, D]; x_T: [B, H, W, C], or None if endpoints are not fixed.
    """
    z = model.encode(images)
    scales: Any = [scale] if np.ndim(scale) == 0 else scale
    x_T = endpoint_before_edit(model, images, z) if fix_endpoint else None
    return editing.moved(z, direction, scales), x_T


def decode_rows(
    model: Model,
    z: np.ndarray,
    x_T: np.ndarray | None = None,
    rng: Rng = 0,
    *,
    plan: Plan | str | None = None,
    progress: ProgressFn | None = None,
) -> np.ndarray:
    """Decodes several latent codes for each image: [B, P, H, W, C], float32 in [-1, 1].

    Args:
      model: a trained model.
      z: [B, P, D], P latent codes for each of B images.
      x_T: [B, H, W, C], one endpoint for the codes of an image, or [B * P, H, W, C], one for
        each code. Default: `DBAE.endpoint` of each code, or if x_T is Gaussian, one sample for the
        codes of an image.
      rng: a seed, a key, or keys [B], as for `DBAE.decode`; the codes of an image share it.
      plan: the sampler, as for `DBAE.decode`.
      progress: as for `DBAE.decode`.
    """
    rows = np.repeat(np.arange(len(z)), z.shape[1])
    keys = rngs.per_example(make_key(rng, len(z)), rows)
    if x_T is not None and len(x_T) == len(z):
        x_T = np.repeat(x_T, z.shape[1], axis=0)
    flat = z.reshape(-1, model.latent_dim)
    x_0 = model.decode(flat, x_T, rng=keys, plan=plan, progress=progress)
    return x_0.reshape(*z.shape[:2], *x_0.shape[1:])
