"""Oracles: scores and drifts of the bridge's SDEs and ODE, which samplers have as tables."""

from dbae_jax.bridge.marginals import expand, h_transform, marginal_coefficients, marginal_mean
from dbae_jax.bridge.schedules import Array, Schedule


def score_from_x_0(schedule: Schedule, t: Array, x_t: Array, x_T: Array, x_0: Array) -> Array:
    """Returns grad log q(x_t | x_0, x_T) = -(x_t - A x_T - B x_0) / C.

    With the denoiser's answer in place of x_0 this is the model's score.
    """
    C = marginal_coefficients(schedule, t).C
    return (marginal_mean(schedule, t, x_0, x_T) - x_t) / expand(C, x_t)


def x_0_from_score(schedule: Schedule, t: Array, x_t: Array, x_T: Array, score: Array) -> Array:
    """Returns the x_0 whose bridge has this score: the inverse of `score_from_x_0`."""
    A, B, C = marginal_coefficients(schedule, t)
    return (x_t - expand(A, x_T) * x_T + expand(C, x_t) * score) / expand(B, x_t)


def bridge_drift(schedule: Schedule, t: Array, x_t: Array, x_T: Array) -> Array:
    """Returns f x_t + g^2 h, the drift of the forward bridge SDE dx = (.) dt + g dw."""
    h = h_transform(schedule, t, x_t, x_T)
    g2 = schedule.diffusion_squared(t)
    return expand(schedule.drift(t), x_t) * x_t + expand(g2, x_t) * h


def reverse_sde_drift(schedule: Schedule, t: Array, x_t: Array, x_T: Array, score: Array) -> Array:
    """Returns f x_t - g^2 (score - h), the drift of the reverse SDE, walked from T down to 0.

    Its noise term is g dw_bar.
    """
    g2 = expand(schedule.diffusion_squared(t), x_t)
    return bridge_drift(schedule, t, x_t, x_T) - g2 * score


def probability_flow_drift(
    schedule: Schedule, t: Array, x_t: Array, x_T: Array, score: Array
) -> Array:
    """Returns f x_t - g^2 (score/2 - h), the drift of the ODE with the bridge's marginals."""
    g2 = expand(schedule.diffusion_squared(t), x_t)
    return bridge_drift(schedule, t, x_t, x_T) - 0.5 * g2 * score
