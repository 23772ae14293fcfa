"""Networks: shapes for all image sizes, number formats, running statistics."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dbae_jax.configs import base, celeba

from dbae_jax.configuration import build, config
from dbae_jax.models import decoder
from dbae_jax.models.encoder import Code
from dbae_jax.training.state import update_ema
from tests.helpers import tiny


@pytest.mark.parametrize(
    ("size", "channels", "latent_dim", "attention"),
    [
        (16, 1, 1, (16, 8)),
        (32, 4, 7, (8,)),
        (64, 3, 33, ()),
        (128, 2, 512, (16,)),
        (256, 3, 64, ()),
    ],
)
def test_any_size_channels_and_latent_dimension(size, channels, latent_dim, attention):
    c = base.get_config()
    c.data.image_size, c.data.channels, c.model.latent_dim = size, channels, latent_dim
    for network in (c.model.encoder, c.model.unet):
        network.base_channels, network.channel_mult = 32, (1, 2)
        network.attention_resolutions = tuple(at for at in attention if at in (size, size // 2))
    c.model.unet.head_channels = 32
    networks = build.make_networks(config.from_config_dict(c))
    variables = jax.eval_shape(networks.init, jax.random.key(0))
    x = jax.ShapeDtypeStruct((3, size, size, channels), jnp.float32)
    z = jax.ShapeDtypeStruct((3, latent_dim), jnp.float32)
    assert jax.eval_shape(networks.encode, variables, x).mean.shape == z.shape
    assert jax.eval_shape(networks.endpoint, variables, z).shape == x.shape
    stacked = jax.ShapeDtypeStruct((3, size, size, 2 * channels), jnp.float32)
    t = jax.ShapeDtypeStruct((3,), jnp.float32)
    assert jax.eval_shape(networks.network, variables, stacked, t, z).shape == x.shape


def test_widths_and_gates_of_the_endpoint_decoder():
    assert [decoder.width_at(64, 2**k) for k in range(2, 10)] == [
        *(1024, 512, 256, 128, 128, 64, 32, 16)
    ]
    c = celeba.get_config()
    c.data.image_size = 256
    c.model.encoder.attention_resolutions = c.model.unet.attention_resolutions = ()
    networks = build.make_networks(config.from_config_dict(c))
    params = jax.eval_shape(networks.init, jax.random.key(0))["params"]["decoder"]
    gates = {name: params[name]["conv_0"]["kernel"].shape for name in params if "gate" in name}
    assert gates == {
        "gate_64": (4, 4, 1024, 128),
        "gate_128": (4, 4, 512, 64),
        "gate_256": (4, 4, 256, 32),
    }


@pytest.mark.parametrize("pool", ["mean", "flatten"])
@pytest.mark.parametrize("stochastic", [False, True])
def test_encoder_variants(pool, stochastic):
    c = tiny.config(**{"model.encoder.pool": pool, "model.stochastic": stochastic})
    code = build.make_networks(c).encode(tiny.variables(c), jnp.zeros((2, 16, 16, 1)))
    assert code.mean.shape == (2, 8)
    assert (code.log_sigma is not None) == stochastic


def test_stochastic_codes_are_bounded_and_have_their_standard_deviation():
    mean, log_sigma = jnp.full((50_000, 1), 2.0), jnp.full((50_000, 1), -1.0)
    z = Code(mean, log_sigma).sample(jax.random.normal(jax.random.key(0), mean.shape))
    sigma = np.exp(-1) + 0.01
    assert float(z.mean()) == pytest.approx(2, abs=5 * sigma / np.sqrt(50_000))
    assert float(z.std()) == pytest.approx(sigma, rel=0.02)  # six standard errors
    c = tiny.config(**{"model.stochastic": True})
    huge = jax.tree.map(lambda a: 100 * a, tiny.variables(c))
    code = build.make_networks(c).encode(huge, jnp.ones((1, 16, 16, 1)))
    assert np.abs(code.mean).max() <= 5 and np.abs(code.log_sigma).max() <= 5
    assert np.abs(code.mean).max() > 4.9


def test_bfloat16_computes_with_float32_weights():
    single = tiny.config(**tiny.TWO_LEVELS)
    half = tiny.config(**tiny.TWO_LEVELS, **{"model.dtype": "bfloat16"})
    variables = tiny.variables(single)
    kept = jax.eval_shape(build.make_networks(half).init, jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(kept)} == {jnp.dtype("float32")}
    x = jax.random.uniform(jax.random.key(1), (2, 16, 16, 2), minval=-1)
    z, t = jax.random.normal(jax.random.key(2), (2, 8)), jnp.array([-500.0, -10.0])
    outs = [
        build.make_networks(c).network(variables, x, t, z).astype(jnp.float32)
        for c in (single, half)
    ]
    error = float(jnp.linalg.norm(outs[0] - outs[1]) / jnp.linalg.norm(outs[0]))
    assert 1e-4 < error < 3e-2  # bfloat16 has 8 bits: different, and not by much
    run = functools.partial(build.make_networks(half).network, variables)
    lines = jax.jit(run).lower(x, t, z).as_text().splitlines()
    convolutions = [line for line in lines if "stablehlo.convolution" in line]
    assert convolutions and all("bf16" in line and "f32" not in line for line in convolutions)


def test_batch_norm_statistics():
    x = 3 + 2 * jax.random.normal(jax.random.key(0), (4, 2, 2, 5))
    norm = decoder.BatchNorm()
    variables = norm.init(jax.random.key(1), x, train=False)
    affine, moved = norm.apply(variables, x, train=True, mutable=["stats"])
    y = affine.apply(x)
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.var((0, 1, 2)), 1, rtol=1e-4)
    np.testing.assert_allclose(moved["stats"]["mean"], 0.1 * x.mean((0, 1, 2)), rtol=1e-5)
    unbiased = np.var(np.asarray(x), axis=(0, 1, 2), ddof=1)
    np.testing.assert_allclose(moved["stats"]["var"], 0.9 + 0.1 * unbiased, rtol=1e-5)
    y = norm.apply(variables | moved, x, train=False).apply(x)
    want = (x - moved["stats"]["mean"]) / np.sqrt(moved["stats"]["var"] + 1e-5)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-6)


def test_spectral_norm_converges_to_the_largest_singular_value():
    conv = decoder.SpectralConv(6, 3)
    x = jnp.ones((1, 8, 8, 4))
    variables = conv.init(jax.random.key(0), x, train=False)
    kernel = variables["params"]["kernel"]
    before = jax.tree.map(np.asarray, variables["stats"])
    conv.apply(variables, x, train=False)  # evaluation does not update u and v
    for _ in range(200):
        _, moved = conv.apply(variables, x, train=True, mutable=["stats"])
        variables = variables | moved
    assert not np.allclose(before["u"], variables["stats"]["u"])
    largest = np.linalg.svd(decoder.as_matrix(kernel), compute_uv=False)[0]
    sigma = variables["stats"]["u"] @ decoder.as_matrix(kernel).T @ variables["stats"]["v"]
    assert float(sigma) == pytest.approx(largest, rel=1e-5)


def test_spectral_vectors_are_constants_of_the_gradient():
    conv = decoder.SpectralConv(3, 1)
    x = jax.random.normal(jax.random.key(1), (1, 2, 2, 4))
    variables = conv.init(jax.random.key(0), x, train=False)
    u, v = decoder.power_iteration(variables["params"]["kernel"], variables["stats"]["u"])

    def through_module(kernel):
        full = variables | {"params": {"kernel": kernel}}
        return conv.apply(full, x, train=True, mutable=["stats"])[0].sum()

    def by_hand(kernel):
        sigma = u @ decoder.as_matrix(kernel).T @ v
        return jnp.einsum("bhwi,io->bhwo", x, kernel[0, 0] / sigma).sum()

    kernel = variables["params"]["kernel"]
    np.testing.assert_allclose(
        jax.grad(through_module)(kernel), jax.grad(by_hand)(kernel), rtol=1e-4, atol=1e-6
    )


def test_ema_statistics_fit_the_ema_weights():
    c = tiny.config()
    ema, raw = tiny.variables(c, 0), tiny.variables(c, 7)
    for _ in range(600):  # with constant raw variables, the EMA must converge to them
        ema = jax.jit(update_ema)(ema, raw, 0.9)
    for got, want in zip(jax.tree.leaves(ema["params"]), jax.tree.leaves(raw["params"])):  # noqa: B905
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    stats = ema["stats"]["decoder"]["up_8"]
    raw_stats = raw["stats"]["decoder"]["up_8"]
    np.testing.assert_allclose(stats["norm"]["mean"], raw_stats["norm"]["mean"], atol=1e-5)
    matrix = decoder.as_matrix(ema["params"]["decoder"]["up_8"]["conv"]["kernel"]).T
    sigma = stats["conv"]["u"] @ matrix @ stats["conv"]["v"]
    assert float(sigma) == pytest.approx(np.linalg.svd(matrix, compute_uv=False)[0], rel=5e-3)
    assert float(jnp.linalg.norm(stats["conv"]["u"])) == pytest.approx(1, rel=1e-5)
