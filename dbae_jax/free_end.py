"""What `api.DBAE` does with an x_T that is free: draws it, or infers it from an image by DDIM."""

import functools

import numpy as np

from dbae_jax import time_grids
from dbae_jax.arguments import Rng, check_codes, make_key
from dbae_jax.errors import DataError
from dbae_jax.images import to_float
from dbae_jax.precond import Bridge
from dbae_jax.sampler_tables import Table, inversion_table
from dbae_jax.schedules import Schedule

INVERSION_STEPS = 100  # network evaluations, where nothing else is asked for

DECODED = "x_T of this model is decoded from z, not free: call endpoint(z)."
FREE = (
    "x_T of this model is free, not decoded from z: draw it, with draw_x_T or rng, or infer it, "
    "with invert(images)."
)


class FreeEnd:
    """The part of `api.DBAE` for models with config.bridge.endpoint = "free", such as DiffAE."""

    @property
    def free(self) -> bool:
        """Whether x_T is free, drawn or inferred; otherwise it is decoded from z."""
        return self.config.bridge.endpoint == "free"

    def draw_x_T(self, num: int, rng: Rng) -> np.ndarray:
        """Draws free endpoints: [num, H, W, C], standard normal (VE: times T).

        `rng`: a seed, a key, or keys [num], as `decode` takes it and draws the same from it.

        Raises:
          DataError: without `rng`, or where x_T is decoded from z.
        """
        if rng is None or not self.free:
            raise DataError(FREE if self.free else DECODED)
        key, data = make_key(rng, num), self.config.data
        shape = (data.image_size, data.image_size, data.channels)
        scale = end_scale(self.bridge.schedule)
        draw = functools.partial(self._programs.draw_x_T, image_shape=shape)
        return self._run(lambda indices: draw(key, indices, scale), np.arange(num))

    def invert(
        self,
        images: np.ndarray,
        z: np.ndarray | None = None,
        *,
        steps: int = INVERSION_STEPS,
        grid: str = "lambda",
    ) -> np.ndarray:
        """Infers free endpoints: x_T, [B, H, W, C], from which the ODE leads to the images.

        DDIM, up in time. Decoding with the same z and grid leads back, the better the more steps.

        Args:
          images: [B, H, W, C].
          z: [B, D]; default the images' codes.
          steps: network evaluations, 2 or more.
          grid: "karras", "uniform", "power" or "lambda".

        Raises:
          DataError: where x_T is decoded from z, or for wrong arguments.
        """
        if not self.free:
            raise DataError(DECODED)
        images = self._check_images(images)
        z = check_codes(self.encode(images) if z is None else z, self.latent_dim)
        if len(z) != len(images):
            raise DataError(f"invert takes a code an image, got {len(z)} for {len(images)}.")
        table = inversion(self.bridge, steps, grid)
        x = initial_state(np.asarray(to_float(images)), self.bridge.schedule)
        invert = functools.partial(self._programs.invert, self.variables)
        return self._run(lambda x, z: invert(x, z, table), x, z)


def end_scale(schedule: Schedule) -> float:
    """Returns s_T, the std of a free x_T."""
    return float(np.sqrt(schedule.variance(np.float64(schedule.t_max))))


def initial_state(x_0: np.ndarray, schedule: Schedule) -> np.ndarray:
    """Returns the state at t_min, a x_0: the ODE moves it by less than the noise there, s^2."""
    return (schedule.alpha(np.float64(schedule.t_min)) * x_0).astype(x_0.dtype)


def inversion(bridge: Bridge, steps: int, grid: str) -> Table:
    """Tabulates DDIM from t_min up to T in `steps` evaluations, on a grid of `time_grids.GRIDS`.

    Raises:
      DataError: for an unknown grid or too few steps.
    """
    if grid not in time_grids.GRIDS:
        names = ", ".join(time_grids.GRIDS)
        raise DataError(f"grid={grid!r} is not allowed: it must be one of {names}.")
    if steps < 2:
        raise DataError(f"steps={steps}: inferring x_T takes at least 2.")
    times = time_grids.GRIDS[grid](bridge.schedule, steps + 1, start=bridge.schedule.t_max)
    return inversion_table(bridge, times[-2::-1])  # all but 0, where there is no noise to infer
