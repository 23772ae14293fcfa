"""Activations with hand-written gradients against automatic ones, in both forms."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dbae_jax.models import activations
from dbae_jax.models.activations import Affine

RATE = 0.3


def _plain(name, x, affine, kept):
    y = x * affine.scale[:, None, None] + affine.shift[:, None, None]
    y = nn.silu(y) if name == "silu" else nn.glu(y)
    return y if kept is None else jnp.where(kept, y / (1 - RATE), 0)


def _ours(name, x, affine, kept):
    """The function for formats narrower than float32, of float32 arguments."""
    activation = {"silu": activations.SILU, "glu": activations.GLU}[name]
    return activations.recomputed_activation(activation, RATE, x, affine, kept)


@pytest.mark.parametrize("on_gpu", [False, True])
@pytest.mark.parametrize("images", [3, 1])
@pytest.mark.parametrize("name", ["silu", "silu with dropout", "glu"])
def test_gradients_are_the_automatic_ones(name, images, on_gpu, monkeypatch):
    """`images` is 1 for a scale and shift of the whole batch, as in a batch norm."""
    if on_gpu:
        monkeypatch.setattr(activations, "by_gpu", lambda on_cuda, _, *args: on_cuda(*args))
    x = jax.random.normal(jax.random.key(0), (3, 8, 16, 6))
    affine = Affine(*jax.random.normal(jax.random.key(1), (2, images, 6)))
    kept = jax.random.bernoulli(jax.random.key(2), 0.7, x.shape) if "dropout" in name else None
    name = name.split()[0]
    shape = (*x.shape[:3], 6 if name == "silu" else 3)
    weights = jax.random.normal(jax.random.key(3), shape)
    got, want = (
        jax.value_and_grad(
            lambda x, affine, f=f: jnp.sum(weights * f(name, x, affine, kept)), (0, 1)
        )(x, affine)
        for f in (_ours, _plain)
    )
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("on_gpu", [False, True])
def test_bfloat16_is_rounded_once_on_a_gpu(on_gpu, monkeypatch):
    """Other platforms round the scaled and shifted map as well, and reach about two digits."""
    monkeypatch.setattr(
        activations, "by_gpu", lambda cuda, other, *a: (cuda if on_gpu else other)(*a)
    )
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 4)).astype(jnp.bfloat16)
    affine = Affine(*jax.random.normal(jax.random.key(1), (2, 2, 4)))
    got = activations.silu(x, affine)
    want = _plain("silu", x.astype(jnp.float32), affine, None)
    assert got.dtype == jnp.bfloat16
    if on_gpu:
        np.testing.assert_array_equal(got, want.astype(jnp.bfloat16))
    else:
        np.testing.assert_allclose(got.astype(jnp.float32), want, rtol=0.02, atol=0.02)
