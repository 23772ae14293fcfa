"""How far the entries of z depend on each other: an estimate from one batch of codes."""

import math

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp


def total_correlation(mean: jax.Array, sigma: jax.Array, z: jax.Array) -> jax.Array:
    """Estimates KL(q(z) || prod_d q(z_d)) of the aggregate posterior q(z) = E q(z | x_0), in nats.

    q(z) and its marginals are taken for mixtures of the batch's own posteriors, one for each
    example. The estimate tends to the total correlation as the batch grows; in a small one it is
    too high, for an example's own posterior weighs 1 / B in the mixture instead of 1 / N (tests
    measure it).

    beta-TCVAE's minibatch-weighted estimate divides these mixtures, D marginals and one joint, by
    N more, N the size of the data set. That adds the constant (D - 1) log N, which has no gradient
    and is no correlation: it is left out, and with it N.

    Args:
      mean: [B, D], of q(z | x_0).
      sigma: [B, D], its standard deviations.
      z: [B, D], drawn from it.

    Returns:
      A scalar.

    Source: Chen et al. (2018), "Isolating Sources of Disentanglement in VAEs", eq. (4) and S3.
    """
    count, dim = z.shape
    # [i, j, d]: log q(z_d of example i | example j)
    scaled = (z[:, None] - mean) / sigma
    logs = -0.5 * scaled**2 - jnp.log(sigma) - 0.5 * math.log(2 * math.pi)
    joint = logsumexp(logs.sum(axis=-1), axis=1)
    marginals = logsumexp(logs, axis=1).sum(axis=-1)
    return jnp.mean(joint - marginals) + (dim - 1) * math.log(count)
