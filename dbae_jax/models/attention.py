"""Attention over positions: one implementation for every device, and a fused GPU kernel."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

FLOAT32 = jnp.float32
# From this number of positions on, `_attend` processes one head after another. The [B, N, N] arrays
# of shorter sequences are small compared with the feature maps.
LONG = 1024


def attend(q: jax.Array, k: jax.Array, v: jax.Array, implementation: str) -> jax.Array:
    """Returns softmax(q k' / sqrt(d)) v: [B, heads, N, d], in the dtype of q.

    Args:
      q: queries [B, heads, N, d].
      k: keys [B, heads, N, d], of the dtype of q.
      v: values [B, heads, N, d], of the dtype of q.
      implementation: one of
        "auto": plain matrix products. The softmax is computed in float32; its [B, heads, N, N]
          arrays are stored in the dtype of q. For float32 it equals "xla" up to rounding.
        "xla": that of `jax.nn.dot_product_attention`, which stores these arrays in float32.
        "cudnn": that of `jax.nn.dot_product_attention`, which stores no such array. It needs an
          NVIDIA GPU, bfloat16 and d of at most 128.
    """
    if implementation == "auto":
        return _attend(q * jnp.asarray(q.shape[-1] ** -0.5, q.dtype), k, v)
    q, k, v = (a.swapaxes(1, 2) for a in (q, k, v))
    attend: Any = jax.nn.dot_product_attention  # its annotation lists the implementations
    return attend(q, k, v, implementation=implementation).swapaxes(1, 2)


@jax.custom_vjp
def _attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Returns the attention of scaled queries; the backward pass recomputes the [B, N, N] arrays.

    The backward pass that jax derives would store these arrays, and write and read them several
    times. From `LONG` positions on, the arrays of one head are used up before the arrays of the
    next head are computed: with 16 images per chip they then fit in the on-chip memory of a TPU
    v5e.
    """
    return _forward(q, k, v)[0]


def _forward(q, k, v):
    out, log_total = _per_head(_forward_head, q, k, v)
    return out, (q, k, v, out, log_total)


def _backward(residuals, grad):
    return tuple(_per_head(_backward_head, *residuals, grad))


_attend.defvjp(_forward, _backward)


def _per_head(function: Callable, *arrays: jax.Array) -> list[jax.Array]:
    """Applies a function of [B, N, ...] arrays to every head of [B, heads, N, ...] arrays.

    From `LONG` positions on, the heads are processed one after another.
    """
    by_head = [a.swapaxes(0, 1) for a in arrays]
    if arrays[0].shape[2] >= LONG:
        results = jax.lax.map(lambda head: function(*head), by_head)
    else:
        results = jax.vmap(function)(*by_head)
    return [a.swapaxes(0, 1) for a in results]


def _forward_head(q, k, v):
    """Returns the attention [B, N, d], and log(sum(exp(logits))) over the keys, [B, N]."""
    logits = jnp.einsum("bqd,bkd->bqk", q, k)
    peak = logits.max(-1).astype(FLOAT32)
    weights = jnp.exp(logits.astype(FLOAT32) - peak[..., None]).astype(q.dtype)
    # The column of ones makes the same matrix product return the sum of the weights.
    ones = jnp.ones((*v.shape[:-1], 1), v.dtype)
    out = _einsum_to_float32("bqk,bkd->bqd", weights, jnp.concatenate([v, ones], axis=-1))
    total = out[..., -1]
    return (out[..., :-1] / total[..., None]).astype(q.dtype), peak + jnp.log(total)


def _backward_head(q, k, v, out, log_total, grad):
    """Returns the gradients of q, k and v: [B, N, d] each.

    Arrays over pairs are [B, keys, queries]: two of the three products that read them then need no
    transposed copy.
    """
    logits = jnp.einsum("bkd,bqd->bkq", k, q)
    weights = jnp.exp(logits.astype(FLOAT32) - log_total[:, None])
    grad_v = jnp.einsum("bkq,bqd->bkd", weights.astype(q.dtype), grad)
    mean = jnp.sum(grad.astype(FLOAT32) * out.astype(FLOAT32), axis=-1)
    grad_weights = _einsum_to_float32("bkd,bqd->bkq", v, grad)
    grad_logits = (weights * (grad_weights - mean[:, None])).astype(q.dtype)
    grad_q = jnp.einsum("bkq,bkd->bqd", grad_logits, k)
    grad_k = jnp.einsum("bkq,bqd->bkd", grad_logits, q)
    return grad_q, grad_k, grad_v


def _einsum_to_float32(subscripts: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns an einsum whose result is in float32, for operands of any dtype."""
    return jnp.einsum(subscripts, a, b, preferred_element_type=FLOAT32)
