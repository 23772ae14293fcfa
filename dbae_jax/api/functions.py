"""The pure functions of a model on one batch, which `programs` compiles and `apply` offers.

Nearly every function takes the networks and their variables. Noise comes from one key per example.
`rngs.per_example` makes these keys from one key and the places of the examples in the whole input.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from dbae_jax.bridge.preconditioning import At, make_denoiser
from dbae_jax.data.images import to_float
from dbae_jax.models.autoencoder import Networks
from dbae_jax.runtime import rngs
from dbae_jax.sampling import integrate
from dbae_jax.sampling.tables import Table


def encode(
    networks: Networks,
    variables: dict,
    images: jax.Array,
    key: jax.Array,
    indices: jax.Array | np.ndarray,
    *,
    sample: bool,
) -> jax.Array:
    """Returns the mean of q(z | x_0), or a sample of it: [B, D] for images [B, H, W, C]."""
    code = networks.encode(variables, to_float(images))
    if not sample:
        return code.mean
    keys = rngs.per_example(key, indices)
    return code.sample(integrate.example_noise_fn(keys, (networks.latent_dim,))(0))


def posterior(
    networks: Networks, variables: dict, images: jax.Array
) -> tuple[jax.Array, jax.Array | None]:
    """Returns the mean and the standard deviation (or None) of q(z | x_0): [B, D] each."""
    code = networks.encode(variables, to_float(images))
    return code.mean, code.sigma


def endpoint(networks: Networks, variables: dict, z: jax.Array) -> jax.Array:
    """Returns the decoded x_T: [B, H, W, C] for z: [B, D]."""
    return networks.endpoint(variables, z)


def denoise(
    networks: Networks, variables: dict, x_t: jax.Array, at: At, x_T: jax.Array, z: jax.Array
) -> jax.Array:
    """Returns the denoiser's estimate of x_0: [B, H, W, C]; `at` holds scalars or arrays [B]."""

    def network_fn(x: jax.Array, c_noise: jax.Array, z: jax.Array) -> jax.Array:
        return networks.network(variables, x, c_noise, z)

    return make_denoiser(network_fn)(x_t, at, x_T, z)


def decode(
    networks: Networks,
    variables: dict,
    x_T: jax.Array,
    z: jax.Array,
    keys: jax.Array,
    table: Table,
    num_rows: jax.Array | int | None = None,
    *,
    keep_path: bool = False,
    remat: bool = False,
) -> tuple[jax.Array, jax.Array | None]:
    """Runs a sampler from x_T: [B, H, W, C], with z: [B, D].

    Args:
      networks: networks of the model.
      variables: their weights and running statistics.
      x_T: endpoints to start from.
      z: latent codes.
      keys: keys of the examples, [B].
      table: coefficients of the sampler.
      num_rows: how many rows of the table to run; see `integrate.integrate`.
      keep_path: whether to keep the states after every row.
      remat: whether a gradient computes the network's activations again, evaluation by evaluation,
        instead of keeping those of all evaluations in memory.

    Returns:
      Images [B, H, W, C], and the states [B, NFE, H, W, C] or None.
    """
    denoise_fn = functools.partial(denoise, networks, variables, z=z)
    x_0, states = integrate.integrate(
        jax.checkpoint(denoise_fn) if remat else denoise_fn,
        x_T,
        table,
        integrate.example_noise_fn(keys, x_T.shape[1:]),
        num_rows=num_rows,
        keep_path=keep_path,
    )
    return x_0, None if states is None else jnp.moveaxis(states, 0, 1)


def invert(
    networks: Networks, variables: dict, x: jax.Array, z: jax.Array, table: Table
) -> jax.Array:
    """Integrates the ODE from states x at t_min to x_T: [B, H, W, C]; see `inversion`."""
    denoise_fn = functools.partial(denoise, networks, variables, z=z)
    return integrate.integrate(denoise_fn, x, table, clip=False)[0]


def draw_x_T(
    key: jax.Array, indices: jax.Array | np.ndarray, scale: float, *, image_shape: tuple[int, ...]
) -> jax.Array:
    """Samples Gaussian x_T: float32 [n, H, W, C], with standard deviation `scale`.

    They come from a stream of their own, independent of the noise of samplers.

    Args:
      key: one key, or the keys of all examples.
      indices: [n], places of the examples in the whole input.
      scale: s_T, see `inversion.end_scale`.
      image_shape: (H, W, C).
    """
    keys = jax.vmap(lambda k: rngs.stream(k, "x_T"))(rngs.per_example(key, indices))
    return jnp.float32(scale) * integrate.example_noise_fn(keys, image_shape)(0)
