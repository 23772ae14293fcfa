"""Reference formulas: scores and drifts of the bridge's SDEs and of its probability-flow ODE.

Samplers do not call these formulas: they have the same drifts as tables of coefficients.
"""

from dbae_jax.bridge.marginals import expand, h_transform, marginal_coefficients, marginal_mean
from dbae_jax.bridge.schedules import Array, Schedule


def score_from_x_0(schedule: Schedule, t: Array, x_t: Array, x_T: Array, x_0: Array) -> Array:
    """Returns grad log q(x_t | x_0, x_T) = -(x_t - A x_T - B x_0) / C.

    With the denoised image instead of x_0, the result is the score of the model.
    """
    C = marginal_coefficients(schedule, t).C
    return (marginal_mean(schedule, t, x_0, x_T) - x_t) / expand(C, x_t)


def x_0_from_score(schedule: Schedule, t: Array, x_t: Array, x_T: Array, score: Array) -> Array:
    """Returns the x_0 for which the bridge has this score: the inverse of `score_from_x_0`."""
    A, B, C = marginal_coefficients(schedule, t)
    return (x_t - expand(A, x_T) * x_T + expand(C, x_t) * score) / expand(B, x_t)


def bridge_drift(schedule: Schedule, t: Array, x_t: Array, x_T: Array) -> Array:
    """Returns f x_t + g^2 h, the drift of the forward bridge SDE dx = (.) dt + g dw."""
    h = h_transform(schedule, t, x_t, x_T)
    g2 = schedule.diffusion_squared(t)
    return expand(schedule.drift(t), x_t) * x_t + expand(g2, x_t) * h


def reverse_sde_drift(schedule: Schedule, t: Array, x_t: Array, x_T: Array, score: Array) -> Array:
    """Returns f x_t - g^2 (score - h), the drift of the reverse SDE dx = (.) dt + g dw_bar.

    The reverse SDE is integrated from T to 0.
    """
    g2 = expand(schedule.diffusion_squared(t), x_t)
    return bridge_drift(schedule, t, x_t, x_T) - g2 * score


def probability_flow_drift(
    schedule: Schedule, t: Array, x_t: Array, x_T: Array, score: Array
) -> Array:
    """Returns f x_t - g^2 (score/2 - h), the drift of the probability-flow ODE dx = (.) dt."""
    g2 = expand(schedule.diffusion_squared(t), x_t)
    return bridge_drift(schedule, t, x_t, x_T) - 0.5 * g2 * score
