"""Total correlation of latent codes, which measures how much the entries of z depend on each other.

The penalty of DBAE+TC is this estimate on each training batch.
"""

import math

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp


def total_correlation(mean: jax.Array, sigma: jax.Array, z: jax.Array) -> jax.Array:
    """Returns an estimate of KL(q(z) || prod_d q(z_d)), in nats, for q(z) = E q(z | x_0).

    q(z) and its marginals are replaced by mixtures of the B posteriors of the batch. The estimate
    tends to the total correlation as the batch grows. For a small batch it is too high, because the
    posterior of the same example has weight 1 / B in the mixture, not 1 / N, where N is the size
    of the data set (tests/training/test_total_correlation.py measures this bias).

    The minibatch-weighted estimate of beta-TCVAE divides the D marginal mixtures and the joint
    mixture by N in addition. This adds the constant (D - 1) log N, which has no gradient and is not
    part of the correlation. It is left out here, so N is not needed.

    Args:
      mean: means of q(z | x_0), [B, D].
      sigma: standard deviations of q(z | x_0), [B, D].
      z: samples of q(z | x_0), [B, D].

    Returns:
      The estimate, a scalar.

    Source: Chen et al. (2018), "Isolating Sources of Disentanglement in VAEs", eq. (4) and S3.
    """
    count, dim = z.shape
    # log_q[i, j, d] = log q(z_d of example i | x_0 of example j)
    scaled = (z[:, None] - mean) / sigma
    log_q = -0.5 * scaled**2 - jnp.log(sigma) - 0.5 * math.log(2 * math.pi)
    joint = logsumexp(log_q.sum(axis=-1), axis=1)
    marginals = logsumexp(log_q, axis=1).sum(axis=-1)
    return jnp.mean(joint - marginals) + (dim - 1) * math.log(count)
