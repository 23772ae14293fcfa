"""The compiled functions of a model.

`jit_functions` returns jitted functions of one batch. `Programs` runs them on inputs of any length.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from dbae_jax.api import functions
from dbae_jax.bridge.preconditioning import At
from dbae_jax.bridge.schedules import Schedule
from dbae_jax.data.images import to_float
from dbae_jax.models.autoencoder import Networks
from dbae_jax.runtime import batching, rngs, sharding
from dbae_jax.runtime.batching import ProgressFn
from dbae_jax.sampling import integrate, inversion, tables
from dbae_jax.sampling.integrate import Sample
from dbae_jax.sampling.tables import Table


class Functions(NamedTuple):
    """Jitted functions of one batch, which may be split over the devices of a mesh.

    The networks are a static argument of the functions that run them. Models with equal networks
    therefore share the compiled programs.
    """

    encode: Callable  # networks, variables, images, key, indices, *, sample -> z
    posterior: Callable  # networks, variables, images -> mean and standard deviation of z (or None)
    endpoint: Callable  # networks, variables, z -> x_T
    denoise: Callable  # networks, variables, x_t, at, x_T, z -> x_0
    decode: Callable  # networks, variables, x_T, z, keys, table, num_rows, *, keep_path -> x_0, x_t
    keys: Callable  # key, indices -> keys of the examples
    invert: Callable  # networks, variables, x, z, table -> x_T
    draw_x_T: Callable  # key, indices, scale, *, image_shape -> x_T


def jit_functions(mesh: jax.sharding.Mesh | None) -> Functions:
    """Jits the functions of a model for a mesh.

    Args:
      mesh: devices that share a batch, see `sharding.results`. None: one device.
    """

    def jit(function: Callable, *static: str) -> Callable:
        return jax.jit(function, static_argnames=static, out_shardings=sharding.results(mesh))

    return Functions(
        encode=jit(functions.encode, "networks", "sample"),
        posterior=jit(functions.posterior, "networks"),
        endpoint=jit(functions.endpoint, "networks"),
        denoise=jit(functions.denoise, "networks"),
        decode=jit(functions.decode, "networks", "keep_path"),
        keys=jit(rngs.per_example),
        invert=jit(functions.invert, "networks"),
        draw_x_T=jit(functions.draw_x_T, "image_shape"),
    )


class Programs:
    """The compiled functions of one model, for inputs of any length.

    Inputs run in padded batches, so that each function compiles for few sizes.
    Results are numpy arrays. The argument `variables` of the methods holds the weights and
    running statistics of the model.
    """

    def __init__(
        self,
        networks: Networks,
        batch_size: int,
        mesh: jax.sharding.Mesh | None,
        *,
        whole_batches: bool = False,
    ):
        """Jits the functions.

        Args:
          networks: networks of the model.
          batch_size: most examples per batch, rounded up to a multiple of the number of devices.
          mesh: devices that share every batch. None: one device.
          whole_batches: whether every batch has `batch_size` examples. Trajectories are an
            exception, because they need much memory for each image.
        """
        self.batch_size = batching.whole_size(batch_size, mesh)
        self.whole_batches = whole_batches
        self._networks = networks
        self._mesh = mesh
        self._jitted = jit_functions(mesh)

    def encode(
        self,
        variables: dict,
        images: np.ndarray,
        key: jax.Array | None,
        progress: ProgressFn | None = None,
    ) -> np.ndarray:
        """Returns the mean of z: [B, D]; with a key (or keys [B]) a sample of q(z | x_0)."""
        given, key = key is not None, jax.random.key(0) if key is None else key
        key = batching.whole_keys(key, self._size(len(images)))

        def encode(images: jax.Array, indices: jax.Array) -> jax.Array:
            return self._jitted.encode(
                self._networks, variables, images, key, indices, sample=given
            )

        return self._run(encode, images, np.arange(len(images)), progress=progress)

    def posterior(
        self, variables: dict, images: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns the mean and the standard deviation of q(z | x_0): [B, D] each.

        The standard deviation is None for a deterministic encoder.
        """
        return self._run(lambda x: self._jitted.posterior(self._networks, variables, x), images)

    def endpoint(self, variables: dict, z: np.ndarray) -> np.ndarray:
        """Returns x_T: [B, H, W, C] for z: [B, D]."""
        return self._run(lambda z: self._jitted.endpoint(self._networks, variables, z), z)

    def denoise(
        self, variables: dict, x_t: np.ndarray, at: At, x_T: np.ndarray, z: np.ndarray
    ) -> np.ndarray:
        """Returns the denoiser's estimate of x_0: [B, H, W, C]; `at` holds arrays [B]."""
        return self._run(
            lambda *args: self._jitted.denoise(self._networks, variables, *args), x_t, at, x_T, z
        )

    def decode(
        self,
        variables: dict,
        x_T: np.ndarray,
        z: np.ndarray,
        key: jax.Array,
        table: Table,
        *,
        keep_path: bool = False,
        clip_path: bool = True,
        progress: ProgressFn | None = None,
    ) -> Sample:
        """Runs a sampler.

        Args:
          variables: weights and running statistics.
          x_T: [B, H, W, C], endpoints to start from.
          z: [B, D].
          key: one key, or keys [B].
          table: coefficients of the sampler at every step.
          keep_path: whether the result holds the states along the trajectory.
          clip_path: whether these states are clipped to [-1, 1].
          progress: called after every batch with the numbers of finished and of all images.
        """

        size = self._size(len(z), keep_path=keep_path)
        key, nfe = batching.whole_keys(key, size), table.nfe
        padded = common_table(table, keep_path=keep_path)

        def decode(x_T: jax.Array, z: jax.Array, indices: jax.Array) -> Any:
            keys = self._jitted.keys(key, indices)
            return self._jitted.decode(
                self._networks, variables, x_T, z, keys, padded, nfe, keep_path=keep_path
            )

        places = np.arange(len(z))
        x_0, states = batching.run(
            decode, x_T, z, places, size=size, mesh=self._mesh, progress=progress
        )
        path = None
        if keep_path:
            states = np.moveaxis(states, 1, 0)
            path = np.asarray(integrate.path_states(x_T, states, table, clip=clip_path))
        return Sample(x_0, path, table.path_times, table.nfe)

    def invert(
        self,
        variables: dict,
        images: np.ndarray,
        z: np.ndarray,
        table: Table,
        schedule: Schedule,
        progress: ProgressFn | None = None,
    ) -> np.ndarray:
        """Integrates the ODE from images at t_min to x_T: [B, H, W, C]; see `inversion`."""
        return self._run(
            lambda x, z: self._jitted.invert(self._networks, variables, x, z, table),
            inversion.initial_state(np.asarray(to_float(images)), schedule),
            z,
            progress=progress,
        )

    def draw_x_T(
        self, num: int, key: jax.Array, scale: float, image_shape: tuple[int, ...]
    ) -> np.ndarray:
        """Samples Gaussian endpoints: [num, H, W, C], standard normal times `scale`."""
        key = batching.whole_keys(key, self._size(num))

        def draw(indices: jax.Array) -> jax.Array:
            return self._jitted.draw_x_T(key, indices, scale, image_shape=image_shape)

        return self._run(draw, np.arange(num))

    def _run(self, fn: Callable, *arrays: Any, progress: ProgressFn | None = None) -> Any:
        size = self._size(len(arrays[0]))
        return batching.run(fn, *arrays, size=size, mesh=self._mesh, progress=progress)

    def _size(self, count: int, *, keep_path: bool = False) -> int:
        """Returns the size of the batches in which `count` examples run."""
        if self.whole_batches and not keep_path:
            return self.batch_size
        return batching.padded_size(count, self.batch_size, self._mesh)


def common_table(table: Table, *, keep_path: bool) -> Table:
    """Returns a sampler's table in the form that nearly all samplers share.

    So few forms are compiled. With the trajectory, whose memory grows with the length of the table,
    the length is the next multiple of 32.
    """
    nfe = table.nfe
    length = -(-nfe // 32) * 32 if keep_path else max(1 << (nfe - 1).bit_length(), 1024)
    return tables.of_one_form(table, length)
