"""Choices that change speed and memory change no loss and no gradient beyond rounding."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dbae_jax
from dbae_jax.commands import describe, train
from dbae_jax.configuration import build
from dbae_jax.data import images
from dbae_jax.errors import ConfigError
from dbae_jax.models.attention import LONG, attend
from dbae_jax.performance import workloads
from dbae_jax.runtime import sharding
from dbae_jax.training import accumulation, losses
from tests.helpers import tiny

ATTENTION = tiny.TWO_LEVELS | {"model.encoder.attention_resolutions": (8,)}


@functools.cache
def _gradient(dropout=0.0, num_parts=1, seed=0, **model):
    """(terms, gradient) of one batch of 8, in float32 or as `model` says."""
    c = tiny.config(
        **ATTENTION, **{"model.unet.dropout": dropout, "model.stochastic": True}, **model
    )
    networks, bridge = build.make_networks(c), build.make_bridge(c.bridge)
    variables = tiny.variables(tiny.config(**ATTENTION, **{"model.stochastic": True}))
    x_0 = images.to_float(jnp.asarray(tiny.images(8)))
    draws = losses.draw(jax.random.key(seed), x_0.shape, 8, bridge)

    def of_batch(variables):
        if num_parts > 1:
            return accumulation.accumulated_gradient(
                networks, bridge, variables, x_0, draws, num_parts
            )

        def loss_fn(params):
            full = {"params": params, "stats": variables["stats"]}
            terms = losses.bridge_loss(networks, bridge, full, x_0, draws, train=True)
            return terms.weighted.mean(), terms

        grads, terms = jax.grad(loss_fn, has_aux=True)(variables["params"])
        return terms, grads

    return jax.device_get(jax.jit(of_batch)(variables))


def _assert_same(got, want, rtol=2e-5):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(want[0].weighted).max())


def test_remat_changes_nothing():
    """Dropout is drawn again in the backward pass: its masks must be the same."""
    _assert_same(_gradient(0.1, **{"model.remat": "blocks"}), _gradient(0.1))


def test_remat_keeps_less():
    """Counts what the U-Net's backward pass needs in addition to weights and inputs."""

    def kept(remat):
        c = tiny.config(**{"model.remat": remat})
        networks, variables = build.make_networks(c), tiny.variables(tiny.config())
        x, z = jnp.zeros((4, 16, 16, 2)), jnp.zeros((4, 8))
        run = functools.partial(networks.network, variables)
        _, pull_back = jax.eval_shape(lambda x: jax.vjp(lambda x: run(x, z[:, 0], z), x), x)
        return sum(leaf.size for leaf in jax.tree.leaves(pull_back) if leaf.ndim == 4)

    assert kept("blocks") < 0.5 * kept("none")


def test_attention_implementations_agree():
    _assert_same(_gradient(**{"model.attention": "xla"}), _gradient())


@pytest.mark.parametrize(
    ("positions", "dtype", "devices", "error"),
    [
        (LONG // 16, "float32", 1, 2e-5),
        (LONG, "float32", 1, 2e-5),
        (LONG, "float32", 2, 2e-5),
        (LONG, "bfloat16", 2, 2e-2),
    ],
)
@pytest.mark.parametrize("remade", [False, True])
def test_attention_is_that_of_jax_forward_and_backward(positions, dtype, devices, error, remade):
    """Where there are many positions, one head after another; of a batch over several devices."""
    arrays = jax.random.normal(jax.random.key(0), (4, 2, 3, positions, 8))
    mesh = sharding.make_mesh(jax.devices()[:devices])

    def pulled(implementation, *arrays):
        function = functools.partial(attend, implementation=implementation)
        function = jax.checkpoint(function) if remade else function
        out, pull_back = jax.vjp(function, *arrays[:3])
        return out, *pull_back(arrays[3])

    spread = jax.device_put(list(arrays.astype(dtype)), sharding.batched(mesh))
    traced = jax.jit(pulled, static_argnums=0).trace("auto", *spread)
    assert ("scan" in str(traced.jaxpr)) == (positions == LONG)
    for got, want in zip(traced.lower().compile()(*spread), pulled("xla", *arrays), strict=True):
        assert got.dtype == dtype and got.sharding.is_fully_replicated == (devices == 1)
        np.testing.assert_allclose(
            np.asarray(got, np.float32), want, atol=error * np.abs(want).max()
        )


def test_attention_that_devices_lack_is_refused_and_another_computes_a_model(tmp_path, caplog):
    """The user's choice is refused; a model that was trained with it is read."""
    config = tiny.config(**{"model.attention": "cudnn", "model.dtype": "bfloat16"})
    with pytest.raises(ConfigError, match=r"needs an NVIDIA GPU, and the program is for a cpu"):
        train.train(config, tmp_path / "run")
    with pytest.raises(ConfigError, match="needs an NVIDIA GPU"):
        workloads.make("denoise", config)
    assert not (tmp_path / "run").exists()
    assert "config.model" not in caplog.text
    tiny.write_workdir(config, tmp_path / "run")
    with caplog.at_level("WARNING", logger="dbae_jax"):
        model = dbae_jax.DBAE.load(tmp_path / "run")
    assert "This model runs with 'auto' here" in caplog.text
    assert model.config == config and "Parameters" in describe.describe(config)
    assert np.isfinite(model.decode(model.encode(tiny.images(2)))).all()


def test_bfloat16_attention_takes_its_softmax_in_float32():
    q, k, v = 2 * jax.random.normal(jax.random.key(0), (3, 2, 2, 64, 16))
    want = attend(q, k, v, "xla")
    got = attend(*(a.astype(jnp.bfloat16) for a in (q, k, v)), "auto")
    assert got.dtype == jnp.bfloat16
    assert np.linalg.norm(got.astype(jnp.float32) - want) < 0.02 * np.linalg.norm(want)
    text = str(jax.make_jaxpr(lambda q: attend(q, q, q, "auto"))(q.astype(jnp.bfloat16)))
    assert re.findall(r":(\w+)\[[\d,]+\] = exp ", text) == ["f32"]


def test_bfloat16_attention_of_large_logits_is_off_by_their_rounding():
    """Logits of 64 to 128 are rounded to halves, so a weight may be off by exp(1/4)."""
    q, k, v = jax.random.normal(jax.random.key(0), (3, 2, 2, 64, 16))
    q, k = 8 * q, 2.5 * k
    assert 64 < np.abs(np.einsum("bhqd,bhkd->bhqk", q, k)).max() / 4 < 128
    want = attend(q, k, v, "xla")
    got = attend(*(a.astype(jnp.bfloat16) for a in (q, k, v)), "auto").astype(jnp.float32)
    assert np.linalg.norm(got - want) < 0.15 * np.linalg.norm(want)


def test_bfloat16_gradients_are_those_of_float32_up_to_its_rounding():
    """Every backward pass of our own at once: attention, norms, parts, upsampled maps."""
    (terms, got), (of_32, want) = _gradient(**{"model.dtype": "bfloat16"}), _gradient()
    np.testing.assert_allclose(terms.weighted, of_32.weighted, rtol=0.02)

    def distance(got, want):
        return np.linalg.norm(got - want) / np.linalg.norm(want)

    flat = [np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(g)]) for g in (got, want)]
    assert distance(*flat) < 0.1
    for name in ("encoder", "decoder", "unet"):
        parts = [
            np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(g[name])]) for g in (got, want)
        ]
        assert distance(*parts) < 0.1, name


def test_accumulation_is_the_gradient_of_the_whole_batch():
    """Batch norm and power step included: they see the whole batch either way."""
    _assert_same(_gradient(num_parts=4), _gradient())


def test_parts_lie_on_all_devices():
    """Part i has every third example, so each device has its share of every part."""
    x = jnp.arange(12.0).reshape(6, 2)
    assert np.array_equal(accumulation.split(x, 3)[1], x[1::3])
    assert np.array_equal(accumulation.join(accumulation.split(x, 3)), x)
