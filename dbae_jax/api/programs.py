"""The compiled functions of a model.

`jit_functions` returns jitted functions of one batch. `Programs` runs them on inputs of any length.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dbae_jax.bridge.preconditioning import At, make_denoiser
from dbae_jax.bridge.schedules import Schedule
from dbae_jax.data.images import to_float
from dbae_jax.models.autoencoder import Networks
from dbae_jax.runtime import batching, rngs, sharding
from dbae_jax.sampling import integrate, inversion
from dbae_jax.sampling.integrate import Sample
from dbae_jax.sampling.tables import Table


class Functions(NamedTuple):
    """Jitted functions of one batch, which may be split over the devices of a mesh.

    The networks are a static argument of all functions except `draw_x_T`. Models with equal
    networks therefore share the compiled programs.
    """

    encode: Callable  # networks, variables, images, key, indices, *, sample -> z
    posterior: Callable  # networks, variables, images -> mean and scale of z (or None)
    endpoint: Callable  # networks, variables, z -> x_T
    denoise: Callable  # networks, variables, x_t, at, x_T, z -> x_0
    decode: (
        Callable  # networks, variables, x_T, z, key, indices, table, *, keep_path -> x_0[, path]
    )
    invert: Callable  # networks, variables, x, z, table -> x_T
    draw_x_T: Callable  # key, indices, scale, *, image_shape -> x_T


def jit_functions(mesh: jax.sharding.Mesh | None) -> Functions:
    """Jits the functions of a model for a mesh.

    Args:
      mesh: devices that share a batch; each gets the whole result. None: one device.
    """
    placed = None if mesh is None else sharding.replicated(mesh)

    def jit(function: Callable, *static: str) -> Callable:
        return jax.jit(function, static_argnames=static, out_shardings=placed)

    return Functions(
        encode=jit(_encode, "networks", "sample"),
        posterior=jit(_posterior, "networks"),
        endpoint=jit(_endpoint, "networks"),
        denoise=jit(_denoise, "networks"),
        decode=jit(_decode, "networks", "keep_path"),
        invert=jit(_invert, "networks"),
        draw_x_T=jit(_draw_x_T, "image_shape"),
    )


class Programs:
    """The compiled functions of one model, for inputs of any length.

    Inputs run in batches of `batch_size`, the last one padded, so that each function compiles
    once. Results are numpy arrays. The argument `variables` of the methods holds the weights and
    running statistics of the model.
    """

    def __init__(self, networks: Networks, batch_size: int, mesh: jax.sharding.Mesh | None):
        """Jits the functions.

        Args:
          networks: networks of the model.
          batch_size: examples per batch, rounded up to a multiple of the number of devices.
          mesh: devices that share every batch. None: one device.
        """
        self.batch_size = batching.whole_size(batch_size, mesh)
        self._networks = networks
        self._mesh = mesh
        self._jitted = jit_functions(mesh)

    def encode(self, variables: dict, images: np.ndarray, key: jax.Array | None) -> np.ndarray:
        """Returns the mean of z: [B, D]; with a key (or keys [B]) a sample of q(z | x_0)."""
        given, key = key is not None, jax.random.key(0) if key is None else key

        def encode(images: jax.Array, indices: jax.Array) -> jax.Array:
            return self._jitted.encode(
                self._networks, variables, images, key, indices, sample=given
            )

        return self._run(encode, images, np.arange(len(images)))

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
    ) -> Sample:
        """Runs a sampler.

        Args:
          variables: weights and running statistics.
          x_T: [B, H, W, C], endpoints to start from.
          z: [B, D].
          key: one key, or keys [B].
          table: coefficients of the sampler at every step.
          keep_path: whether the result holds the states along the trajectory.
        """

        def decode(x_T: jax.Array, z: jax.Array, indices: jax.Array) -> Any:
            return self._jitted.decode(
                self._networks, variables, x_T, z, key, indices, table, keep_path=keep_path
            )

        if not keep_path:
            decoded = self._run(decode, x_T, z, np.arange(len(z)))
            return Sample(decoded, None, table.path_times, table.nfe)
        # Few images are shown with their path, and a path needs a program of its own anyway. So
        # they run without padding to a whole batch, in one of few sizes.
        size = min(self.batch_size, batching.whole_size(-(-len(z) // 8) * 8, self._mesh))
        x_0, states = self._run(decode, x_T, z, np.arange(len(z)), size=size)
        path = np.asarray(integrate.path_states(x_T, np.moveaxis(states, 1, 0), table))
        return Sample(x_0, path, table.path_times, table.nfe)

    def invert(
        self, variables: dict, images: np.ndarray, z: np.ndarray, table: Table, schedule: Schedule
    ) -> np.ndarray:
        """Integrates the ODE from images at t_min to x_T: [B, H, W, C]; see `inversion`."""
        return self._run(
            lambda x, z: self._jitted.invert(self._networks, variables, x, z, table),
            inversion.initial_state(np.asarray(to_float(images)), schedule),
            z,
        )

    def draw_x_T(
        self, num: int, key: jax.Array, scale: float, image_shape: tuple[int, ...]
    ) -> np.ndarray:
        """Samples Gaussian endpoints: [num, H, W, C], standard normal times `scale`."""

        def draw(indices: jax.Array) -> jax.Array:
            return self._jitted.draw_x_T(key, indices, scale, image_shape=image_shape)

        return self._run(draw, np.arange(num))

    def _run(self, fn: Callable, *arrays: Any, size: int | None = None) -> Any:
        return batching.run(fn, *arrays, size=size or self.batch_size, mesh=self._mesh)


def _encode(
    networks: Networks,
    variables: dict,
    images: jax.Array,
    key: jax.Array,
    indices: jax.Array,
    *,
    sample: bool,
) -> jax.Array:
    code = networks.encode(variables, to_float(images))
    if not sample:
        return code.mean
    keys = rngs.per_example(key, indices)
    return code.sample(integrate.example_noise_fn(keys, (networks.latent_dim,))(0))


def _posterior(networks: Networks, variables: dict, images: jax.Array):
    code = networks.encode(variables, to_float(images))
    return code.mean, code.sigma


def _endpoint(networks: Networks, variables: dict, z: jax.Array) -> jax.Array:
    return networks.endpoint(variables, z)


def _denoise(
    networks: Networks, variables: dict, x_t: jax.Array, at: At, x_T: jax.Array, z: jax.Array
) -> jax.Array:
    def network_fn(x: jax.Array, c_noise: jax.Array, z: jax.Array) -> jax.Array:
        return networks.network(variables, x, c_noise, z)

    return make_denoiser(network_fn)(x_t, at, x_T, z)


def _decode(
    networks: Networks,
    variables: dict,
    x_T: jax.Array,
    z: jax.Array,
    key: jax.Array,
    indices: jax.Array,
    table: Table,
    *,
    keep_path: bool,
):
    keys = rngs.per_example(key, indices)
    x_0, states = integrate.integrate(
        lambda x_t, at, x_T: _denoise(networks, variables, x_t, at, x_T, z),
        x_T,
        table,
        integrate.example_noise_fn(keys, x_T.shape[1:]),
        keep_path=keep_path,
    )
    return x_0 if states is None else (x_0, jnp.moveaxis(states, 0, 1))


def _invert(networks: Networks, variables: dict, x: jax.Array, z: jax.Array, table: Table):
    def denoise_fn(x_t: jax.Array, at: At, x_T: jax.Array) -> jax.Array:
        return _denoise(networks, variables, x_t, at, x_T, z)

    return integrate.integrate(denoise_fn, x, table, clip=False)[0]


def _draw_x_T(
    key: jax.Array, indices: jax.Array, scale: float, *, image_shape: tuple[int, ...]
) -> jax.Array:
    """Samples x_T from its own stream, so that it is independent of the noise of samplers."""
    keys = jax.vmap(lambda k: rngs.stream(k, "x_T"))(rngs.per_example(key, indices))
    return jnp.float32(scale) * integrate.example_noise_fn(keys, image_shape)(0)
