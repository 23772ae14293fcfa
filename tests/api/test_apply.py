"""`model.apply`: pure functions under jit, grad, vmap and shard_map, and with checked shapes."""

import functools
import types
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from dbae_jax import DBAE
from dbae_jax.api.apply import Apply
from dbae_jax.configuration import build
from dbae_jax.data.images import to_float
from dbae_jax.errors import DataError
from dbae_jax.prior import prior
from dbae_jax.runtime import sharding
from dbae_jax.sampling.plan import Plan
from tests.helpers import tiny

NAMES = ("encode", "endpoint", "denoise", "decode", "sample")
NOISY = Plan.recommended(steps=3, eta=1.0)


def _model(**overrides) -> DBAE:
    c = tiny.config(**overrides)
    network = build.make_latent_network(c)
    variables = prior.first_variables(network, jax.random.key(0))
    variables["stats"] = {"mean": jnp.full(8, 0.1), "std": jnp.full(8, 0.5)}
    latent_prior = prior.Prior(c, network, variables, step=1)
    return DBAE(c, tiny.variables(c), load_prior=lambda *fingerprints: latent_prior)


@pytest.fixture(scope="module")
def model():
    return _model()


@pytest.fixture(scope="module")
def gaussian():
    return _model(**{"bridge.endpoint": "free", "bridge.beta_d": 19.9})


@pytest.fixture(scope="module")
def stochastic():
    return _model(**{"model.stochastic": True})


@pytest.fixture(scope="module")
def z(model):
    return jnp.asarray(model.encode(tiny.images(8)))


def _functions(model, z):
    """Returns each function with variables and options bound, and its arrays [8, ...]."""
    apply, variables = model.apply, model.variables
    x_T, keys = model.apply.endpoint(variables, z), jax.random.split(jax.random.key(0), 8)
    bound = functools.partial
    noisy = {"plan": NOISY}
    prior_variables = model.prior.variables
    return {
        "encode": (bound(apply.encode, variables), (to_float(tiny.images(8)),)),
        "endpoint": (bound(apply.endpoint, variables), (z,)),
        "denoise": (bound(apply.denoise, variables), (x_T, jnp.linspace(0.1, 0.9, 8), x_T, z)),
        "decode": (bound(apply.decode, variables, **noisy), (z, x_T, keys)),
        "sample": (bound(apply.sample, variables, prior_variables, **noisy), (keys,)),
    }


def test_they_equal_the_methods_of_the_class(model, z):
    images, a, v = tiny.images(5), model.apply, model.variables
    z, key = z[:5], jax.random.key(3)
    x_T = model.endpoint(z)
    pairs = {
        "encode": (a.encode(v, jnp.asarray(images)), model.encode(images)),
        "endpoint": (a.endpoint(v, z), x_T),
        "denoise": (a.denoise(v, x_T, 0.4, x_T, z), model.denoise(x_T, 0.4, x_T, z)),
        "decode": (a.decode(v, z, steps=3), model.decode(z, steps=3)),
        "heun": (
            a.decode(v, z, x_T, sampler="heun", steps=3),
            model.decode(z, x_T, sampler="heun", steps=3),
        ),
        "noise": (a.decode(v, z, key=key, plan=NOISY), model.decode(z, rng=key, plan=NOISY)),
        "sample": (
            a.sample(v, model.prior.variables, key, 5, steps=3),
            model.sample(5, key, steps=3),
        ),
    }
    for name, (pure, method) in pairs.items():
        np.testing.assert_allclose(pure, method, atol=1e-4, err_msg=name)


def test_stochastic_encoders_and_gaussian_endpoints_take_a_key(stochastic, gaussian):
    images, key = tiny.images(3), jax.random.key(3)
    for k in (None, key):
        pure = stochastic.apply.encode(stochastic.variables, jnp.asarray(images), k)
        np.testing.assert_allclose(pure, stochastic.encode(images, k), atol=1e-4)
    z = jnp.asarray(gaussian.encode(images))
    pure = gaussian.apply.decode(gaussian.variables, z, key=key, steps=3)
    np.testing.assert_allclose(pure, gaussian.decode(z, rng=key, steps=3), atol=1e-4)
    pure = gaussian.apply.sample(gaussian.variables, gaussian.prior.variables, key, 3, steps=3)
    np.testing.assert_allclose(pure, gaussian.sample(3, key, steps=3), atol=1e-4)


@pytest.mark.parametrize(
    ("of", "sampler", "length"), [("z", "heun", 3e-3), ("params", "dbim", 2e-4)]
)
def test_gradients_of_decode_agree_with_finite_differences(model, z, of, sampler, length):
    """The slope along the gradient is the gradient's norm."""
    weights = np.random.default_rng(0).standard_normal((2, 16, 16, 1)).astype(np.float32)
    given = {"z": z[:2], "params": model.variables["params"]}

    @functools.partial(jax.jit, static_argnames="remat")
    def loss(tree, remat=False):
        both = given | {of: tree}
        variables = model.variables | {"params": both["params"]}
        options = {"sampler": sampler, "steps": 3, "remat": remat}
        return jnp.sum(weights * model.apply.decode(variables, both["z"], **options))

    gradient = jax.grad(loss)(given[of])
    norm = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient)))
    unit = jax.tree.map(lambda leaf: leaf / norm, gradient)
    ends = [
        loss(jax.tree.map(lambda a, u, s=side: a + s * length * u, given[of], unit))
        for side in (-1, 1)
    ]
    assert norm > 1
    np.testing.assert_allclose((ends[1] - ends[0]) / (2 * length), norm, rtol=0.01)
    if of == "z":  # rematerialization changes the memory alone
        again = jax.grad(functools.partial(loss, remat=True))(given[of])
        np.testing.assert_allclose(again, gradient, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["encode", "endpoint", "denoise"])
def test_every_function_has_finite_gradients_of_all_weights(model, z, name):
    bound, arrays = _functions(model, z)[name]
    arrays = tuple(a[:1] for a in arrays)

    def loss(params):
        variables = model.variables | {"params": params}
        return jnp.sum(bound.func(variables, *bound.args[1:], *arrays, **bound.keywords) ** 2)

    gradient = jax.jit(jax.grad(loss))(model.variables["params"])
    sizes = {
        part: sum(float(jnp.abs(leaf).sum()) for leaf in jax.tree.leaves(gradient[part]))
        for part in gradient
    }
    used = {"encode": {"encoder"}, "endpoint": {"decoder"}, "denoise": {"unet"}}
    assert all(np.isfinite(size) for size in sizes.values())
    assert {part for part, size in sizes.items() if size > 0} == used[name]


@pytest.mark.parametrize("name", NAMES)
def test_jit_compiles_once_per_shape(model, z, name):
    traces = []
    bound, arrays = _functions(model, z)[name]

    def counted(variables, *arrays):
        traces.append(len(arrays[0]))
        return bound.func(variables, *bound.args[1:], *arrays, **bound.keywords)

    jitted = jax.jit(counted)
    other = jax.tree.map(lambda leaf: 1.1 * leaf, model.variables)
    first = jitted(model.variables, *arrays)
    again = jitted(other, *(a[::-1] for a in arrays))
    assert traces == [8] and not np.allclose(first, again)
    jitted(other, *(a[:2] for a in arrays))
    jitted(other, *(a[2:4] for a in arrays))
    assert traces == [8, 2]


@pytest.mark.parametrize("name", NAMES)
def test_vmap_equals_a_loop(model, z, name):
    bound, arrays = _functions(model, z)[name]
    arrays = tuple(a[:3] for a in arrays)
    one = jax.jit(lambda *parts: bound(*(part[None] for part in parts))[0])
    mapped = jax.jit(jax.vmap(one))(*arrays)
    loop = np.stack([one(*(a[i] for a in arrays)) for i in range(3)])
    np.testing.assert_allclose(mapped, loop, atol=1e-4)
    np.testing.assert_allclose(mapped, bound(*arrays), atol=1e-4)


def test_vmap_over_keys_equals_a_loop(model, z):
    keys = jax.random.split(jax.random.key(0), 3)

    def draw(key):
        return model.apply.sample(model.variables, model.prior.variables, key, 2, plan=NOISY)

    def decode(key):
        return model.apply.decode(model.variables, z[:2], key=key, plan=NOISY)

    for function in (draw, decode):
        mapped = jax.jit(jax.vmap(function))(keys)
        assert mapped.shape == (3, 2, 16, 16, 1)
        loop = np.stack([function(key) for key in keys])
        np.testing.assert_allclose(mapped, loop, atol=1e-4)
        assert not np.allclose(loop[0], loop[1])


@pytest.mark.parametrize("name", NAMES)
def test_shard_map_over_all_devices_equals_one_device(model, z, name):
    mesh, (bound, arrays) = sharding.make_mesh(), _functions(model, z)[name]
    split = (P("data"),) * len(arrays)
    sharded = jax.jit(jax.shard_map(bound, mesh=mesh, in_specs=split, out_specs=P("data")))
    found = sharded(*arrays)
    assert len(found.sharding.device_set) == mesh.devices.size == 8
    np.testing.assert_allclose(found, bound(*arrays), atol=1e-4)


def test_wrong_keys_get_a_sentence(model, gaussian, z):
    a, v, key = model.apply, model.variables, jax.random.key(0)
    images = jnp.asarray(tiny.images(1))
    with pytest.raises(DataError, match="deterministic: call encode without a key"):
        a.encode(v, images, key)
    with pytest.raises(DataError, match="draws noise: pass key"):
        a.decode(v, z, plan=NOISY)
    with pytest.raises(DataError, match="one of euler, heun, dbim"):
        a.decode(v, z, sampler="ddim")
    with pytest.raises(DataError, match="without num"):
        a.sample(v, model.prior.variables, jax.random.split(key, 2), 2)
    with pytest.raises(DataError, match="with draw_x_T or key"):
        gaussian.apply.decode(gaussian.variables, z, steps=3)
    with pytest.raises(DataError, match="not decoded from z"):
        gaussian.apply.endpoint(gaussian.variables, z)


def _checked(name):
    """Returns a function of `Apply` whose annotations beartype checks by jaxtyping's rules."""
    jaxtyping, beartype = pytest.importorskip("jaxtyping"), pytest.importorskip("beartype")
    function = getattr(Apply, name)
    names = {name: getattr(jaxtyping, name) for name in ("Array", "Float", "Key", "UInt8")}
    copy = types.FunctionType(
        function.__code__, function.__globals__, name, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__annotations__ = typing.get_type_hints(function, function.__globals__ | names)
    return jaxtyping, jaxtyping.jaxtyped(copy, typechecker=beartype.beartype)


@pytest.mark.parametrize("name", NAMES)
def test_annotations_hold(model, z, name):
    jaxtyping, checked = _checked(name)
    bound, arrays = _functions(model, z)[name]
    arrays, options = tuple(a[:2] for a in arrays), bound.keywords

    def shapes(*arrays):
        return jax.eval_shape(lambda *a: checked(model.apply, *bound.args, *a, **options), *arrays)

    assert shapes(*arrays).dtype == jnp.float32
    with pytest.raises(jaxtyping.TypeCheckError):
        shapes(arrays[0][None], *arrays[1:])  # one axis too many
