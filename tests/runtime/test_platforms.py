"""What differs by platform: names, choices at compile time, gradients of casts."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dbae_jax.configuration import build
from dbae_jax.runtime import platforms
from tests.helpers import tiny


@pytest.mark.parametrize(
    ("platform", "kind", "name"),
    [
        ("cpu", "cpu", "cpu"),
        ("tpu", "TPU v5 lite", "tpu"),
        ("gpu", "NVIDIA H100 80GB HBM3", "cuda"),
        ("gpu", "AMD Instinct MI300X", "rocm"),
    ],
)
def test_the_platform_of_a_device(platform, kind, name):
    device = types.SimpleNamespace(platform=platform, device_kind=kind)
    assert platforms.platform_of(device) == name


def test_options_for_deterministic_programs_are_known_to_the_compiler():
    assert platforms.deterministic_options("cpu") is None
    options = platforms.deterministic_options("cuda")
    assert jax.jit(lambda x: x + 1, compiler_options=options)(1) == 2
    with pytest.raises(Exception, match="xla_gpu_no_such_option"):
        jax.jit(lambda x: x + 1, compiler_options={"xla_gpu_no_such_option": True})(1)


def test_programs_compute_what_their_platform_asks_for_and_nothing_else():
    function = jax.jit(lambda x: platforms.by_gpu(jnp.sin, jnp.cos, x))
    x = jnp.ones(3)
    assert "sine" in function.trace(x).lower(lowering_platforms=("cuda",)).as_text()
    compiled = function.lower(x).compile()
    np.testing.assert_array_equal(compiled(x), jnp.cos(x))
    assert "conditional" not in compiled.as_text()


@pytest.mark.parametrize("on_gpu", [False, True])
def test_the_gradient_of_a_cast(on_gpu, monkeypatch):
    if on_gpu:
        monkeypatch.setattr(platforms, "by_gpu", lambda on_cuda, _, *args: on_cuda(*args))
    kernel = jax.random.normal(jax.random.key(0), (3, 3, 4, 5))
    weights = jax.random.normal(jax.random.key(1), (3, 3, 4, 5)).astype(jnp.bfloat16)

    def loss(kernel):
        return jnp.sum((platforms.cast_kernel(kernel, jnp.bfloat16) * weights).astype(jnp.float32))

    grad = jax.jit(jax.grad(loss))(kernel)
    assert grad.dtype == jnp.float32
    np.testing.assert_array_equal(grad, weights.astype(jnp.float32))


@pytest.mark.parametrize(
    ("platform", "dtype", "attention", "used"),
    [
        ("cuda", "bfloat16", "auto", "cudnn"),
        ("cuda", "float32", "auto", "auto"),
        ("cuda", "bfloat16", "xla", "xla"),
        ("rocm", "bfloat16", "auto", "auto"),
        ("tpu", "bfloat16", "auto", "auto"),
        ("any", "bfloat16", "cudnn", "auto"),
    ],
)
def test_the_attention_of_a_platform(platform, dtype, attention, used, caplog):
    config = tiny.config(**{"model.dtype": dtype, "model.attention": attention})
    module = build.make_networks(config, platform).module
    assert module.unet.attention == used
    assert module.encoder.attention == ("auto" if attention == "cudnn" else attention)
    assert not caplog.text


def test_deterministic_steps_do_without_cudnns_attention():
    """An H100 with jax 0.11.2 stopped with an IndexError of XLA (openxla/xla#46500)."""
    config = tiny.config(**{"model.dtype": "bfloat16", "train.deterministic": True})
    assert build.make_networks(config, "cuda").module.unet.attention == "auto"
