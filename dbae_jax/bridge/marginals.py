"""The diffusion bridge from x_0 to x_T: Doob's h-transform of a linear diffusion, in closed form.

Pure functions of t and of arrays; nothing here knows about networks. Letters, project-wide:
B batch, H, W, C height, width, channels, D latent width, N steps. x_0, x_t, x_T: [B, H, W, C],
pixels in [-1, 1]; t: times in [0, T], [B] or a scalar; a_t, s_t, SNR_t, r_t: see `schedules`.

The bridge marginal is q(x_t | x_0, x_T) = N(A x_T + B x_0, C I) with
A = r a_t / a_T, B = a_t (1 - r), C = s_t^2 (1 - r), r = SNR_T / SNR_t.

Source: DBAE, section 3.1 and eqs. (7)-(10); DDBM (Zhou et al., 2024), eqs. (6)-(8).
"""

from typing import NamedTuple

import jax
import numpy as np

from dbae_jax.bridge.schedules import Array, Schedule, namespace


class Marginal(NamedTuple):
    """Coefficients of q(x_t | x_0, x_T), each with the shape of t; C is a variance."""

    A: jax.Array
    B: jax.Array
    C: jax.Array


def expand(coefficient: Array, x: Array) -> Array:
    """Gives a coefficient of shape [B] trailing axes of length 1, to scale x: [B, ...].

    Raises:
      ValueError: unless the coefficient is a scalar or has one entry an example.
    """
    if np.ndim(coefficient) == 0:
        return coefficient
    if coefficient.shape != x.shape[:1]:
        raise ValueError(
            f"t must be a scalar or of shape [B] = [{x.shape[0]}], got shape {coefficient.shape}."
        )
    return coefficient.reshape(coefficient.shape + (1,) * (x.ndim - 1))


def marginal_coefficients(schedule: Schedule, t: Array) -> Marginal:
    """Returns A, B, C of the bridge marginal at t."""
    gap = schedule.snr_gap(t)
    return Marginal(
        A=schedule.snr_ratio(t) * schedule.alpha_ratio(t),
        B=schedule.alpha(t) * gap,
        C=schedule.variance(t) * gap,
    )


def is_free(schedule: Schedule) -> bool:
    """Whether x_T is free (`schedules.Free`): its marginal has width, and A = 0 at every t."""
    return schedule.snr_end() == 0


def lambda_of(schedule: Schedule, t: Array) -> Array:
    """Returns lambda_t = log(B / sqrt(C)): -infinity at a pinned T, rising to infinity at 0.

    The clock of multistep samplers: B^2 / C = SNR_t - SNR_T, the signal that x_t adds to x_T.
    """
    log = namespace(t).log
    return log(schedule.alpha(t)) - 0.5 * log(schedule.variance(t)) + 0.5 * log(schedule.snr_gap(t))


def marginal_mean(schedule: Schedule, t: Array, x_0: Array, x_T: Array) -> Array:
    """Returns A x_T + B x_0, the mean of q(x_t | x_0, x_T)."""
    A, B, _ = marginal_coefficients(schedule, t)
    return expand(A, x_T) * x_T + expand(B, x_0) * x_0


def marginal_sample(schedule: Schedule, t: Array, x_0: Array, x_T: Array, noise: Array) -> Array:
    """Returns x_t ~ q(x_t | x_0, x_T) for standard normal `noise` of the shape of x_0."""
    C = marginal_coefficients(schedule, t).C
    return marginal_mean(schedule, t, x_0, x_T) + expand(C**0.5, x_0) * noise


def h_transform(schedule: Schedule, t: Array, x_t: Array, x_T: Array) -> Array:
    """Returns h = grad_{x_t} log p(x_T | x_t), the drift that pins the end. Diverges at t = T.

    ((a_t/a_T) x_T - x_t) / (s_t^2 (SNR_t/SNR_T - 1)), where s_t^2 (SNR_t/SNR_T - 1) =
    a_t^2 (1 - r) / SNR_T: regular at t = 0.
    """
    weight = schedule.snr_end() / (schedule.alpha(t) ** 2 * schedule.snr_gap(t))
    return expand(weight, x_t) * (expand(schedule.alpha_ratio(t), x_T) * x_T - x_t)
