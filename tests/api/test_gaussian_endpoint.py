"""Gaussian x_T: sampling, inference, edits with fixed x_T, interpolation."""

import jax
import numpy as np
import pytest

from dbae_jax import DBAE, editing
from dbae_jax.api.programs import jit_functions
from dbae_jax.errors import DataError
from dbae_jax.evaluation import pictures
from dbae_jax.evaluation.suites import editing as suite
from dbae_jax.evaluation.suites import information, reconstruction
from dbae_jax.runtime import sharding
from dbae_jax.sampling import inversion
from tests.helpers import stubs, tiny

OVERRIDES = {"bridge.endpoint": "free", "bridge.beta_d": 19.9}


@pytest.fixture(scope="module")
def model():
    config = tiny.config(**OVERRIDES)
    return DBAE(config, tiny.variables(config))


def test_x_T_is_drawn_from_rng_an_example_a_key(model):
    z = model.encode(tiny.images(10))  # batches of 8
    drawn = model.draw_x_T(10, 3)
    again = model.decode(z, rng=3, steps=3)
    np.testing.assert_array_equal(model.decode(z, drawn, steps=3), again)
    np.testing.assert_array_equal(model.decode(z[:2], rng=3, steps=3), again[:2])
    assert not np.allclose(model.decode(z, rng=4, steps=3), again)
    keys, order = jax.random.split(jax.random.key(0), 10), np.array([5, 1])
    np.testing.assert_array_equal(model.draw_x_T(2, keys[order]), model.draw_x_T(10, keys)[order])
    many = model.draw_x_T(400, 0)
    assert many.std() == pytest.approx(1, abs=0.01) and many.mean() == pytest.approx(0, abs=0.01)
    trajectory = model.trajectory(z[:2], rng=3, sampler="dbim", eta=1.0, steps=3)
    assert trajectory.path.shape == (4, 2, 16, 16, 1)
    np.testing.assert_array_equal(trajectory.path[0], np.clip(drawn[:2], -1, 1))
    assert not np.allclose(trajectory.x_0, again[:2])  # the sampler's noise is another than x_T


@pytest.mark.parametrize("several", [True, False])
def test_results_of_several_processes_are_on_every_device(model, several, monkeypatch):
    """Else a process, which holds some of the devices, could not fetch them.

    In one process the results stay split, so that no device waits for another.
    """
    mesh = sharding.make_mesh()
    assert not mesh.is_multi_process
    # JAX keeps the answer in the mesh, and it keeps one mesh for equal devices.
    monkeypatch.setitem(vars(mesh), "is_multi_process", several)
    programs = jit_functions(mesh)
    places = sharding.spread(mesh, np.arange(8))
    scale = inversion.end_scale(model.bridge.schedule)
    draw = programs.draw_x_T.lower(jax.random.key(3), places, scale, image_shape=(16, 16, 1))
    assert ("all-gather" in draw.compile().as_text()) == several
    drawn = programs.draw_x_T(jax.random.key(3), places, scale, image_shape=(16, 16, 1))
    assert not places.is_fully_replicated and drawn.is_fully_replicated == several
    np.testing.assert_array_equal(drawn, model.draw_x_T(8, 3))


def test_evaluation_and_pictures_draw_their_x_T(model, tmp_path):
    shown, sample = tiny.images(3), model.config.sample
    rows = reconstruction.picture_rows(model, shown, sample)
    np.testing.assert_array_equal(rows[1], model.draw_x_T(3, 0))
    np.testing.assert_array_equal(rows[2], reconstruction.reconstruct(model, shown, sample))
    measured = information.measure(model, shown, points=2)
    assert np.isfinite(information.entropy_bound(measured)).all()
    pictures.trajectories(tmp_path / "trajectory.png", model, shown[:1], columns=3, steps=4)
    assert (tmp_path / "trajectory.png").stat().st_size > 500


def test_inferred_endpoints_lead_back_to_the_images(model):
    images_, errors = tiny.images(3), []
    z = model.encode(images_)
    for steps in (4, 64):
        x_T = model.invert(images_, z, steps=steps)
        assert x_T.shape == images_.shape and np.abs(x_T).max() > 1  # not clipped
        again = model.decode(z, x_T, steps=steps)
        errors.append(np.abs(again - (images_ / 127.5 - 1)).mean())
    assert errors[1] < 0.3 * errors[0]
    np.testing.assert_array_equal(model.invert(images_, steps=4), model.invert(images_, z, steps=4))


def test_edits_with_a_fixed_gaussian_endpoint_infer_it(model):
    """At scale 0 they give the image back through its own x_T; else all draw theirs."""
    images, step, steps = tiny.images(2), np.ones(8, np.float32), 40
    kept = model.edit(images, step, (0, 1), fix_endpoint=True, steps=steps)
    z = model.encode(images)
    again = model.decode(z + step, model.invert(images, z), steps=steps)
    np.testing.assert_allclose(kept[:, 1], again, atol=1e-5)
    drawn = model.edit(images, step, (0,), rng=0, steps=steps)
    shown = images / 127.5 - 1
    errors = [np.abs(found[:, 0] - shown).mean() for found in (kept, drawn)]
    assert errors[0] < 0.5 * errors[1]


class _Classifier:
    """Tells two pixels of a picture, in gray levels."""

    kind, labels = "attributes", ("left", "right")

    def logits(self, images):
        return images[:, 8, [4, 11], 0].astype(np.float64) - 127.5


@pytest.mark.parametrize(("mode", "inferred"), [("following", 0), ("fixed", 1)])
def test_edits_that_change_nothing_score_nothing(model, monkeypatch, mode, inferred):
    """With and without an edit an image starts from one x_T, which is made once for all edits."""
    calls, invert = [], model.invert
    monkeypatch.setattr(model, "invert", lambda *args: calls.append(args) or invert(*args))
    images, none = (
        tiny.images(3),
        editing.Directions(_Classifier.labels, np.zeros((2, 8), np.float32)),
    )
    splits = dict.fromkeys(("train", "test"), stubs.Data(images))
    context = stubs.context(splits, model=model, **OVERRIDES)
    real, kept = _Classifier().logits(tiny.images(20)), np.arange(2)
    apart, fixed = np.zeros((2, 2), bool), suite.MODES[mode]
    found = suite._edited(context, _Classifier(), none, images, real, kept, apart, fixed)
    for name in _Classifier.labels:
        np.testing.assert_array_equal(found[name].target, 0)
        np.testing.assert_array_equal(found[name].others, 0)
    assert len(calls) == inferred


def test_interpolations_between_inferred_endpoints(model):
    first, second = tiny.images(2)[:1], tiny.images(2)[1:]
    how = {"infer_endpoint": True, "steps": 4}
    way = model.interpolate(first, second, 3, **how)
    ends = [model.invert(images) for images in (first, second)]
    z = (model.encode(first) + model.encode(second)) / 2
    middle = editing.path(*(x_T.reshape(1, -1) for x_T in ends), 3, "spherical")[:, 1]
    again = model.decode(z, middle.reshape(ends[0].shape), steps=4)
    np.testing.assert_allclose(way[:, 1], again, atol=1e-5)
    np.testing.assert_array_equal(way, model.interpolate(first, second, 3, "linear", rng=7, **how))
    last = model.decode(model.encode(second), ends[1], steps=4)
    np.testing.assert_allclose(way[:, 2], last, atol=1e-5)
    with pytest.raises(DataError, match="This model decodes x_T from z"):
        DBAE(tiny.config(), tiny.variables(tiny.config())).interpolate(
            first, second, 3, infer_endpoint=True
        )


def test_ve_draws_noise_of_its_own_size():
    config = tiny.config(**{"bridge.endpoint": "free", "bridge.schedule": "ve"})
    ve = DBAE(config, {})  # no networks are run
    assert ve.draw_x_T(100, 0).std() == pytest.approx(80, rel=0.02)


X, Z = np.zeros((2, 16, 16, 1), np.float32), np.zeros((2, 8), np.float32)
WRONG = {
    "endpoint": (lambda m: m.endpoint(Z), "not decoded from z. Sample x_T with draw_x_T or rng"),
    "boot": (lambda m: m.decode(Z, rng=0, boot=True), "boot=True: a Gaussian x_T"),
    "steps": (
        lambda m: m.invert(X, steps=1),
        "steps=1 is not allowed: inferring x_T takes at least 2",
    ),
    "grid": (lambda m: m.invert(X, grid="cosine"), "one of karras, uniform, power, lambda"),
    "codes": (lambda m: m.invert(X, Z[:1]), "one latent code per image, got 1 for 2"),
    "images": (lambda m: m.invert(X + 3), r"must lie in \[-1, 1\]"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_calls_get_a_sentence(model, name):
    call, words = WRONG[name]
    with pytest.raises(DataError, match=words) as caught:
        call(model)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


def test_a_decoded_endpoint_is_neither_sampled_nor_inferred():
    decoded = DBAE(tiny.config(), {})
    for call in (lambda: decoded.draw_x_T(2, 0), lambda: decoded.invert(X)):
        with pytest.raises(DataError, match=r"decodes x_T from z. Call endpoint\(z\)"):
            call()
