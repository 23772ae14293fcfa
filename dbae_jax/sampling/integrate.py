"""Runs a sampler's table of coefficients: one scan on the device, whatever the sampler."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dbae_jax.bridge.preconditioning import At
from dbae_jax.sampling.tables import Table

# (x_t [B, H, W, C], at of scalars, x_T [B, H, W, C]) -> estimate of x_0, with z already bound
BoundDenoiseFn = Callable[[jax.Array, At, jax.Array], jax.Array]


# index of a noise -> standard normal [B, H, W, C]
NoiseFn = Callable[[jax.Array], jax.Array]


class Sample(NamedTuple):
    """What a sampler gives.

    x_0: [B, H, W, C] in [-1, 1]. path: [S, B, H, W, C], states from x_T to x_0, or None. times:
    [S], those of the states. nfe: network evaluations.
    """

    x_0: jax.Array
    path: jax.Array | None
    times: np.ndarray
    nfe: int


def integrate(
    denoise_fn: BoundDenoiseFn,
    x_T: jax.Array,
    table: Table,
    noise_fn: NoiseFn | None = None,
    *,
    keep_path: bool = False,
    clip: bool = True,
) -> tuple[jax.Array, jax.Array | None]:
    """Runs a table from x_T: one `lax.scan`, to be called inside jit.

    Args:
      denoise_fn: the denoiser with z bound; its answer is clipped to [-1, 1] here.
      x_T: [B, H, W, C]; of a table that walks up to a free x_T, the state that it starts from.
      table: of a sampler; may be traced, so other grids of the same length compile nothing.
      noise_fn: gives the i-th noise; None for tables without noise.
      keep_path: also returns the state after every row.
      clip: clips the end to [-1, 1], which images need and noise must not have.

    Returns:
      The end, x_0 [B, H, W, C], and the states [NFE, B, H, W, C] or None.
    """

    def body(carry, row):
        x, saved, D1, D2 = carry
        denoised = jnp.clip(denoise_fn(x, row.at, x_T), -1, 1)
        move = row.w_x * (x - x_T) + row.w_xT * x_T + row.w_D * denoised
        if row.w_D1 is not None:
            move = move + row.w_D1 * D1
        if row.w_D2 is not None:
            move = move + row.w_D2 * D2
        new = (x if row.from_saved is None else jnp.where(row.from_saved, saved, x)) + move
        if row.w_noise is not None:
            new = new + row.w_noise * noise_fn(row.noise_index)
        carry = (
            new,
            None if row.from_saved is None else x + 0.5 * move,
            None if row.w_D1 is None else denoised,
            None if row.w_D2 is None else D1,
        )
        return carry, new if keep_path else None

    rows = jax.tree.map(lambda a: a.astype(x_T.dtype) if a.dtype.kind == "f" else a, table)
    used = (True, table.from_saved is not None, table.w_D1 is not None, table.w_D2 is not None)
    first = tuple(x_T if use else None for use in used)
    (x, *_), path = lax.scan(body, first, rows)
    return jnp.clip(x, -1, 1) if clip else x, path


def example_noise_fn(keys: jax.Array, image_shape: tuple[int, ...]) -> NoiseFn:
    """Returns noises from one key an example: an image does not depend on its batch.

    Args:
      keys: [B] keys, for instance of `rngs.per_example`.
      image_shape: (H, W, C).
    """

    def noise_fn(index: jax.Array) -> jax.Array:
        return jax.vmap(lambda k: jax.random.normal(jax.random.fold_in(k, index), image_shape))(
            keys
        )

    return noise_fn


def path_states(x_T: jax.Array, states: jax.Array, table: Table) -> jax.Array:
    """Returns the trajectory [S, B, H, W, C]: x_T, then the states that the table puts on it."""
    return jnp.clip(jnp.concatenate([x_T[None], states[np.flatnonzero(table.on_path)]]), -1, 1)
