"""Editing: paths between codes, directions, fixed and recomputed x_T, named images, scores."""

import json

import numpy as np
import pytest
from PIL import Image

from dbae_jax import DBAE, editing
from dbae_jax.commands import named_pictures
from dbae_jax.data import registry, transforms
from dbae_jax.errors import ConfigError, DataError
from dbae_jax.evaluation import attribute_directions
from dbae_jax.evaluation.suites import editing as suite
from tests.helpers import stubs, tiny


def _codes(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("method", editing.METHODS)
def test_paths_have_exact_ends_and_take_many_codes(method):
    z_0, z_1 = _codes(3, 5), 4 * _codes(3, 5, seed=1)
    found = editing.path(z_0, z_1, 7, method)
    assert found.shape == (3, 7, 5) and found.dtype == np.float32
    np.testing.assert_array_equal(found[:, 0], z_0)
    np.testing.assert_array_equal(found[:, -1], z_1)
    np.testing.assert_array_equal(editing.path(z_0[1], z_1[1], 7, method), found[1])
    np.testing.assert_allclose(editing.path(z_1, z_0, 7, method)[:, ::-1], found, atol=1e-5)
    np.testing.assert_array_equal(editing.path(z_0, z_0, 4, method)[:, 2], z_0)


def test_codes_on_a_line_are_evenly_spaced():
    z_0, z_1 = _codes(2, 6), _codes(2, 6, seed=1)
    steps = np.diff(editing.line(z_0, z_1, 9), axis=1)
    np.testing.assert_allclose(
        steps, np.broadcast_to((z_1 - z_0)[:, None] / 8, steps.shape), atol=1e-6
    )


def test_angle_and_norm_change_evenly_along_an_arc():
    z_0, z_1 = _codes(6), _codes(6, seed=1)
    z_1 *= np.linalg.norm(z_0) / np.linalg.norm(z_1)
    norms = np.linalg.norm(editing.arc(z_0, z_1, 9), axis=-1)
    np.testing.assert_allclose(norms, np.linalg.norm(z_0), rtol=1e-5)
    found = np.float64(editing.arc(z_0, 3 * z_1, 9))
    norms = np.linalg.norm(found, axis=-1)
    np.testing.assert_allclose(norms, np.linspace(1, 3, 9) * norms[0], rtol=1e-5)
    cosines = np.sum(found[1:] * found[:-1], axis=-1) / (norms[1:] * norms[:-1])
    whole = np.arccos(z_0 @ z_1 / np.linalg.norm(z_0) ** 2)
    np.testing.assert_allclose(np.arccos(cosines), whole / 8, rtol=1e-3)
    # A quarter of a circle, by hand.
    middle = editing.arc(np.array([1.0, 0.0]), np.array([0.0, 1.0]), 3)[1]
    np.testing.assert_allclose(middle, np.sqrt([0.5, 0.5]), rtol=1e-6)


def test_arcs_of_parallel_opposite_and_zero_codes():
    z = _codes(2, 6)
    np.testing.assert_allclose(
        editing.arc(z, 2 * z, 5), z[:, None] * np.linspace(1, 2, 5)[:, None], rtol=1e-5
    )
    near = z + 1e-6 * _codes(2, 6, seed=1)
    np.testing.assert_allclose(editing.arc(z, near, 5)[:, 2], z, atol=1e-5)
    with pytest.raises(DataError, match="are opposite"):
        editing.arc(z, -3 * z, 5)
    with pytest.raises(DataError, match="is 0 and has no direction"):
        editing.arc(z, 0 * z, 5)
    with pytest.raises(DataError, match="one shape"):
        editing.line(z, z[0], 5)
    with pytest.raises(DataError, match="points=1"):
        editing.line(z, z, 1)
    with pytest.raises(DataError, match="linear or spherical"):
        editing.path(z, z, 3, "straight")


def _linear_attributes(rng):
    """Returns correlated codes of different scales, normals, and attributes linear in the codes."""
    mixing = rng.normal(size=(6, 6)) * np.array([1, 2, 0.5, 1, 1, 3])
    z = rng.normal(size=(20_000, 6)) @ mixing + rng.normal(size=6)
    normals = rng.normal(size=(2, 6))
    logits = (z - z.mean(axis=0)) @ normals.T
    noisy = rng.uniform(size=logits.shape) < 1 / (1 + np.exp(-4 * logits / logits.std(axis=0)))
    return z, normals, noisy.astype(np.int8)


def _cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


@pytest.mark.parametrize("probe", ["logistic", "ridge"])
def test_the_direction_of_a_linear_attribute_is_its_normal(probe):
    z, normals, targets = _linear_attributes(np.random.default_rng(0))
    found = editing.directions(z, targets, ("first", "second"), probe=probe)
    for name, normal in zip(("first", "second"), normals, strict=True):
        assert _cosine(found.step(name), normal) > 0.99
    np.testing.assert_allclose(np.linalg.norm(found.steps, axis=1), np.sqrt(6), rtol=1e-6)
    # With normalised codes, the shift there is sqrt(D) times a unit vector.
    std = z.std(axis=0)
    normalised = editing.directions(z, targets, ("first", "second"), probe=probe, normalise=True)
    np.testing.assert_allclose(np.linalg.norm(normalised.steps / std, axis=1), 6**0.5, rtol=1e-5)
    assert _cosine(normalised.step("first") / std, normals[0] * std) > 0.99


def test_other_probes_and_targets():
    z, normals, targets = _linear_attributes(np.random.default_rng(1))
    means = editing.directions(z, targets, ("a", "b"), probe="means")
    held = targets[:, 0] == 1
    assert _cosine(means.step("a"), z[held].mean(axis=0) - z[~held].mean(axis=0)) > 1 - 1e-6
    real = editing.directions(z, z @ normals.T, ("a", "b"))  # regression, exact
    assert _cosine(real.step("b"), normals[1]) > 0.999
    classes, held = editing.one_vs_rest(np.array([3, 7, 3, 5]))
    assert classes == (3, 5, 7) and held.tolist() == [[1, 0, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0]]


def test_directions_refuse_invalid_codes_and_targets():
    z, targets = _codes(20, 4), np.eye(20, dtype=np.int8)[:, :2]
    for bad, words in (
        ((z, targets * 0, ("a", "b")), "'a' is 0 for all 20 training images"),
        ((z, targets, ("a",)), r"targets \[N, 1\]"),
        ((z * np.nan, targets, ("a", "b")), "not finite"),
        ((z * 0, targets, ("a", "b")), "do not depend on 'a'"),
    ):
        with pytest.raises(DataError, match=words):
            editing.directions(*bad)
    with pytest.raises(DataError, match="logistic, ridge, means"):
        editing.directions(z, targets, ("a", "b"), probe="forest")


def test_an_error_about_an_unknown_name_lists_the_names():
    assert editing.check_name("Male", ("Male", "Young")) == "Male"
    with pytest.raises(DataError, match="no attribute 'male': there are Male, Young"):
        editing.check_name("male", ("Male", "Young"))
    many = [f"attribute_{i}" for i in range(40)] + ["Smiling"]
    with pytest.raises(DataError, match="most similar of 41 names are Smiling"):
        editing.check_name("smilin", many)


@pytest.fixture(scope="module")
def model():
    c = tiny.config()
    return DBAE(c, tiny.variables(c))


@pytest.mark.parametrize("method", editing.METHODS)
def test_interpolations_end_with_the_reconstructions(model, method):
    images = tiny.images(6)
    found = model.interpolate(images[:3], images[3:], points=5, method=method, steps=3)
    assert found.shape == (3, 5, 16, 16, 1) and found.dtype == np.float32
    for column, end in ((0, images[:3]), (-1, images[3:])):
        np.testing.assert_allclose(found[:, column], model.reconstruct(end, steps=3), atol=1e-4)
    z = editing.path(model.encode(images[:1]), model.encode(images[3:4]), 5, method)
    np.testing.assert_allclose(found[0], model.decode(z[0], steps=3), atol=1e-4)


def test_x_T_of_edits_is_fixed_or_recomputed(model):
    images, step, scales = tiny.images(3), 3 * _codes(8), (-0.5, 0, 1)
    z = model.encode(images)
    recomputed = model.edit(images, step, scales, steps=3)
    fixed = model.edit(images, step, scales, fix_endpoint=True, steps=3)
    assert recomputed.shape == fixed.shape == (3, 3, 16, 16, 1)
    for i, scale in enumerate(scales):
        shifted = (z + np.float32(scale) * step).astype(np.float32)
        expected = model.decode(shifted, steps=3)
        np.testing.assert_allclose(recomputed[:, i], expected, atol=1e-5)
        with_x_T = model.decode(shifted, x_T=model.endpoint(z), steps=3)
        np.testing.assert_allclose(fixed[:, i], with_x_T, atol=1e-5)
        assert scale == 0 or np.abs(with_x_T - expected).max() > 1e-2
    again = model.reconstruct(images, steps=3)
    np.testing.assert_allclose(recomputed[:, 1], again, atol=1e-4)
    np.testing.assert_array_equal(fixed[:, 1], recomputed[:, 1])


def test_all_edits_of_an_image_share_its_noise(model):
    images, noisy = tiny.images(2), {"rng": 3, "eta": 1.0, "steps": 3}
    rows = model.edit(np.repeat(images[:1], 2, axis=0), _codes(8), (0, 0), **noisy)
    np.testing.assert_array_equal(rows[0, 0], rows[0, 1])
    assert np.abs(rows[0, 0] - rows[1, 0]).max() > 1e-2
    again = model.reconstruct(images[[0, 0]], **noisy)
    np.testing.assert_allclose(rows[:, 0], again, atol=1e-4)


def test_wrong_edits_are_refused(model):
    images = tiny.images(2)
    with pytest.raises(DataError, match="8 finite numbers"):
        model.edit(images, np.ones(4), (0,))
    for scales in ((), (np.inf,), ("many",), np.nan):
        with pytest.raises(DataError, match="Scales must be a list"):
            model.edit(images, np.ones(8), scales)
        with pytest.raises(DataError, match="Scales must be a list"):
            model.edit(images, np.ones(8), scales, fix_endpoint=True)
    with pytest.raises(DataError, match="one shape"):
        model.interpolate(images, images[:1])


@pytest.fixture(scope="module")
def splits():
    return {split: registry.make_source(tiny.config().data, split) for split in ("train", "test")}


def test_images_are_named_by_item_or_by_file(splits, tmp_path):
    data = tiny.config().data
    for name, split, index in (("test:17", "test", 17), ("4", "test", 4), ("train:3", "train", 3)):
        np.testing.assert_array_equal(
            named_pictures.read(name, data, splits), splits[split][index]["image"]
        )
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60), np.uint8)
    for ending in ("png", "jpg", "webp", "bmp"):
        path = tmp_path / f"an image.{ending}"
        Image.fromarray(pixels).convert("RGB" if ending == "webp" else "L").save(path)
        if ending == "webp":  # a format that has only color images
            with pytest.raises(DataError, match="in colour"):
                named_pictures.read(str(path), data, {})
            continue
        wanted = transforms.load(path.read_bytes(), crop="center", size=16, channels=1)
        np.testing.assert_array_equal(named_pictures.read(str(path), data, {}), wanted)
    both = named_pictures.read_all([str(tmp_path / "an image.png"), "test:1"], data, lambda: splits)
    assert both.shape == (2, 16, 16, 1) and both.dtype == np.uint8


def test_invalid_names_of_images_are_refused(splits, tmp_path):
    data = tiny.config().data
    (tmp_path / "text.png").write_text("no image")
    Image.new("RGB", (20, 20)).save(tmp_path / "colour.png")
    Image.new("I;16", (20, 20)).save(tmp_path / "deep.png")
    for name, words in (
        ("nothing.png", "There is no image file nothing.png"),
        (str(tmp_path), "is a folder"),
        (str(tmp_path / "text.png"), "cannot be decoded"),
        (str(tmp_path / "colour.png"), "colour.png: the image is in colour"),
        (str(tmp_path / "deep.png"), "8 bits per channel"),
        ("test:360", "test:360 is out of range: the test split of digits has the images 0 to 359"),
        ("-1", "-1 is out of range"),
        ("val:3", "There is no image file val:3"),
    ):
        with pytest.raises(DataError, match=words.replace("(", r"\(")):
            named_pictures.read(name, data, splits)
    with pytest.raises(DataError, match="no image is named"):
        named_pictures.read_all([], data, lambda: splits)


def test_data_without_attributes(tmp_path):
    images = np.zeros((4, 16, 16, 1), np.uint8)
    context = stubs.context({split: stubs.Data(images) for split in ("train", "test")})
    with pytest.raises(DataError, match="have no labels and no attributes: the"):
        attribute_directions.check(context, "Male")
    assert "docs/reference/data_sets.md" in suite.obstacle(context)
    lmdb = stubs.context(
        {split: stubs.Data(images) for split in ("train", "test")}, **{"data.lmdb": "ffhq256.lmdb"}
    )
    assert "ffhq256.lmdb is an LMDB file" in suite.obstacle(lmdb)


class _Model(stubs.Model):
    """Decodes a code to an image whose first pixels are the mean of the code and x_T.

    x_T is a copy of the code, so that half of the change of an edit comes from x_T.
    """

    gaussian_endpoint = False

    def encode(self, images, rng=None):
        return self.posterior(images)[0]

    def endpoint(self, z):
        return np.array(z)

    def decode(self, z, x_T=None, rng=None, **plan):
        mixed = 0.5 * z + 0.5 * (z if x_T is None else x_T)
        flat = np.zeros((len(z), 256), np.float32)
        flat[:, : z.shape[1]] = np.clip(mixed, -1, 1)
        return flat.reshape(-1, 16, 16, 1)

    def reconstruct(self, images, **plan):
        return self.decode(self.encode(images), **plan)


class _Classifier:
    kind, labels = "attributes", ("zero", "one", "two")

    def logits(self, images):
        return images.reshape(len(images), -1)[:, :3].astype(np.float64) - 127.5


def _context(rng, **keys):
    sources = {}
    for split, count in (("train", 4000), ("test", 40)):
        z = rng.uniform(-0.3, 0.3, (count, 8))
        attributes = np.int8(z[:, :3] > 0)
        sources[split] = stubs.Data(stubs.images(z), _Classifier.labels, attributes=attributes)
    config = tiny.config(**{"eval.num_images": 0})
    return stubs.context(sources, model=_Model(config), **{"eval.edited_images": 64, **keys})


def test_the_suite_measures_the_edits_of_an_ideal_model():
    measured = suite.measure_with(
        _Classifier(), _context(np.random.default_rng(0)), {"classifier": "c"}
    )
    assert measured.counts == {"train": 4000, "test": 40}
    scores = {name: entry["value"] for name, entry in measured.scores.items()}
    # A shift of 0.3 sqrt(8) along one axis, up to the edge at 1, in units of the codes' std.
    moved = np.minimum(0.3 * 8**0.5, 1) / (0.6 / 12**0.5)
    assert scores["target_following"] == pytest.approx(moved, rel=0.15)
    assert scores["target_fixed"] == pytest.approx(scores["target_following"] / 2, rel=0.15)
    assert scores["ratio_following"] > 10 and scores["ratio_fixed"] > 10
    assert scores["flipped_following"] == 1 and scores["flipped_fixed"] > 0.95
    assert scores["monotonic_following"] > 0.95
    details = measured.scores["target_fixed"]["details"]
    assert set(details["per_attribute"]) == set(_Classifier.labels) and details["classifier"] == "c"
    assert json.dumps(measured.scores, allow_nan=False)


def test_the_scales_are_those_of_the_config():
    context = _context(np.random.default_rng(0), **{"eval.edit_scales": (-0.02, 0.1)})
    target = suite.measure_with(_Classifier(), context, {}).scores["target_following"]
    assert target["details"]["at_scale"] == 0.1
    assert target["value"] == pytest.approx(0.1 * 8**0.5 / (0.6 / 12**0.5), rel=0.15)
    assert suite.settings(context)["scales"] == [-0.02, 0.1]
    with pytest.raises(ConfigError, match=r"edit_scales.* one or more numbers that are not 0"):
        tiny.config(**{"eval.edit_scales": (0.0, 0.1)})


def test_log_odds_of_a_class_are_against_all_other_classes():
    class Classes:
        kind, labels = "classes", ("0", "1", "2")

        def logits(self, images):
            return np.log(np.tile([[0.2, 0.3, 0.5]], (len(images), 1)))

    odds = np.exp(suite.log_odds(Classes(), np.zeros((2, 1))))
    np.testing.assert_allclose(odds, np.tile([[0.25, 3 / 7, 1.0]], (2, 1)))
