"""Sampling with any denoiser, as described by a `Plan`, without a model."""

import jax
import jax.numpy as jnp

from dbae_jax.bridge.preconditioning import Bridge
from dbae_jax.runtime import rngs
from dbae_jax.sampling.integrate import (
    BoundDenoiseFn,
    Sample,
    example_noise_fn,
    integrate,
    path_states,
)
from dbae_jax.sampling.plan import Plan


def sample(
    denoise_fn: BoundDenoiseFn,
    x_T: jax.Array,
    plan: Plan,
    key: jax.Array | None = None,
    *,
    bridge: Bridge,
    keep_path: bool = False,
) -> Sample:
    """Returns x_0, sampled from x_T with the sampler of a plan.

    Args:
      denoise_fn: (x_t, at, x_T) -> estimate of x_0; the function already holds z.
      x_T: endpoints [B, H, W, C].
      plan: sampler, time grid and their settings.
      key: random key of the noise of churn, eta and boot, or keys [B]. The noise of an image
        depends on the key of this image (with one key, on the index of the image), not on the rest
        of the batch.
      bridge: schedule and scalings.
      keep_path: whether to return x_T and the state after every step, clipped to [-1, 1].

    Raises:
      ValueError: if `Plan.table` refuses the plan, or if the plan needs a key and none is given.
    """
    if plan.needs_noise and key is None:
        raise ValueError("churn, eta and boot draw noise: pass a key.")
    table, noise_fn = plan.table(bridge), None
    if table.w_noise is not None:
        keys = rngs.per_example(key, jnp.arange(x_T.shape[0]))
        noise_fn = example_noise_fn(keys, x_T.shape[1:])
    x_0, states = integrate(denoise_fn, x_T, table, noise_fn, keep_path=keep_path)
    path = path_states(x_T, states, table) if keep_path else None
    return Sample(x_0, path, table.path_times, table.nfe)
