"""Models whose x_T is Gaussian noise, as in DiffAE: sampling x_T, or inferring it from an image."""

from typing import Protocol

import numpy as np

from dbae_jax.api import checks
from dbae_jax.api.checks import Rng
from dbae_jax.api.images import Images, as_batch
from dbae_jax.api.programs import Programs
from dbae_jax.bridge.preconditioning import Bridge
from dbae_jax.configuration.config import Config
from dbae_jax.errors import DataError
from dbae_jax.runtime.batching import ProgressFn
from dbae_jax.sampling import inversion


class Model(Protocol):
    """The parts of a model that this module uses; `DBAE` has them."""

    config: Config
    variables: dict
    bridge: Bridge
    programs: Programs

    @property
    def gaussian_endpoint(self) -> bool: ...

    def encode(self, images: Images) -> np.ndarray: ...


def draw_x_T(model: Model, num: int, rng: Rng) -> np.ndarray:
    """Samples endpoints; see `DBAE.draw_x_T`."""
    if not model.gaussian_endpoint:
        raise DataError(checks.DECODED)
    scale, data = inversion.end_scale(model.bridge.schedule), model.config.data
    shape = (data.image_size, data.image_size, data.channels)
    num = checks.check_count(num, "num")
    return model.programs.draw_x_T(num, checks.make_key(rng, num), scale, shape)


def invert(
    model: Model,
    images: Images,
    z: np.ndarray | None,
    *,
    steps: int,
    grid: str,
    progress: ProgressFn | None = None,
) -> np.ndarray:
    """Infers endpoints by DDIM inversion; see `DBAE.invert`."""
    if not model.gaussian_endpoint:
        raise DataError(checks.DECODED)
    batch = as_batch(images, model.config.data)
    z = checks.check_codes(model.encode(batch) if z is None else z, model.config.model.latent_dim)
    if len(z) != len(batch):
        raise DataError(
            f"invert takes one latent code per image, got {len(z)} for {len(batch)} images."
        )
    table = inversion.inversion(model.bridge, steps, grid)
    return model.programs.invert(model.variables, batch, z, table, model.bridge.schedule, progress)
