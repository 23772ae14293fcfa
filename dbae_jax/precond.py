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

from dbae_jax.bridge import expand, marginal_coefficients
from dbae_jax.schedules import Array, Schedule, namespace

# (network input [B, H, W, 2C], c_noise [B], z [B, D]) -> F [B, H, W, C]
NetworkFn = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
# (x_t, t, x_T, z) -> estimate of x_0: the contract between network, loss and sampler
DenoiseFn = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]


class Scalings(NamedTuple):
    """c_skip, c_out, c_in and the loss weight 1 / c_out^2, each with the shape of t."""

    c_skip: jax.Array
    c_out: jax.Array
    c_in: jax.Array
    weight: jax.Array


@dataclasses.dataclass(frozen=True)
class MomentMatching:
    """Scalings from assumed moments: std of data and endpoint pixels, and their covariance."""

    data_std: float = 0.5
    endpoint_std: float = 0.5
    covariance: float = 0.0

    def __call__(self, schedule: Schedule, t: Array) -> Scalings:
        """Returns the scalings at t."""
        A, B, C = marginal_coefficients(schedule, t)
        data, end, cov = self.data_std**2, self.endpoint_std**2, self.covariance
        total = A**2 * end + B**2 * data + 2 * A * B * cov + C
        residual = A**2 * (end * data - cov**2) + data * C
        return Scalings(
            c_skip=(B * data + A * cov) / total,
            c_out=(residual / total) ** 0.5,
            c_in=total**-0.5,
            weight=total / residual,
        )


@dataclasses.dataclass(frozen=True)
class Plain:
    """No preconditioning: the network's output is the answer (`vp_simple`, `ve_simple`)."""

    def __call__(self, schedule: Schedule, t: Array) -> Scalings:
        """Returns c_skip 0 and everything else 1."""
        one = namespace(t).ones_like(t)
        return Scalings(c_skip=0 * one, c_out=one, c_in=one, weight=one)


def c_noise(t: Array) -> Array:
    """Returns 250 ln t, the network's time input."""
    return 250 * namespace(t).log(t)


@dataclasses.dataclass(frozen=True)
class Bridge:
    """A schedule and the scalings that go with it: all that a loss or a sampler needs to know."""

    schedule: Schedule
    scalings: MomentMatching | Plain

    def denoiser(self, network_fn: NetworkFn) -> DenoiseFn:
        """Wraps a raw network into D; the answer is unclipped.

        The answer takes t: [B] or a scalar, in [t_min, T], and computes in float32.
        """

        def denoise_fn(x_t: jax.Array, t: jax.Array, x_T: jax.Array, z: jax.Array) -> jax.Array:
            t = jnp.broadcast_to(t, x_t.shape[:1])
            c_skip, c_out, c_in, _ = self.scalings(self.schedule, t)
            stacked = jnp.concatenate([expand(c_in, x_t) * x_t, x_T], axis=-1)
            output = network_fn(stacked, c_noise(t), z)
            return expand(c_skip, x_t) * x_t + expand(c_out, x_t) * output

        return denoise_fn
