"""The sections of the report that are computed from the model and its data."""

import re

import jax
import numpy as np
import pytest

from dbae_jax.api.dbae import DBAE
from dbae_jax.data.images import to_uint8
from dbae_jax.evaluation.context import Context
from dbae_jax.report import about, contents, plots, wording
from dbae_jax.report.sections import (
    confusion,
    cost,
    latent_space,
    origin,
    reconstructions,
    samples,
    sharpness,
)
from dbae_jax.report.tables import Missing
from dbae_jax.sampling.plan import Plan
from tests.helpers import stubs, tiny
from tests.helpers.report_workdirs import pixels


def _numbers(path):
    return [
        float(part) for part in path.replace("M", " ").replace("h0", "").replace(",", " ").split()
    ]


def test_the_plane_of_a_projection_holds_the_two_largest_variances():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(2000, 4)) * [0.1, 3.0, 0.2, 1.0] + 7
    found = latent_space.plane(z)
    np.testing.assert_allclose(np.abs(found.axes), [[0, 1, 0, 0], [0, 0, 0, 1]], atol=0.05)
    assert found.axes[0, 1] > 0 and found.axes[1, 3] > 0
    np.testing.assert_allclose(found.shares, np.array([9, 1]) / 10.05, atol=0.02)
    np.testing.assert_allclose(found.project(z).mean(axis=0), 0, atol=1e-9)
    single = latent_space.plane(z[:, 1:2])
    assert single.project(z[:, 1:2]).shape == (2000, 2) and single.shares[1] == 0


def test_unused_dimensions_and_a_narrow_prior_are_said():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(300, 3)) * [1.0, 2.0, 0.001]
    note = latent_space._dimensions_note(z, 3)
    assert "of all 3 dimensions" in note and "1 dimension is unused (below 1% of the" in note
    assert "No dimension is unused" in latent_space._dimensions_note(z[:, :2], 2)
    assert "the 2 with the largest" in latent_space._dimensions_note(z, 2)
    narrow = z * [1.0, 0.5, 1.0]
    note = latent_space._prior_note(latent_space.plane(z), z, narrow)
    assert "deviation is 0.50 to 1.00 times" in note
    assert "no latent prior" in latent_space._prior_note(latent_space.plane(z), z, None)


def test_a_scatter_has_one_unit_for_both_axes():
    points = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 5.0]])
    made = plots.scatter({"a": points[:2], "b": points[2:]}, title="t", x_label="x", y_label="y")
    (x_0, y_0, x_1, y_1), (x_2, y_2) = (_numbers(group.path) for group in made.dots)
    assert [group.name for group in made.dots] == ["a", "b"]
    assert (y_0, x_0) == (y_1, x_2) and x_1 > x_0 and y_2 < y_0  # y grows upwards
    assert (x_1 - x_0) / 10 == pytest.approx((y_0 - y_2) / 5, rel=0.1)
    assert plots.scatter({"a": points[:1]}, title="t", x_label="x", y_label="y") is None


def test_a_histogram_counts_every_value_once():
    values = np.array([0.0, 0.1, 0.9, 1.0, 1.0, np.nan])
    labels = {"title": "t", "x_label": "x", "y_label": "y"}
    made = plots.histogram(values, bins=2, **labels)
    assert [hint.text for hint in made.hover] == ["0 to 0.5: 2", "0.5 to 1: 3"]
    assert all("." not in tick.text for tick in made.y_ticks)
    assert plots.histogram(np.array([1.0, np.nan]), **labels) is None


def _labelled(z, labels):
    return stubs.Data(stubs.images(z), label=np.asarray(labels))


def test_the_confusion_matrix_shows_which_classes_are_mixed_up():
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 3
    z = rng.uniform(-0.05, 0.05, (400, 8))
    z[:, 0] += np.where(labels == 2, 0.8, -0.4)  # the classes 0 and 1 have equal codes
    train = _labelled(z[:300], labels[:300])
    test = _labelled(z[300:], labels[300:])
    found = confusion.confusion(stubs.context({"train": train, "test": test}))
    assert found.classes == ["0", "1", "2"]
    counts = np.array([[cell.images for cell in row] for row in found.rows.values()])
    np.testing.assert_array_equal(counts.sum(axis=1), np.bincount(labels[300:]))
    assert counts[2, 2] == counts[2].sum() and counts[:2, 2].sum() == 0
    assert counts[0, 1] + counts[1, 0] > 10
    assert found.rows["2"][2].share == 1
    assert "300 training images" in found.note and " taken for " in found.note
    plain = {name: stubs.Data(stubs.images(z)) for name in ("train", "test")}
    missing = confusion.confusion(stubs.context(plain))
    assert isinstance(missing, Missing) and "no class labels" in missing.sentence
    many = {name: _labelled(z, np.arange(400) // 10) for name in ("train", "test")}
    assert "the data have 40 classes" in confusion.confusion(stubs.context(many)).sentence


def test_the_nearest_training_image_is_found_across_chunks():
    rng = np.random.default_rng(0)
    training = rng.integers(0, 256, (2100, 8, 8, 1)).astype(np.uint8)
    images = training[[5, 2050]] / 127.5 - 1.0
    images[1, 0, 0, 0] = 1.0 if training[2050, 0, 0, 0] < 128 else -1.0
    found = samples.nearest(images, training)
    assert found.indices.tolist() == [5, 2050]
    off = max(255 - training[2050, 0, 0, 0], training[2050, 0, 0, 0]) / 255
    np.testing.assert_allclose(found.distance, [0, off / 8], atol=1e-3)


def test_copies_of_training_images_are_counted():
    test = np.linspace(0.1, 0.2, 200)
    note = samples.memory_note(np.array([0.0, 0.05, 0.15]), test, 50, 50)
    assert "the 50 training images" in note and "2 of 3 samples are nearer" in note
    note = samples.memory_note(np.array([0.15, 0.15]), test, 50, 80)
    assert "the first 50 of 80 training images" in note and "0 of 2 samples" in note


def test_a_missing_classifier_is_said_and_none_is_trained():
    z = np.random.default_rng(0).uniform(-0.3, 0.3, (300, 8))
    data = {name: _labelled(z, z[:, 0] > 0) for name in ("train", "test")}
    labels, note = samples._classes(stubs.context(data), np.zeros((2, 16, 16, 1)))
    assert labels == ["", ""] and "no classifier has been trained" in note
    plain = {name: stubs.Data(stubs.images(z)) for name in ("train", "test")}
    assert samples._classes(stubs.context(plain), np.zeros((2, 16, 16, 1))) == (["", ""], "")


class _Sampler(stubs.Model):
    """A model whose error falls with the number of steps."""

    def decode(self, z, x_T=None, rng=None, *, plan):
        self.calls += 1
        images = super().decode(z)
        return images + np.float32(1 / plan.steps) * (1 + np.arange(len(z))[:, None, None, None])

    def endpoint(self, z):
        return z.reshape(-1, 16, 16, 1)


def test_the_error_is_measured_once_for_each_number_of_evaluations(tmp_path):
    data = stubs.Data(np.full((12, 16, 16, 1), 128, np.uint8))
    splits = {"train": data, "test": data}
    model = _Sampler(tiny.config())
    context = stubs.context(splits, model=model, cache=tmp_path)
    made = cost.curve(context, 8, (2, 5))
    calls = model.calls
    assert calls > 0 and "over 8 test images" in made.caption
    steps = [int(hint.text.split(":")[0].split()[-1]) for hint in made.chart.hover]
    assert steps == sorted({2, 5, context.config.sample.steps})
    y = [float(pair.split(",")[1]) for pair in made.chart.lines[0].points.split()]
    assert y == sorted(y)  # downwards: the error falls
    assert cost.curve(stubs.context(splits, model=model, cache=tmp_path), 8, (2, 5)) == made
    assert model.calls == calls
    cost.curve(stubs.context(splits, model=model, cache=tmp_path), 6, (2, 5))
    assert model.calls > calls  # for other images it is measured again


@pytest.mark.parametrize(("sampler", "steps"), [("consistency", [1, 2, 3, 4]), ("euler", [2, 5])])
def test_the_error_of_a_distilled_model_is_measured_with_any_sampler(sampler, steps):
    config = {**tiny.DISTILLED, "sample.sampler": sampler, "sample.grid": "lambda"}
    data = stubs.Data(np.full((4, 16, 16, 1), 128, np.uint8))
    model, splits = _Sampler(tiny.config(**config)), {"train": data, "test": data}
    context = stubs.context(splits, model=model, **config | {"sample.steps": 2})
    made = contents._cost(context, contents.Amounts(swept=4, steps=(2, 5)))
    assert [int(hint.text.split(":")[0].split()[-1]) for hint in made.chart.hover] == steps


class _Halved(_Sampler):
    """A model whose reconstructions have half the contrast: a quarter of the power everywhere."""

    def decode(self, z, x_T=None, rng=None, *, plan):
        return self.endpoint(z) / 2


def _noise_images(count):
    return stubs.Data(np.random.default_rng(0).integers(0, 256, (count, 16, 16, 1), np.uint8))


def test_the_power_of_reconstructions_is_compared_with_that_of_images():
    data = _noise_images(6)
    splits = {"train": data, "test": data}
    found = sharpness.sharpness(stubs.context(splits, model=_Halved(tiny.config())), 4, 2)
    assert found.decodings == {} and found.missing is None
    assert [line.name for line in found.chart.chart.lines] == ["test images", "reconstructions"]
    assert "4 test images." in found.chart.caption
    error, bias = re.search(r"reconstructions: (.*) and (.*)\.$", found.chart.caption).groups()
    np.testing.assert_allclose([float(error), float(bias)], [np.log(4), -np.log(4)], atol=2e-3)
    hints = [hint.text for hint in found.chart.chart.hover]
    assert len(hints) == 8 and hints[0].startswith("frequency 1:")


def test_the_power_of_samples_is_in_the_chart_if_it_was_measured():
    data = _noise_images(6)
    context = stubs.context({"train": data, "test": data}, model=_Halved(tiny.config()))
    measured = {"value": 0.5, "details": {"log_ratio": [0.5] * 9}}
    entries = {"generation/digits": {"scores": {"sharpness_error": measured}}}
    found = sharpness.sharpness(context, 4, 2, about.samples_log_ratio(entries, "digits"))
    names = ["test images", "reconstructions", sharpness.SAMPLES]
    assert [line.name for line in found.chart.chart.lines] == names
    assert f"; {sharpness.SAMPLES}: 0.500 and +0.500." in found.chart.caption
    assert about.samples_log_ratio(entries, "shapes") is None


def test_a_distilled_model_is_said_to_predict_the_image():
    said = [wording.words(stubs.Model(tiny.config(**each))) for each in ({}, tiny.DISTILLED)]
    assert ["integrates" in words.decoding + words.sampling for words in said] == [True, False]


def test_what_the_teacher_decodes_is_kept(tmp_path, monkeypatch):
    teacher, data = tmp_path / "teacher", _noise_images(6)
    config = tiny.config(**tiny.DISTILLED | {"train.init_from": str(teacher)})
    tiny.write_workdir(tiny.config(), teacher)
    plans = {"accurate": Plan("dbim", 2, "lambda"), "sharp": Plan("euler", 2, churn=0.33)}
    monkeypatch.setattr(sharpness.Plan, "named", plans.get)
    model = DBAE(config, tiny.variables(tiny.config(), 0), batch_size=4)
    splits = {"train": data, "test": data}
    context = Context(model, config, splits, cache=tmp_path / "cache")
    first = sharpness.sharpness(context, 4, 2)

    def decode_own(of, *args):
        assert of is model, "the teacher decodes again"
        return reconstructions.decode(of, *args)

    monkeypatch.setattr(sharpness, "decode", decode_own)
    assert sharpness.sharpness(context, 4, 2) == first


@pytest.mark.parametrize("there", [True, False])
def test_a_distilled_model_stands_beside_its_teacher(tmp_path, monkeypatch, there):
    teacher, data = tmp_path / "teacher", _noise_images(6)
    config = tiny.config(**tiny.DISTILLED | {"train.init_from": str(teacher)})
    tiny.write_workdir(tiny.config(), teacher, seed=0 if there else 1)
    plans = {"accurate": Plan("dbim", 5, "lambda"), "sharp": Plan("euler", 4, churn=0.33)}
    monkeypatch.setattr(sharpness.Plan, "named", plans.get)
    model = DBAE(config, tiny.variables(tiny.config(), 0), batch_size=4)
    context = Context(model, config, {"train": data, "test": data})
    found = sharpness.sharpness(context, 4, 2)
    names = ["sharp, 2 evaluations"]
    if there:
        names = ["accurate, 5 evaluations", *names, "stochastic, 8 evaluations"]
    else:
        assert "at step 1, is not that of this model" in found.missing.sentence
    assert list(found.decodings) == ["test image", *names]
    assert [line.name for line in found.chart.chart.lines] == ["test images", *names]
    assert all(len(images) == 2 for images in found.decodings.values())
    ours = reconstructions.decode(model, data.images[:4], config.sample).x_0
    shown = pixels(found.decodings["sharp, 2 evaluations"][1].uri)
    np.testing.assert_array_equal(shown, to_uint8(ours[1])[..., 0])


def test_a_teacher_that_is_gone_is_said(tmp_path):
    config = tiny.config(**tiny.DISTILLED | {"train.init_from": str(tmp_path / "gone")})
    missing = sharpness._teacher(DBAE(config, {}))
    assert "reconstructions of the teacher are not here. There is no workdir" in missing.sentence
    # A workdir of this name may hold another model, this one too.
    tiny.write_workdir(config, tmp_path / "gone")
    assert (
        "is a distilled model itself." in sharpness._teacher(DBAE.load(tmp_path / "gone")).sentence
    )


def test_the_endpoint_is_shown_on_its_own_scale():
    rng = np.random.default_rng(0)
    real = rng.uniform(-1, 1, (6, 16, 16, 1)).astype(np.float32)
    decoded = reconstructions.Decoded(real, 4 * real, np.clip(real + 0.1, -1, 1))
    endpoint, difference = reconstructions.scales(decoded)
    assert endpoint == pytest.approx(4, abs=0.1) and difference == pytest.approx(0.05, abs=1e-6)
    (one,) = reconstructions.shown(decoded, np.array([2]), endpoint, difference)
    shown = pixels(one.endpoint.uri)
    np.testing.assert_allclose(shown, (real[2, ..., 0] + 1) * 127.5, atol=3)  # nothing is clipped
    assert pixels(one.difference.uri).max() == 255
    assert one.error == pytest.approx(decoded.errors[2])
    # Noise of a model that is nearly exact is not blown up, nor an x_T within the range of images.
    exact = reconstructions.Decoded(real, real / 4, real)
    assert reconstructions.scales(exact) == (1.0, 1 / 255)


def test_the_spread_of_the_errors_is_said():
    said = reconstructions.spread_of(np.array([0.001, 0.002, 0.003]))
    assert said.startswith(
        "3 test images: mean 2 \N{PLUS-MINUS SIGN} 0.6 (standard error), median 2"
    )
    assert reconstructions.spread_of(np.array([0.001])) == ""


def test_the_origin_names_commit_and_time_of_training(monkeypatch):
    rows = [{"train_seconds": 100.0, "images_per_second": 5.0}, {"images_per_second": 7.0}]
    assert origin._training([*rows, {"images_per_second": 6.0}]).endswith(
        "6 images per second (median)"
    )
    monkeypatch.setenv("PATH", "")
    assert origin.commit() == "git commit unknown, because git does not run here"
    assert origin.devices().endswith(f", as {jax.device_count()} devices of JAX")


def test_traversals_change_one_dimension_only(monkeypatch):
    codes = []

    def decode_rows(model, z, **how):
        codes.append(z)
        return np.zeros((*z.shape[:2], 16, 16, 1))

    monkeypatch.setattr(latent_space.edits, "decode_rows", decode_rows)
    z = np.random.default_rng(0).normal(size=(500, 8))
    model = stubs.Model(tiny.config())
    made = latent_space.traversals(model, z, np.array([5, 2]), 3, Plan("dbim", 5, "lambda"))
    (paths,) = codes
    paths = paths.reshape(2, 3, 8)
    for row, index in enumerate((5, 2)):
        others = np.delete(paths[row], index, axis=1)
        np.testing.assert_array_equal(
            others, np.delete(z[:1], index, axis=1).repeat(3, 0).astype("f4")
        )
        np.testing.assert_allclose(
            paths[row, [0, 2], index], np.quantile(z[:, index], (0.02, 0.98)), atol=1e-6
        )
    assert [group[0].caption for group in made.groups] == ["dimension 5", "dimension 2"]
    assert made.positions == ("2%", "50%", "98%")
