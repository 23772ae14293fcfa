"""The gradient of the loss on a batch, with the U-Net seeing a part of the batch at a time."""

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
    num_parts: int,
    *,
    tc_weight: float = 0.0,
) -> tuple[losses.LossTerms, dict]:
    """Returns the loss terms of a batch and the gradient of their mean, as if taken in one.

    The endpoint decoder sees the whole batch at once: its batch norm and its power step are those
    of one pass, and so is the gradient, up to rounding and the dropout masks, whatever the number
    of parts. Encoder and U-Net, which keep nearly all the memory, see one part after another: the
    U-Net's gradient is summed part by part and those of z and x_T kept; behind the last part the
    decoder is gone back through once, and the encoder part by part, run a second time for it.

    Args:
      networks: functions of `variables`.
      bridge: schedule and scalings.
      variables: {"params", "stats"}.
      x_0: [B, H, W, C], pixels in [-1, 1].
      draws: times and noises of the batch.
      num_parts: a divisor of B.
      tc_weight: of the whole batch's total correlation in the mean whose gradient this is.
    """
    params, stats = variables["params"], variables["stats"]

    def codes_of(params):
        full = {"params": params, "stats": stats}
        encode = jax.checkpoint(lambda x_0: networks.encode(full, x_0))
        code = join(lax.map(encode, split(x_0, num_parts)))
        made = losses.endpoint(networks, full, code.sample(draws.eps), train=True)
        correlation = total_correlation(code.mean, code.sigma, made.z) if tc_weight else None
        return (made.z, made.x_T, correlation), made.stats

    (z, x_T, correlation), pull_back, moved = jax.vjp(codes_of, params, has_aux=True)

    def loss_of_part(params, z, x_T, x_0, draws):
        full = {"params": params, "stats": stats}
        codes = losses.Endpoint(z, x_T, {})
        terms = losses.denoising_loss(networks, bridge, full, x_0, codes, draws)
        return terms.weighted.mean() / num_parts, terms

    def add_part(total, part):
        grad = jax.grad(loss_of_part, argnums=(0, 1, 2), has_aux=True)
        (by_params, *by_codes), terms = grad(params, *part)
        return jax.tree.map(jnp.add, total, by_params), (terms, tuple(by_codes))

    parts = split((z, x_T, x_0, draws._replace(dropout_key=None)), num_parts)
    keys = jax.random.split(draws.dropout_key, num_parts)
    parts = (*parts[:-1], parts[-1]._replace(dropout_key=keys))
    total, outcome = lax.scan(add_part, jax.tree.map(jnp.zeros_like, params), parts)
    terms, by_codes = join(outcome)
    by_correlation = None if correlation is None else jnp.full_like(correlation, tc_weight)
    (by_params,) = pull_back((*by_codes, by_correlation))
    terms = terms._replace(stats=moved, total_correlation=correlation)
    return terms, jax.tree.map(jnp.add, total, by_params)


def split(tree: Tree, num_parts: int) -> Tree:
    """Cuts the first axis of all arrays: [B, ...] -> [num_parts, B / num_parts, ...].

    Part i has the examples i, i + num_parts, ...: of a batch that is split over devices, every
    device then works on its own examples in every part.
    """
    return jax.tree.map(lambda a: a.reshape(-1, num_parts, *a.shape[1:]).swapaxes(0, 1), tree)


def join(tree: Tree) -> Tree:
    """Undoes `split`."""
    return jax.tree.map(lambda a: a.swapaxes(0, 1).reshape(-1, *a.shape[2:]), tree)
