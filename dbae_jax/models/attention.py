"""Attention over positions: one form for every device, and a fused kernel for NVIDIA's GPUs."""

import jax
import jax.numpy as jnp

FLOAT32 = jnp.float32


def attend(q: jax.Array, k: jax.Array, v: jax.Array, implementation: str) -> jax.Array:
    """Returns softmax(q k' / sqrt(d)) v for q, k, v: [B, heads, N, d] of one dtype.

    Args:
      q: queries.
      k: keys.
      v: values.
      implementation: "auto": plain products; softmax in float32, its [B, heads, N, N] maps kept
        in the dtype of q (in float32 this is "xla" to rounding), three of them in all. "xla" and
        "cudnn": those of `jax.nn.dot_product_attention`, of which "xla" keeps its maps in float32
        and "cudnn" writes none, but needs an NVIDIA GPU, bfloat16 and d of 128 at most.
    """
    if implementation == "auto":
        return _attend(q * jnp.asarray(q.shape[-1] ** -0.5, q.dtype), k, v)
    q, k, v = (a.swapaxes(1, 2) for a in (q, k, v))
    return jax.nn.dot_product_attention(q, k, v, implementation=implementation).swapaxes(1, 2)


@jax.custom_vjp
def _attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Attention of scaled queries, with a backward pass that forms its maps from the logits.

    jax's own would write the softmax and read it, the logits and their gradient once more for
    each product; here the backward pass reads the logits twice and writes one map.
    """
    return _forward(q, k, v)[0]


def _forward(q, k, v):
    logits = jnp.einsum("bhqd,bhkd->bhqk", q, k)
    peak = logits.max(-1).astype(FLOAT32)
    weights = jnp.exp(logits.astype(FLOAT32) - peak[..., None]).astype(q.dtype)
    # A column of ones among the values: the product sums the weights as well.
    ones = jnp.ones((*v.shape[:-1], 1), v.dtype)
    out = _product("bhqk,bhkd->bhqd", weights, jnp.concatenate([v, ones], axis=-1))
    total = out[..., -1]
    out = (out[..., :-1] / total[..., None]).astype(q.dtype)
    return out, (q, k, v, out, logits, peak + jnp.log(total))


def _backward(kept, grad):
    q, k, v, out, logits, log_total = kept
    weights = jnp.exp(logits.astype(FLOAT32) - log_total[..., None])
    by_v = jnp.einsum("bhqk,bhqd->bhkd", weights.astype(q.dtype), grad)
    mean = jnp.sum(grad.astype(FLOAT32) * out.astype(FLOAT32), axis=-1)
    by_weights = _product("bhqd,bhkd->bhqk", grad, v)
    by_logits = (weights * (by_weights - mean[..., None])).astype(q.dtype)
    by_q = jnp.einsum("bhqk,bhkd->bhqd", by_logits, k)
    by_k = jnp.einsum("bhqk,bhqd->bhkd", by_logits, q)
    return by_q, by_k, by_v


def _product(subscripts: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns a product whose result stays in float32."""
    return jnp.einsum(subscripts, a, b, preferred_element_type=FLOAT32)


_attend.defvjp(_forward, _backward)
