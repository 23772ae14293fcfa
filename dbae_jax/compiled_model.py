"""The programs of a model as they run on a mesh, compiled once for all models of one shape."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dbae_jax import rngs, samplers, sharding
from dbae_jax.images import to_float
from dbae_jax.models.autoencoder import Networks
from dbae_jax.precond import At, make_denoiser
from dbae_jax.sampler_tables import Table

KEPT = 4  # models' programs


class Programs(NamedTuple):
    """Jitted functions of `variables` (or none) and a batch; it may be split over the mesh."""

    encode: Callable  # variables, images, key, indices, *, sample -> z
    posterior: Callable  # variables, images -> mean and scale of z (None if deterministic)
    endpoint: Callable  # variables, z -> x_T
    denoise: Callable  # variables, x_t, at, x_T, z -> x_0
    decode: Callable  # variables, x_T, z, key, indices, table, *, keep_path -> x_0[, states]
    invert: Callable  # variables, x, z, table -> x_T
    draw_x_T: Callable  # key, indices, scale, *, image_shape -> x_T


@functools.lru_cache(maxsize=KEPT)
def make_programs(networks: Networks, mesh: jax.sharding.Mesh | None) -> Programs:
    """Returns a model's programs; equal networks on the same mesh get the same ones.

    Args:
      networks: their weights are an argument of every program.
      mesh: devices that share a batch, each of which gets the whole answer; None: one device.
    """
    jit = functools.partial(
        jax.jit, out_shardings=None if mesh is None else sharding.replicated(mesh)
    )
    denoise = functools.partial(_denoise, networks)
    return Programs(
        encode=jit(functools.partial(_encode, networks), static_argnames="sample"),
        posterior=jit(functools.partial(_posterior, networks)),
        endpoint=jit(networks.endpoint),
        denoise=jit(denoise),
        decode=jit(functools.partial(_decode, denoise), static_argnames="keep_path"),
        invert=jit(functools.partial(_invert, denoise)),
        draw_x_T=jit(_draw_x_T, static_argnames="image_shape"),
    )


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
    return code.sample(samplers.example_noise_fn(keys, (networks.latent_dim,))(0))


def _posterior(networks: Networks, variables: dict, images: jax.Array):
    code = networks.encode(variables, to_float(images))
    return code.mean, code.sigma


def _denoise(
    networks: Networks, variables: dict, x_t: jax.Array, at: At, x_T: jax.Array, z: jax.Array
) -> jax.Array:
    return make_denoiser(functools.partial(networks.network, variables))(x_t, at, x_T, z)


def _decode(
    denoise: Callable,
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
    x_0, states = samplers.integrate(
        lambda x_t, at, x_T: denoise(variables, x_t, at, x_T, z),
        x_T,
        table,
        samplers.example_noise_fn(keys, x_T.shape[1:]),
        keep_path=keep_path,
    )
    return (x_0, jnp.moveaxis(states, 0, 1)) if keep_path else x_0


def _invert(denoise: Callable, variables: dict, x: jax.Array, z: jax.Array, table: Table):
    def denoise_fn(x_t, at, x_T):
        return denoise(variables, x_t, at, x_T, z)

    return samplers.integrate(denoise_fn, x, table, clip=False)[0]


def _draw_x_T(
    key: jax.Array, indices: jax.Array, scale: float, *, image_shape: tuple[int, ...]
) -> jax.Array:
    """Draws [n, H, W, C] from a stream of its own: samplers take other noises of these keys."""
    keys = jax.vmap(lambda k: rngs.stream(k, "x_T"))(rngs.per_example(key, indices))
    return jnp.float32(scale) * samplers.example_noise_fn(keys, image_shape)(0)
