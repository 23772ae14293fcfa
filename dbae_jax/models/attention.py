"""Attention over positions: one form for every device, and a fused kernel for NVIDIA's GPUs."""

import jax
import jax.numpy as jnp

FLOAT32 = jnp.float32
LONG = 1024  # positions; maps of fewer are small beside the features


def attend(q: jax.Array, k: jax.Array, v: jax.Array, implementation: str) -> jax.Array:
    """Returns softmax(q k' / sqrt(d)) v for q, k, v: [B, heads, N, d] of one dtype.

    Args:
      q: queries.
      k: keys.
      v: values.
      implementation: "auto": plain products; softmax in float32, its [B, heads, N, N] maps in the
        dtype of q (in float32 this is "xla" to rounding), see `_attend`. "xla" and "cudnn": those
        of `jax.nn.dot_product_attention`, of which "xla" keeps its maps in float32 and "cudnn"
        writes none, but needs an NVIDIA GPU, bfloat16 and d of 128 at most.
    """
    if implementation == "auto":
        return _attend(q * jnp.asarray(q.shape[-1] ** -0.5, q.dtype), k, v)
    q, k, v = (a.swapaxes(1, 2) for a in (q, k, v))
    return jax.nn.dot_product_attention(q, k, v, implementation=implementation).swapaxes(1, 2)


@jax.custom_vjp
def _attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Attention of scaled queries, with a backward pass that makes its [B, N, N] maps again.

    jax's own would keep them, and write and read them several times. Of `LONG` positions or more a
    head's maps are used up before the next head's are made: those of 16 images a chip then stay in
    the on-chip memory of a TPU v5e.
    """
    return _forward(q, k, v)[0]


def _forward(q, k, v):
    out, log_total = _by_head(_forward_head, q, k, v)
    return out, (q, k, v, out, log_total)


def _backward(kept, grad):
    return tuple(_by_head(_backward_head, *kept, grad))


_attend.defvjp(_forward, _backward)


def _by_head(function, *arrays):
    """Applies a function of [B, N, ...] arrays to every head of [B, heads, N, ...].

    Of `LONG` positions or more it goes from one head to the next.
    """
    heads = [a.swapaxes(0, 1) for a in arrays]
    if arrays[0].shape[2] >= LONG:
        answers = jax.lax.map(lambda head: function(*head), heads)
    else:
        answers = jax.vmap(function)(*heads)
    return [a.swapaxes(0, 1) for a in answers]


def _forward_head(q, k, v):
    """Returns the answer, [B, N, d], and the logarithms of the sums of exp(logits), [B, N]."""
    logits = jnp.einsum("bqd,bkd->bqk", q, k)
    peak = logits.max(-1).astype(FLOAT32)
    weights = jnp.exp(logits.astype(FLOAT32) - peak[..., None]).astype(q.dtype)
    # A column of ones among the values: the product sums the weights as well.
    ones = jnp.ones((*v.shape[:-1], 1), v.dtype)
    out = _product("bqk,bkd->bqd", weights, jnp.concatenate([v, ones], axis=-1))
    total = out[..., -1]
    return (out[..., :-1] / total[..., None]).astype(q.dtype), peak + jnp.log(total)


def _backward_head(q, k, v, out, log_total, grad):
    logits = jnp.einsum("bqd,bkd->bqk", q, k)
    weights = jnp.exp(logits.astype(FLOAT32) - log_total[..., None])
    by_v = jnp.einsum("bqk,bqd->bkd", weights.astype(q.dtype), grad)
    mean = jnp.sum(grad.astype(FLOAT32) * out.astype(FLOAT32), axis=-1)
    by_weights = _product("bqd,bkd->bqk", grad, v)
    by_logits = (weights * (by_weights - mean[..., None])).astype(q.dtype)
    by_q = jnp.einsum("bqk,bkd->bqd", by_logits, k)
    by_k = jnp.einsum("bqk,bqd->bkd", by_logits, q)
    return by_q, by_k, by_v


def _product(subscripts: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns a product whose result stays in float32."""
    return jnp.einsum(subscripts, a, b, preferred_element_type=FLOAT32)
