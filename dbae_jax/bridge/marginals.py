"""Closed forms of the diffusion bridge from x_0 to x_T: marginals, lambda_t and Doob's h-transform.

A diffusion bridge is a linear diffusion that is conditioned on its endpoint x_T. Doob's h-transform
(`h_transform`) is the drift that this condition adds. Every function here is a pure function of t
and of arrays; none depends on a network.

Letters of the whole project:
  B, H, W, C: batch size, height, width, channels. D: latent dimension. N: number of steps.
  x_0, x_t, x_T: [B, H, W, C]; clean image, state at time t, endpoint. Pixels are in [-1, 1].
  t: times in [0, T], of shape [B] or a scalar.
  a_t, s_t, SNR_t, r_t: see `schedules`.

The bridge marginal is q(x_t | x_0, x_T) = N(A x_T + B x_0, C I) with
A = r a_t / a_T, B = a_t (1 - r), C = s_t^2 (1 - r), r = SNR_T / SNR_t.

Source: DBAE, section 3.1 and eqs. (7)-(10); DDBM (Zhou et al., 2024), eqs. (6)-(8).
"""

from typing import Generic, NamedTuple

import numpy as np

from dbae_jax.bridge.schedules import Array, Schedule, namespace


class Marginal(NamedTuple, Generic[Array]):
    """Coefficients of q(x_t | x_0, x_T), each with the shape of t; C is a variance."""

    A: Array
    B: Array
    C: Array


def expand(coefficient: Array, x: Array) -> Array:
    """Returns a coefficient of shape [B] with trailing axes of length 1, to scale x: [B, ...].

    A scalar coefficient is returned unchanged.

    Raises:
      ValueError: if the coefficient is neither a scalar nor of shape [B].
    """
    if np.ndim(coefficient) == 0:
        return coefficient
    if coefficient.shape != x.shape[:1]:
        raise ValueError(
            f"t must be a scalar or of shape [B] = [{x.shape[0]}], got shape {coefficient.shape}."
        )
    return coefficient.reshape(coefficient.shape + (1,) * (x.ndim - 1))


def marginal_coefficients(schedule: Schedule, t: Array) -> Marginal[Array]:
    """Returns A, B, C of the bridge marginal at t."""
    gap = schedule.snr_gap(t)
    return Marginal(
        A=schedule.snr_ratio(t) * schedule.alpha_ratio(t),
        B=schedule.alpha(t) * gap,
        C=schedule.variance(t) * gap,
    )


def has_gaussian_endpoint(schedule: Schedule) -> bool:
    """Returns whether x_T is Gaussian noise, independent of z (`schedules.Free`, as in DiffAE).

    Then A = 0 at every t, and C_T > 0. For a bridge to a decoded x_T, A_T = 1 and C_T = 0.
    """
    return schedule.snr_end() == 0


def lambda_of(schedule: Schedule, t: Array) -> Array:
    """Returns lambda_t = log(B_t / sqrt(C_t)), the time variable of multistep samplers.

    lambda_t rises to infinity as t falls to 0. At T it is -infinity for a decoded x_T, where
    C_T = 0 and B_T = 0, and finite for a Gaussian x_T. B^2 / C = SNR_t - SNR_T: the information
    about x_0 that x_t adds to x_T.
    """
    log = namespace(t).log
    return log(schedule.alpha(t)) - 0.5 * log(schedule.variance(t)) + 0.5 * log(schedule.snr_gap(t))


def marginal_mean(schedule: Schedule, t: Array, x_0: Array, x_T: Array) -> Array:
    """Returns A x_T + B x_0, the mean of q(x_t | x_0, x_T): [B, H, W, C]."""
    A, B, _ = marginal_coefficients(schedule, t)
    return expand(A, x_T) * x_T + expand(B, x_0) * x_0


def marginal_sample(schedule: Schedule, t: Array, x_0: Array, x_T: Array, noise: Array) -> Array:
    """Returns x_t ~ q(x_t | x_0, x_T) for standard normal `noise` of the shape of x_0."""
    C = marginal_coefficients(schedule, t).C
    return marginal_mean(schedule, t, x_0, x_T) + expand(C**0.5, x_0) * noise


def h_transform(schedule: Schedule, t: Array, x_t: Array, x_T: Array) -> Array:
    """Returns h = grad_{x_t} log p(x_T | x_t) of Doob's h-transform: [B, H, W, C].

    g^2 h is the drift that leads the diffusion to x_T. h diverges at t = T.

    h = ((a_t/a_T) x_T - x_t) / (s_t^2 (SNR_t/SNR_T - 1)). The code computes the denominator as
    a_t^2 (1 - r) / SNR_T, which is the same number and is regular at t = 0.
    """
    weight = schedule.snr_end() / (schedule.alpha(t) ** 2 * schedule.snr_gap(t))
    return expand(weight, x_t) * (expand(schedule.alpha_ratio(t), x_T) * x_T - x_t)
