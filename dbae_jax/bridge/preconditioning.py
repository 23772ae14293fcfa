"""Preconditioning: the scalings that turn the U-Net F into a denoiser D, and the loss weight.

D(x_t, t, x_T, z) = c_skip x_t + c_out F([c_in x_t, x_T], c_noise, z). Under the assumed moments of
the pixels, the scaled input c_in x_t and the target of F have unit variance.

Source: DDBM (Zhou et al., 2024), eqs. (11)-(13), as DBAE trains with. c_noise is 250 ln t, as in
the code of DDBM; its paper has ln(t) / 4.
"""

import dataclasses
from collections.abc import Callable
from typing import Generic, NamedTuple

import jax
import jax.numpy as jnp

from dbae_jax.bridge.marginals import expand, marginal_coefficients
from dbae_jax.bridge.schedules import Array, Schedule, namespace


class At(NamedTuple, Generic[Array]):
    """A time t and the scalings at that time, each with the shape of t.

    `weight` is the weight of the loss, 1 / c_out^2.

    A denoiser takes an `At` instead of a bare t. Near T, scalings computed in float32 from a
    float32 t can be wrong by several percent: with VE, T - t_0 = 1e-4, and one unit in the last
    place of t_0 is 8e-6. Samplers therefore compute the scalings in float64 on the host.
    """

    t: Array
    c_skip: Array
    c_out: Array
    c_in: Array
    c_noise: Array
    weight: Array


# (network input [B, H, W, 2C], c_noise [B], z [B, D]) -> F [B, H, W, C]
NetworkFn = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
# (x_t, at, x_T, z) -> estimate of x_0 [B, H, W, C]. Loss and samplers use the network only in this
# form.
DenoiseFn = Callable[[jax.Array, At, jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Moments:
    """Assumed moments of pixels: std of x_0, std of x_T, and the covariance of x_0 and x_T."""

    data_std: float = 0.5
    endpoint_std: float = 0.5
    covariance: float = 0.0


@dataclasses.dataclass(frozen=True)
class Bridge:
    """A schedule with its preconditioning: everything that a loss or a sampler needs of the bridge.

    `moments=None` means no preconditioning: D = F, and the loss weight is 1 (the authors'
    `vp_simple` and `ve_simple`).
    """

    schedule: Schedule
    moments: Moments | None = Moments()

    def at(self, t: Array) -> At[Array]:
        """Returns t and the scalings at t, in the precision of t.

        Args:
          t: times in [t_min, T], of any shape: a jax array, or a numpy array for float64 on the
            host.
        """
        c_noise = 250 * namespace(t).log(t)
        if self.moments is None:
            one = namespace(t).ones_like(t)
            return At(t, c_skip=0 * one, c_out=one, c_in=one, c_noise=c_noise, weight=one)
        A, B, C = marginal_coefficients(self.schedule, t)
        data_var, endpoint_var = self.moments.data_std**2, self.moments.endpoint_std**2
        cov = self.moments.covariance
        x_t_var = A**2 * endpoint_var + B**2 * data_var + 2 * A * B * cov + C
        # residual / x_t_var is the variance of x_0 that remains after linear regression on x_t.
        residual = A**2 * (endpoint_var * data_var - cov**2) + data_var * C
        return At(
            t,
            c_skip=(B * data_var + A * cov) / x_t_var,
            c_out=(residual / x_t_var) ** 0.5,
            c_in=x_t_var**-0.5,
            c_noise=c_noise,
            weight=x_t_var / residual,
        )


def make_denoiser(network_fn: NetworkFn) -> DenoiseFn:
    """Returns the denoiser D of a network F. D does not clip its estimate of x_0.

    The entries of the denoiser's argument `at` are scalars or arrays of shape [B].
    """

    def denoise_fn(x_t: jax.Array, at: At, x_T: jax.Array, z: jax.Array) -> jax.Array:
        stacked = jnp.concatenate([expand(at.c_in, x_t) * x_t, x_T], axis=-1)
        output = network_fn(stacked, jnp.broadcast_to(at.c_noise, x_t.shape[:1]), z)
        return expand(at.c_skip, x_t) * x_t + expand(at.c_out, x_t) * output

    return denoise_fn
