"""Runs the table of coefficients of any sampler as one loop on the device."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dbae_jax.bridge.preconditioning import At
from dbae_jax.sampling.tables import Table

# (x_t [B, H, W, C], at with scalar entries, x_T [B, H, W, C]) -> estimate of x_0 [B, H, W, C]; the
# function already holds z.
BoundDenoiseFn = Callable[[jax.Array, At, jax.Array], jax.Array]

# index of a random draw -> standard normal noise [B, H, W, C]
NoiseFn = Callable[[jax.Array | int], jax.Array]


class Sample(NamedTuple):
    """The result of a sampler.

    Attributes:
      x_0: sampled images [B, H, W, C], in [-1, 1].
      path: states along the trajectory from x_T to x_0, [S, B, H, W, C], or None.
      times: times of the states, [S].
      nfe: number of network evaluations.
    """

    x_0: jax.Array | np.ndarray
    path: jax.Array | np.ndarray | None
    times: np.ndarray
    nfe: int

    def __repr__(self) -> str:
        """Returns the shapes instead of all values, which would fill a notebook."""
        path = None if self.path is None else list(self.path.shape)
        return (
            f"Sample(x_0: {list(self.x_0.shape)} {self.x_0.dtype}, path: {path}, "
            f"times: {len(self.times)} from {self.times[0]:g} to {self.times[-1]:g}, "
            f"nfe: {self.nfe})"
        )


def integrate(
    denoise_fn: BoundDenoiseFn,
    x_T: jax.Array,
    table: Table,
    noise_fn: NoiseFn | None = None,
    *,
    num_rows: jax.Array | int | None = None,
    keep_path: bool = False,
    clip: bool = True,
) -> tuple[jax.Array, jax.Array | None]:
    """Integrates from x_T to x_0 with a sampler's table: one loop, to be called inside jit.

    With a table of `tables.inversion_table` it integrates in the other direction, from a state
    near x_0 to a Gaussian x_T.

    Args:
      denoise_fn: the denoiser, with z already bound. Its estimate is clipped to [-1, 1] here.
      x_T: state at which the integration starts, [B, H, W, C]; also the x_T of the denoiser and of
        the table's terms. With `tables.inversion_table`, a state near x_0 takes its place.
      table: coefficients of a sampler. The table may be traced: a second grid of the same length
        does not compile again.
      noise_fn: function that returns the i-th noise; None for tables without noise.
      num_rows: how many rows to run. Default: all. It may be traced, so that one program runs
        every number of steps; it can then not be differentiated in reverse mode.
      keep_path: whether to return the state after every row.
      clip: whether to clip the final state to [-1, 1]. Images need this; a Gaussian x_T must not
        be clipped.

    Returns:
      The final state [B, H, W, C], and the states after every row [NFE, B, H, W, C] or None. Rows
      that were not run have states of 0.
    """
    rows = jax.tree.map(lambda a: jnp.asarray(a, x_T.dtype if a.dtype.kind == "f" else None), table)

    def step(i, carry):
        (x, saved, D1, D2), path = carry
        row = jax.tree.map(lambda column: column[i], rows)
        denoised = jnp.clip(denoise_fn(x, row.at, x_T), -1, 1)
        move = row.w_x * (x - x_T) + row.w_xT * x_T + row.w_D * denoised
        if row.w_D1 is not None:
            move = move + row.w_D1 * D1
        if row.w_D2 is not None:
            move = move + row.w_D2 * D2
        new = (x if row.from_saved is None else jnp.where(row.from_saved, saved, x)) + move
        if row.w_noise is not None:
            new = new + row.w_noise * noise_fn(row.noise_index).astype(x.dtype)
        state = (
            new,
            None if row.from_saved is None else x + 0.5 * move,
            None if row.w_D1 is None else denoised,
            None if row.w_D2 is None else D1,
        )
        return state, None if path is None else path.at[i].set(new)

    used = (True, table.from_saved is not None, table.w_D1 is not None, table.w_D2 is not None)
    first: Any = tuple(x_T if use else None for use in used)
    path = jnp.zeros((table.nfe, *x_T.shape), x_T.dtype) if keep_path else None
    num_rows = table.nfe if num_rows is None else num_rows
    (x, *_), path = lax.fori_loop(0, num_rows, step, (first, path))
    return jnp.clip(x, -1, 1) if clip else x, path


def example_noise_fn(keys: jax.Array, image_shape: tuple[int, ...]) -> NoiseFn:
    """Returns a noise function with one key per example.

    The noise of an image, and so the image, does not depend on the rest of its batch.

    Args:
      keys: random keys [B], for instance of `rngs.per_example`.
      image_shape: shape of the noise of one example, for images (H, W, C).
    """

    def noise_fn(index: jax.Array | int) -> jax.Array:
        return jax.vmap(lambda k: jax.random.normal(jax.random.fold_in(k, index), image_shape))(
            keys
        )

    return noise_fn


def path_states(x_T: Any, states: Any, table: Table, *, clip: bool = True) -> jax.Array:
    """Returns the trajectory [S, B, H, W, C].

    Args:
      x_T: the state at which the integration started, [B, H, W, C].
      states: the state after every row of the table, [NFE, B, H, W, C].
      table: coefficients of the sampler; `table.on_path` selects the states of the trajectory.
      clip: whether to clip the states to [-1, 1].
    """
    path = jnp.concatenate([x_T[None], states[np.flatnonzero(table.on_path)]])
    return jnp.clip(path, -1, 1) if clip else path
