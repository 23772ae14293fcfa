"""Preconditioning: what turns a raw network into a denoiser, and the weight of its loss.

D(x_t, t, x_T, z) = c_skip x_t + c_out F([c_in x_t, x_T], c_noise, z), with scalings that give the
network inputs and targets of unit variance under the assumed moments of pixels.

Source: DDBM (Zhou et al., 2024), eqs. (11)-(13), as DBAE trains with.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dbae_jax.bridge.marginals import expand, marginal_coefficients
from dbae_jax.bridge.schedules import Array, Schedule, namespace


class At(NamedTuple):
    """A time and the scalings there, each with the shape of t; weight is the loss's, 1 / c_out^2.

    A denoiser takes this in place of t: near T, float32 scalings of a float32 t can be off by
    percents (VE: T - t_0 = 1e-4, a unit in the last place of t_0 is 8e-6), so samplers have them
    from float64 on the host.
    """

    t: jax.Array
    c_skip: jax.Array
    c_out: jax.Array
    c_in: jax.Array
    c_noise: jax.Array
    weight: jax.Array


# (network input [B, H, W, 2C], c_noise [B], z [B, D]) -> F [B, H, W, C]
NetworkFn = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
# (x_t, at, x_T, z) -> estimate of x_0: the contract between network, loss and sampler
DenoiseFn = Callable[[jax.Array, At, jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Moments:
    """Assumed moments of pixels: std of data and of endpoints, and their covariance."""

    data_std: float = 0.5
    endpoint_std: float = 0.5
    covariance: float = 0.0


@dataclasses.dataclass(frozen=True)
class Bridge:
    """A schedule and the preconditioning on it: all that a loss or a sampler needs to know.

    `moments` None means no preconditioning: D = F, weight 1 (`vp_simple`, `ve_simple`).
    """

    schedule: Schedule
    moments: Moments | None = Moments()

    def at(self, t: Array) -> At:
        """Returns the scalings at t, in t's own precision.

        t: times in [t_min, T], of any shape; jax, or numpy for float64 on the host.
        """
        c_noise = 250 * namespace(t).log(t)
        if self.moments is None:
            one = namespace(t).ones_like(t)
            return At(t, c_skip=0 * one, c_out=one, c_in=one, c_noise=c_noise, weight=one)
        A, B, C = marginal_coefficients(self.schedule, t)
        data, end = self.moments.data_std**2, self.moments.endpoint_std**2
        cov = self.moments.covariance
        total = A**2 * end + B**2 * data + 2 * A * B * cov + C
        residual = A**2 * (end * data - cov**2) + data * C
        return At(
            t,
            c_skip=(B * data + A * cov) / total,
            c_out=(residual / total) ** 0.5,
            c_in=total**-0.5,
            c_noise=c_noise,
            weight=total / residual,
        )


def make_denoiser(network_fn: NetworkFn) -> DenoiseFn:
    """Wraps a raw network into D; its answer is unclipped.

    The answer's `at` holds scalars, or arrays of shape [B].
    """

    def denoise_fn(x_t: jax.Array, at: At, x_T: jax.Array, z: jax.Array) -> jax.Array:
        stacked = jnp.concatenate([expand(at.c_in, x_t) * x_t, x_T], axis=-1)
        output = network_fn(stacked, jnp.broadcast_to(at.c_noise, x_t.shape[:1]), z)
        return expand(at.c_skip, x_t) * x_t + expand(at.c_out, x_t) * output

    return denoise_fn
