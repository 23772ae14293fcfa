"""Group norm and its statistics against flax and float64; convolutions of parts."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dbae_jax.models.activations import Affine
from dbae_jax.models.convolutions import (
    adjoint_of_strided,
    convolve,
    convolve_upsampled,
    downsample,
    product_with_upsampled,
    strided_kernel,
    upsample,
)
from dbae_jax.models.layers import ConvOfParts
from dbae_jax.models.norms import (
    GroupNorm,
    Learned,
    channel_moments,
    fused_group_affine,
    group_affine,
)


def _parts(widths, dtype=jnp.float32, offset=0.0):
    x = offset + jax.random.normal(jax.random.key(0), (3, 6, 4, sum(widths)))
    return x.astype(dtype), tuple(jnp.split(x.astype(dtype), np.cumsum(widths)[:-1], axis=-1))


@pytest.mark.parametrize("widths", [(64,), (32, 32), (40, 24)])
def test_group_norm_is_flaxs_on_the_concatenation(widths):
    """A group may have channels of two parts, as at 384 + 256 channels of the U-Net."""
    x, parts = _parts(widths)
    ours, peer = GroupNorm(), nn.GroupNorm(num_groups=32, epsilon=1e-5, use_fast_variance=False)
    scale, bias = jax.random.normal(jax.random.key(1), (2, 64))
    variables = {"params": {"scale": scale, "bias": bias}}
    like = jax.tree.map(jnp.shape, ours.init(jax.random.key(2), parts))
    assert like == jax.tree.map(jnp.shape, peer.init(jax.random.key(2), x))

    def of_parts(variables, parts):
        return ours.apply(variables, parts).apply(jnp.concatenate(parts, axis=-1))

    np.testing.assert_allclose(of_parts(variables, parts), peer.apply(variables, x), atol=2e-6)
    weights = jax.random.normal(jax.random.key(3), x.shape)
    got = jax.grad(lambda *a: jnp.sum(weights * of_parts(*a)), (0, 1))(variables, parts)
    want = jax.grad(lambda *a: jnp.sum(weights * peer.apply(*a)), (0, 1))(variables, x)
    np.testing.assert_allclose(jnp.concatenate(got[1], -1), want[1], atol=2e-5)
    for name in ("scale", "bias"):
        np.testing.assert_allclose(
            got[0]["params"][name], want[0]["params"][name], rtol=1e-5, atol=2e-5
        )


def test_modulation_follows_and_a_bias_precedes_the_norm():
    """Values and all gradients, against flax's norm of the map with its bias added."""
    x, _ = _parts((64,))
    ours, peer = GroupNorm(), nn.GroupNorm(num_groups=32, epsilon=1e-5, use_fast_variance=False)
    scale, shift, bias = jax.random.normal(jax.random.key(2), (3, 64))
    by, to = jax.random.normal(jax.random.key(1), (2, 3, 64))
    weights = jax.random.normal(jax.random.key(3), x.shape)

    def got(x, params, bias, by, to):
        return ours.apply({"params": params}, (x,), (by, to), bias).apply(x)

    def want(x, params, bias, by, to):
        normed = peer.apply({"params": params}, x + bias)
        return normed * by[:, None, None] + to[:, None, None]

    arguments = x, {"scale": scale, "bias": shift}, bias, by, to
    np.testing.assert_allclose(got(*arguments), want(*arguments), atol=1e-5)
    grads = (
        jax.grad(lambda *a, f=f: jnp.sum(weights * f(*a)), range(5))(*arguments)
        for f in (got, want)
    )
    for a, b in zip(*map(jax.tree.leaves, grads), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_the_fused_form_is_the_plain_one():
    """Values and all gradients, with the automatic ones of the plain form as reference."""
    mean, var, by, to = jax.random.normal(jax.random.key(0), (4, 3, 96))
    learned = Learned(*jax.random.normal(jax.random.key(1), (3, 96)))
    arguments = mean, jnp.square(var), learned, (by, to)
    weights = Affine(*jax.random.normal(jax.random.key(2), (2, 3, 96)))

    def weighted(function, *arguments):
        products = jax.tree.map(jnp.multiply, weights, function(32, 1e-5, *arguments))
        return sum(jnp.sum(product) for product in products)

    got, want = (
        jax.value_and_grad(lambda *a, f=f: weighted(f, *a), range(4))(*arguments)
        for f in (fused_group_affine, group_affine)
    )
    for a, b in zip(*map(jax.tree.leaves, (got, want)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("offset", [0.0, 3.0, 30.0])
def test_one_pass_variance_is_more_accurate_than_bfloat16(offset):
    """For bfloat16 features far from 0, the error of one pass is below the rounding error."""
    true = offset + np.random.default_rng(0).standard_normal((2, 128, 128, 4))
    x = jnp.asarray(true, jnp.bfloat16)
    mean, var = channel_moments(x, (1, 2))
    assert mean.dtype == var.dtype == jnp.float32
    kept = np.asarray(x, np.float64)
    np.testing.assert_allclose(mean, kept.mean((1, 2)), rtol=1e-5, atol=1e-5)
    rounding = np.abs(kept - true).max() * np.sqrt(kept.var((1, 2)))
    assert np.all(np.abs(var - kept.var((1, 2))) < 0.1 * rounding)


def test_float32_takes_two_passes():
    true = 1000 + np.random.default_rng(0).standard_normal((2, 64, 64, 4)).astype(np.float32)
    _, var = channel_moments(jnp.asarray(true), (1, 2))
    np.testing.assert_allclose(var, true.astype(np.float64).var((1, 2)), rtol=1e-3)


@pytest.mark.parametrize("activated", [False, True])
def test_a_convolution_of_parts_is_that_of_the_concatenation(activated):
    """The hand-written gradients of parts, affine and kernel agree with automatic ones."""
    x, parts = _parts((40, 24))
    affine = Affine(*jax.random.normal(jax.random.key(4), (2, 3, 64))) if activated else None
    ours, peer = ConvOfParts(8), nn.Conv(8, (3, 3))
    variables = ours.init(jax.random.key(1), parts)
    shapes = jax.tree.map(jnp.shape, peer.init(jax.random.key(1), x))
    assert jax.tree.map(jnp.shape, variables) == shapes
    weights = jax.random.normal(jax.random.key(3), (3, 6, 4, 8))

    def by_parts(variables, parts, affine):
        result, bias = ours.apply(variables, parts, affine)
        return jnp.sum(weights * (result + bias))

    def whole(variables, parts, affine):
        x = jnp.concatenate(parts, axis=-1)
        if activated:
            x = nn.silu(x * affine.scale[:, None, None] + affine.shift[:, None, None])
        return jnp.sum(weights * peer.apply(variables, x))

    got, want = (
        jax.value_and_grad(f, (0, 1, 2) if activated else (0, 1))(variables, parts, affine)
        for f in (by_parts, whole)
    )
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_a_convolution_of_an_upsampled_map():
    """The program for bfloat16, with sums of weights, agrees with the one for float32."""
    x = jax.random.normal(jax.random.key(0), (2, 4, 6, 3)).astype(jnp.bfloat16)
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 8)).astype(jnp.bfloat16)
    want = convolve_upsampled(x.astype(jnp.float32), None, kernel.astype(jnp.float32))
    got = convolve_upsampled(x, None, kernel).astype(jnp.float32)
    assert got.shape == want.shape == (2, 8, 12, 8)
    assert float(jnp.abs(got - want).max()) < 0.03 * float(jnp.abs(want).max())


@pytest.mark.parametrize(
    "function", [lambda x, k: adjoint_of_strided(x, strided_kernel(k)), product_with_upsampled]
)
def test_forms_of_the_convolution_of_an_upsampled_map(function):
    """With sums of weights in float32: equal values and gradients."""
    x = jax.random.normal(jax.random.key(0), (2, 4, 6, 3))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 8))
    weights = jax.random.normal(jax.random.key(2), (2, 8, 12, 8))
    got, want = (
        jax.value_and_grad(lambda x, k, f=f: jnp.sum(weights * f(x, k)), (0, 1))(x, kernel)
        for f in (function, lambda x, k: convolve(upsample(x), k))
    )
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_downsampling_takes_means():
    x, _ = _parts((5,))
    want = np.asarray(x).reshape(3, 3, 2, 2, 2, 5).mean((2, 4))
    np.testing.assert_allclose(downsample(x), want, atol=1e-6)
