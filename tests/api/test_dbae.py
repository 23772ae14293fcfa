"""`DBAE` in Python: shapes, ranges, batches, randomness, and what it refuses."""

import jax
import numpy as np
import pytest

import dbae_jax
from dbae_jax import DBAE
from dbae_jax.errors import DBAEError
from dbae_jax.runtime import batching, fingerprint, sharding
from tests.helpers import tiny
from tests.helpers.compiling import compiled


@pytest.fixture(scope="module")
def model():
    c = tiny.config()
    return DBAE(c, tiny.variables(c))


@pytest.fixture(scope="module")
def stochastic():
    c = tiny.config(**{"model.stochastic": True})
    return DBAE(c, tiny.variables(c))


def test_the_whole_way(model):
    images = tiny.images(5)
    z = model.encode(images)
    x_T = model.endpoint(z)
    x_0 = model.decode(z, steps=3)
    assert z.shape == (5, 8) and x_T.shape == x_0.shape == images.shape
    assert {a.dtype for a in (z, x_T, x_0)} == {np.dtype("float32")}
    assert x_0.min() >= -1 and x_0.max() <= 1
    np.testing.assert_array_equal(model.decode(z, x_T, steps=3), x_0)
    np.testing.assert_array_equal(model.reconstruct(images, steps=3), x_0)
    assert not np.allclose(model.decode(z, x_T + 0.5, steps=3), x_0)


def test_uint8_and_float_images_give_the_same_code(model):
    images = tiny.images(3)
    floats = images / 127.5 - 1
    np.testing.assert_allclose(model.encode(floats), model.encode(images), atol=1e-5)
    np.testing.assert_array_equal(dbae_jax.to_uint8(floats), images)
    assert dbae_jax.to_uint8(np.array([-2.0, 0.0, 2.0])).tolist() == [0, 128, 255]


def test_batches_are_padded_to_powers_of_four(model):
    """Every length gives the same up to rounding, and few sizes are compiled."""
    images = tiny.images(21)  # batches of 8 at most: split, and a short last one
    together = model.encode(images)
    for count in range(1, 22):
        np.testing.assert_allclose(model.encode(images[:count]), together[:count], atol=1e-5)
    own = tiny.config(**{"model.latent_dim": 5})  # its programs are compiled for no other test
    fresh = DBAE(own, tiny.variables(own))
    made = compiled(lambda: [fresh.encode(images[:n]) for n in range(1, 22)], "encode")
    assert len(made) == 3, made  # 1, 4 and 8
    mesh = sharding.make_mesh(jax.devices()[:2])
    for most, count, size in (
        (8, 1, 1),
        (8, 3, 4),
        (8, 5, 8),
        (8, 9, 8),
        (64, 5, 16),
        (64, 17, 64),
    ):
        assert batching.padded_size(count, most, None) == size
    assert batching.padded_size(12, 12, None) == 12
    assert batching.padded_size(1, 8, mesh) == 2 and batching.padded_size(3, 8, mesh) == 4
    assert batching.padded_size(3, 3 * 8, sharding.make_mesh()) == 8


def test_whole_batches_compile_one_size(model):
    """Trajectories, which need much memory for each image, are padded to powers of four."""
    own = tiny.config(**{"model.latent_dim": 6})  # its programs are compiled for no other test
    whole = DBAE(own, tiny.variables(own), whole_batches=True)
    images = tiny.images(9)
    z = whole.encode(images)
    x_0 = whole.decode(z, steps=3)

    def shorter():
        for count in (1, 3, 5):
            np.testing.assert_array_equal(whole.encode(images[:count]), z[:count])
            np.testing.assert_array_equal(whole.decode(z[:count], steps=3), x_0[:count])

    assert not compiled(shorter, "encode", "endpoint", "decode")
    DBAE(own, whole.variables).trajectory(z[:1], steps=3)
    assert not compiled(lambda: whole.trajectory(z[:1], steps=3), "decode")


def test_progress_is_told_after_every_batch(model):
    told = []
    tell = {"progress": lambda done, count: told.append((done, count))}
    z = model.encode(tiny.images(21), **tell)
    model.decode(z, steps=3, **tell)
    assert told == 2 * [(8, 21), (16, 21), (21, 21)]


def test_denoise_is_unclipped_and_takes_one_time_or_many(model):
    images = tiny.images(2)
    z = model.encode(images)
    x_T = model.endpoint(z)
    x_t = 40 * np.ones_like(x_T)
    out = model.denoise(x_t, 0.3, x_T, z)
    assert out.shape == x_T.shape and np.abs(out).max() > 1
    many = model.denoise(x_t, np.array([0.3, 0.9]), x_T, z)
    np.testing.assert_array_equal(many[0], out[0])
    assert not np.allclose(many[1], out[1])


def test_trajectories_and_evaluations(model):
    z = model.encode(tiny.images(3))
    trajectory = model.trajectory(z, sampler="heun", steps=4)
    assert trajectory.path.shape == (5, 3, 16, 16, 1)
    again = model.decode(z, sampler="heun", steps=4)
    np.testing.assert_allclose(trajectory.x_0, again, atol=1e-6)
    assert len(trajectory.times) == 5 and trajectory.times[-1] == 0
    assert model.nfe(steps=4) == 4 and model.nfe(steps=4, churn=0.1) == 11  # dbim; heun
    np.testing.assert_allclose(trajectory.path[0], np.clip(model.endpoint(z), -1, 1), atol=1e-6)
    assert trajectory.nfe == model.nfe(sampler="heun", steps=4) == 7
    assert model.nfe(sampler="euler", steps=10) == 10
    assert model.nfe(sampler="heun", steps=10, churn=0.3) == 29


def test_churn_draws_by_seed_and_not_by_batch(model):
    z = model.encode(tiny.images(3))
    first = model.decode(z, steps=3, churn=0.5, rng=1)
    np.testing.assert_array_equal(model.decode(z, steps=3, churn=0.5, rng=jax.random.key(1)), first)
    one = model.decode(z[:1], steps=3, churn=0.5, rng=1)
    np.testing.assert_allclose(one, first[:1], atol=1e-4)
    assert not np.allclose(model.decode(z, steps=3, churn=0.5, rng=2), first)
    keys, order = jax.random.split(jax.random.key(0), 3), np.array([2, 0])
    whole = model.decode(z, steps=3, churn=0.5, rng=keys)
    part = model.decode(z[order], steps=3, churn=0.5, rng=keys[order])
    np.testing.assert_allclose(whole[order], part, atol=1e-4)


def test_stochastic_codes_are_the_mean_unless_drawn(stochastic):
    images = tiny.images(4)
    np.testing.assert_array_equal(stochastic.encode(images), stochastic.encode(images))
    drawn = stochastic.encode(images, rng=0)
    np.testing.assert_array_equal(stochastic.encode(images, rng=0), drawn)
    assert not np.allclose(drawn, stochastic.encode(images))
    assert not np.allclose(drawn, stochastic.encode(images, rng=1))


def test_other_weights_share_the_programs(model):
    other = model.with_variables(tiny.variables(model.config, seed=5))
    images = tiny.images(2)
    assert not np.allclose(other.encode(images), model.encode(images))
    assert model.fingerprint != other.fingerprint == fingerprint.of(other.variables)
    assert len(other.fingerprint) == fingerprint.LENGTH


def test_a_model_says_what_it_is(tmp_path):
    c = tiny.config()
    tiny.write_workdir(c, tmp_path, step=7)
    model = DBAE.load(tmp_path)
    data = "DBAE(digits 16x16x1, 8-dimensional z, deterministic encoder, decoded x_T, "
    assert repr(model).startswith(data)
    assert repr(model).endswith(f"M parameters, step 7, EMA weights of {tmp_path})")
    assert repr(model.with_variables(model.variables)).endswith("weights in memory)")


def test_models_of_one_shape_share_the_programs():
    c, images = tiny.config(), tiny.images(2)
    first = compiled(lambda: DBAE(c, tiny.variables(c)).encode(images), "encode")
    alike = tiny.config(seed=1, **{"sample.steps": 4})
    again = compiled(lambda: DBAE(alike, tiny.variables(c)).encode(images), "encode")
    wider = tiny.config(**{"model.latent_dim": 4})
    other = compiled(lambda: DBAE(wider, tiny.variables(wider)).encode(images), "encode")
    assert not again and other, first


IMAGES = np.zeros((2, 16, 16, 1), np.uint8)
Z = np.zeros((2, 8), np.float32)
X = np.zeros((2, 16, 16, 1), np.float32)

WRONG = {
    "rank": (lambda m: m.encode(IMAGES[0, 0]), r"4 axes, \[B, 16, 16, 1\], got shape \[16, 1\]"),
    "size": (lambda m: m.encode(np.zeros((2, 8, 8, 1))), r"got \[2, 8, 8, 1\]"),
    "channels": (lambda m: m.encode(np.zeros((2, 16, 16, 3))), r"\[B, 16, 16, 1\] for this model"),
    "channels first": (lambda m: m.encode(np.zeros((2, 1, 16, 16))), r"\[B, 16, 16, 1\]"),
    "empty": (lambda m: m.encode(IMAGES[:0]), "at least one image"),
    "integers": (lambda m: m.encode(IMAGES.astype(int)), "uint8 or float"),
    "range": (lambda m: m.encode(X + 255), r"must lie in \[-1, 1\], got \[255, 255\]"),
    "not finite": (lambda m: m.encode(X + np.nan), "not finite"),
    "rng": (lambda m: m.encode(IMAGES, rng=0), "deterministic"),
    "code width": (lambda m: m.decode(Z[:, :5]), r"z must be \[B, 8\], got shape \[2, 5\]"),
    "code rank": (lambda m: m.endpoint(Z[0]), r"z must be \[B, 8\]"),
    "code not finite": (lambda m: m.endpoint(Z * np.inf), "finite"),
    "x_T": (lambda m: m.decode(Z, X[:1]), r"x_T must be \[2, 16, 16, 1\]"),
    "sampler": (lambda m: m.decode(Z, sampler="ddim"), "one of euler, heun, dbim"),
    "steps": (lambda m: m.decode(Z, steps=0), "steps=0 is not allowed"),
    "churn": (lambda m: m.decode(Z, churn=1.5, rng=0), r"churn=1.5 is not allowed: .* \[0, 1\)"),
    "rho": (lambda m: m.decode(Z, sampler="heun", rho=-1.0), "rho=-1.0"),
    "grid": (
        lambda m: m.decode(Z, sampler="heun", grid="cosine"),
        "one of karras, uniform, power, lambda",
    ),
    "times": (lambda m: m.decode(Z, grid=np.array([0.5, 0.7, 0.0])), "fall strictly"),
    "eta": (lambda m: m.decode(Z, sampler="dbim", eta=2.0, rng=0), "eta=2.0"),
    "eta of heun": (lambda m: m.decode(Z, sampler="heun", eta=0.5, rng=0), "eta=0.5 is not"),
    "churn of dbim": (lambda m: m.decode(Z, sampler="dbim", churn=0.5, rng=0), "churn=0.5 is not"),
    "rng of another kind": (
        lambda m: m.decode(Z, churn=0.5, rng=np.ones(3)),
        "a seed .an integer, 0 or more., a key",
    ),
    "boot of heun": (
        lambda m: m.decode(Z, sampler="heun", boot=True, rng=0),
        "boot=True is not allowed",
    ),
    "time": (lambda m: m.denoise(X, 1.5, X, Z), r"t must lie in \[0.0001, 1\], got 1.5"),
    "times of denoise": (lambda m: m.denoise(X, np.ones(3), X, Z), r"scalar or \[2\]"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_gets_a_sentence(model, name):
    call, words = WRONG[name]
    with pytest.raises(DBAEError, match=words) as caught:
        call(model)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


def test_one_program_serves_all_samplers_numbers_of_steps_and_keys():
    c = tiny.config(**{"eval.batch_size": 8})
    model = DBAE(c, tiny.variables(c))
    z, keys = model.encode(tiny.images(7)), jax.random.split(jax.random.key(0), 7)
    noisy = {"sampler": "dbim", "steps": 3, "eta": 1.0}
    whole = model.decode(z, rng=keys, **noisy)
    before = model.programs._jitted.decode._cache_size()
    fewer = model.decode(z[:5], rng=keys[:5], **noisy)
    for options in ({"sampler": "heun", "steps": 4, "churn": 0.3}, {"sampler": "multistep3"}, {}):
        model.decode(z, rng=1, **options)
    assert model.programs._jitted.decode._cache_size() == before
    np.testing.assert_allclose(fewer, whole[:5], atol=1e-5)
    assert not np.allclose(model.decode(z[:5], rng=keys[2:], **noisy), fewer)


def test_a_trajectory_keeps_the_values_of_x_T_if_asked():
    c = tiny.config()
    model = DBAE(c, tiny.variables(c))
    z = 20 * model.encode(tiny.images(2))
    x_T = model.endpoint(z) * 9
    clipped = model.trajectory(z, x_T, steps=3).path
    whole = model.trajectory(z, x_T, steps=3, clip_path=False).path
    np.testing.assert_allclose(whole[0], x_T, rtol=1e-6)
    assert np.abs(whole).max() > 1 and np.abs(clipped).max() <= 1
    np.testing.assert_allclose(np.clip(whole, -1, 1), clipped, atol=1e-6)
