"""Consistency training: the U-Net learns to jump from any state of the bridge to the image.

The denoiser of a trained model predicts the mean of all images that fit its input, and a mean is
blurred. A consistency function predicts the image at the end of the path of the probability-flow
ODE through the state. Training compares its images at two times, without a teacher: the two
states have the same image and noise. Averaged over all images and noises that lead to the state at
the later time, the step between them is that of the ODE, with an error of second order in the gap
between the times. The gap shrinks from stage to stage. The distance of the training has its minimum
near the geometric median of the targets, which is their mean if they are symmetric around it.

Encoder and endpoint decoder must be frozen, so that latent codes stay those of the trained model.

Sources: CDBM (He et al., 2024) for bridges; ECT (Geng et al., 2024) for the shrinking gap.
"""

import math
from typing import NamedTuple, Self

import jax
import jax.numpy as jnp

from dbae_jax.bridge.preconditioning import Bridge
from dbae_jax.bridge.schedules import Schedule
from dbae_jax.configuration.sections import DistillConfig
from dbae_jax.training.losses import Draws, Endpoint, LossTerms, Networks, denoised

HUBER = 5.4e-4  # constant of the distance, per square root of the number of pixel values
LATEST = 0.95  # times below T are at most this fraction of T


class Gaps(NamedTuple):
    """How the gaps t - r shrink; see `earlier_times`.

    Attributes:
      q: factor by which gaps shrink from stage to stage.
      k: the gap relative to t is 1 + k/2 times as large near t = 0 as far from it.
      b: how fast this factor falls with t.
      stages: number of stages.
      num_steps: number of training steps of all stages together.
    """

    q: float
    k: float
    b: float
    stages: int
    num_steps: int

    @classmethod
    def of(cls, section: DistillConfig) -> Self:
        """Returns the gaps that the section `distill` of a config sets."""
        return cls(*(getattr(section, name) for name in cls._fields))


def earlier_times(gaps: Gaps, schedule: Schedule, t: jax.Array, step: jax.Array) -> jax.Array:
    """Returns the earlier time r: [B] of every t: [B], which approaches t from stage to stage.

    r = t (1 - n(t) / q^stage), n(t) = 1 + k sigmoid(-b t / T), with stages from 1, and 0 where that
    is below t_min.

    Args:
      gaps: how the gaps shrink.
      schedule: noise schedule, with t_min and T.
      t: times in (0, T].
      step: training step, from 0.
    """
    stage = 1 + jnp.minimum(step * gaps.stages // gaps.num_steps, gaps.stages - 1)
    n = 1 + gaps.k * jax.nn.sigmoid(-gaps.b * t / schedule.t_max)
    r = t * (1 - n / gaps.q ** stage.astype(t.dtype))
    return jnp.where(r > schedule.t_min, r, 0.0)


def with_earlier_times(draws: Draws, bridge: Bridge, gaps: Gaps, step: jax.Array) -> Draws:
    """Returns draws with the times t of consistency training, and the earlier times r.

    A time t below T is mapped linearly from [t_min, T] to [t_min, `LATEST` T]. The times below T at
    which the sampler evaluates the network (`grids.near_end`) lie inside this range.
    """
    t_min, T = bridge.schedule.t_min, bridge.schedule.t_max
    lower = t_min + (draws.t - t_min) * (LATEST * T - t_min) / (T - t_min)
    t = jnp.where(draws.t < T, lower, T)
    return draws._replace(t=t, r=earlier_times(gaps, bridge.schedule, t, step))


def consistency_loss(
    networks: Networks,
    bridge: Bridge,
    variables: dict,
    x_0: jax.Array,
    codes: Endpoint,
    draws: Draws,
) -> LossTerms:
    """Returns the pseudo-Huber distance of the U-Net's images at t and at r, divided by t - r.

    The image at r is the target: it has no gradient. Where r = 0 or t = T it is x_0 itself. So the
    image at T is near the mean of the images (near their geometric median), which keeps one
    evaluation accurate. Both states have the same noise, and both passes the same dropout mask. The
    distance of an example is sqrt(|difference|^2 + c^2) - c over all its pixels (pseudo-Huber).

    Args:
      networks: the networks, as functions of `variables`.
      bridge: schedule and scalings.
      variables: {"params", "stats"}.
      x_0: images [B, H, W, C], pixels in [-1, 1].
      codes: z and x_T of the images.
      draws: times t and r, and noise.

    Source: CDBM (He et al., 2024); distance of iCT (Song and Dhariwal, 2023).
    """
    assert draws.r is not None

    def image_at(variables: dict, t: jax.Array) -> jax.Array:
        return denoised(networks, bridge, variables, x_0, codes, draws, t)

    has_earlier = (draws.r > 0) & (draws.t < bridge.schedule.t_max)
    predicted = image_at(variables, draws.t)
    held = jax.lax.stop_gradient(variables)
    target = image_at(held, jnp.where(has_earlier, draws.r, bridge.schedule.t_min))
    target = jax.lax.stop_gradient(jnp.where(has_earlier[:, None, None, None], target, x_0))
    c = HUBER * math.sqrt(math.prod(x_0.shape[1:]))
    square = jnp.sum((predicted - target) ** 2, axis=(1, 2, 3))
    distance = jnp.sqrt(square + c**2) - c
    error = jnp.mean((predicted - x_0) ** 2, axis=(1, 2, 3))
    return LossTerms(distance / (draws.t - draws.r), error, codes.z, codes.stats)
