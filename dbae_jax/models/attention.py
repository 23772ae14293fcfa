"""Attention over positions: one form for every device, and a fused kernel for NVIDIA's GPUs."""

import jax
import jax.numpy as jnp

IMPLEMENTATIONS = ("auto", "xla", "cudnn")


def attend(q: jax.Array, k: jax.Array, v: jax.Array, implementation: str) -> jax.Array:
    """Returns softmax(q k' / sqrt(d)) v for q, k, v: [B, N, heads, d] of one dtype.

    Args:
      q: queries.
      k: keys.
      v: values.
      implementation: "auto": plain products, softmax in float32, [B, heads, N, N] maps kept in
        the dtype of q (in float32 this is "xla" to rounding); "xla" and "cudnn": those of
        `jax.nn.dot_product_attention`, of which "xla" keeps those maps in float32, and "cudnn"
        never writes them but needs an NVIDIA GPU, bfloat16 and d of 128 at most.
    """
    if implementation != "auto":
        return jax.nn.dot_product_attention(q, k, v, implementation=implementation)
    logits = jnp.einsum("bqhd,bkhd->bhqk", q * jnp.asarray(q.shape[-1] ** -0.5, q.dtype), k)
    weights = jax.nn.softmax(logits.astype(jnp.float32)).astype(q.dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v)
