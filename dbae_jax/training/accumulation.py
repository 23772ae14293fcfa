"""Gradient accumulation: the gradient of the loss on a batch, with the U-Net on microbatches."""

from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from dbae_jax.bridge.preconditioning import Bridge
from dbae_jax.training import losses
from dbae_jax.training.total_correlation import total_correlation

Tree = TypeVar("Tree")  # of arrays


def accumulated_gradient(
    networks: losses.Networks,
    bridge: Bridge,
    variables: dict,
    x_0: jax.Array,
    draws: losses.Draws,
    num_microbatches: int,
    *,
    tc_weight: float = 0.0,
    loss_fn: losses.LossFn = losses.denoising_loss,
) -> tuple[losses.LossTerms, dict]:
    """Returns the loss terms of a batch, and the gradient of the mean loss of the whole batch.

    Encoder and U-Net, which need nearly all the memory, run on one microbatch after another. The
    endpoint decoder runs once on the whole batch, so its batch norm and its spectral norm take one
    step. The gradient therefore equals the gradient of one pass on the whole batch for any number
    of microbatches, up to rounding and dropout masks.

    First, the gradient of the U-Net's weights is summed over microbatches, and the gradients of z
    and x_T are stored. Then one backward pass through the endpoint decoder follows, and a backward
    pass through the encoder for each microbatch, which repeats the encoder's forward pass.

    Args:
      networks: the networks, as functions of `variables`.
      bridge: schedule and scalings.
      variables: {"params", "stats"}.
      x_0: images [B, H, W, C], pixels in [-1, 1].
      draws: times and noise of the batch.
      num_microbatches: number of microbatches, a divisor of B.
      tc_weight: factor of the total correlation of the whole batch, which is added to the loss.
      loss_fn: loss for given z and x_T.
    """
    params, stats = variables["params"], variables["stats"]

    def codes_of(params):
        full = {"params": params, "stats": stats}
        encode = jax.checkpoint(lambda x_0: networks.encode(full, x_0))
        code = join(lax.map(encode, split(x_0, num_microbatches)))
        decoded = losses.endpoint(networks, full, code.sample(draws.eps), train=True)
        correlation = total_correlation(code.mean, code.sigma, decoded.z) if tc_weight else None
        return (decoded.z, decoded.x_T, correlation), decoded.stats

    (z, x_T, correlation), vjp_of_codes, new_stats = jax.vjp(codes_of, params, has_aux=True)

    def microbatch_loss(params, z, x_T, x_0, draws):
        full = {"params": params, "stats": stats}
        terms = loss_fn(networks, bridge, full, x_0, losses.Endpoint(z, x_T, {}), draws)
        return terms.weighted.mean() / num_microbatches, terms

    def add_microbatch(total, microbatch):
        gradient = jax.grad(microbatch_loss, argnums=(0, 1, 2), has_aux=True)
        (grad_params, *grad_codes), terms = gradient(params, *microbatch)
        return jax.tree.map(jnp.add, total, grad_params), (terms, tuple(grad_codes))

    *arrays, parts = split((z, x_T, x_0, draws._replace(dropout_key=None)), num_microbatches)
    assert draws.dropout_key is not None  # only training accumulates
    keys = jax.random.split(draws.dropout_key, num_microbatches)
    microbatches = (*arrays, parts._replace(dropout_key=keys))
    zeros = jax.tree.map(jnp.zeros_like, params)
    total, outcome = lax.scan(add_microbatch, zeros, microbatches)
    terms, grad_codes = join(outcome)
    grad_correlation = None if correlation is None else jnp.full_like(correlation, tc_weight)
    (grad_params,) = vjp_of_codes((*grad_codes, grad_correlation))
    terms = terms._replace(stats=new_stats, total_correlation=correlation)
    return terms, jax.tree.map(jnp.add, total, grad_params)


def split(tree: Tree, num_microbatches: int) -> Tree:
    """Splits the first axis of all arrays: [B, ...] -> [n, B / n, ...], n = num_microbatches.

    Microbatch i has the examples i, i + n, i + 2 n, ... If a batch is sharded over devices, every
    device then works on its own examples in every microbatch.
    """
    n = num_microbatches
    return jax.tree.map(lambda a: a.reshape(-1, n, *a.shape[1:]).swapaxes(0, 1), tree)


def join(tree: Tree) -> Tree:
    """Joins microbatches: [n, B / n, ...] -> [B, ...], the inverse of `split`."""
    return jax.tree.map(lambda a: a.swapaxes(0, 1).reshape(-1, *a.shape[2:]), tree)
