"""The parts of the report, and its sentences where a part is missing."""

import pathlib
import re
import shlex
import shutil
import types

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from dbae_jax.commands import report, trained_model
from dbae_jax.data import sources
from dbae_jax.data.sources import ArraySource
from dbae_jax.editing import Directions
from dbae_jax.errors import CheckpointError, ConfigError, DataError
from dbae_jax.evaluation.context import OF_CODES
from dbae_jax.report import (
    about,
    cards,
    charts,
    contents,
    edited_attributes,
    glossary,
    image_grids,
    page,
    pictures,
    tables,
)
from dbae_jax.report.sections import origin, reconstructions, samples
from dbae_jax.sampling.integrate import Sample
from dbae_jax.workdirs import workdir
from tests.helpers import stubs, tiny
from tests.helpers.report_workdirs import AMOUNTS, RESULTS, STEP, write_model


def test_missing_parts_are_named_with_the_command_that_makes_them(tmp_path):
    config = tiny.config()
    write_model(tmp_path / "run", config)
    (tmp_path / "run" / workdir.METRICS).unlink()
    path = report.report(config, tmp_path / "run", config_path="my.py", amounts=AMOUNTS)
    text = path.read_text()
    flags = f"--config=my.py --workdir={tmp_path / 'run'}<"
    assert "no latent prior to sample from" in text and f"dbae train_prior {flags}" in text
    assert "Nothing has been measured yet." in text and f"dbae evaluate {flags}" in text
    assert "The loss of test images by diffusion time has not been measured yet." in text
    assert "has no record of training" in text


def test_commands_repeat_what_the_command_line_changed():
    """They are quoted for a shell; a flag of the command replaces a changed key."""
    changed = {"data.data_dir": "/my data", "eval.suite": "probe", "model.dtype": "bfloat16"}
    command = about.Command("my.py:sde", pathlib.Path("runs/my run"), changed)
    words = shlex.split(command("evaluate", "--config.eval.suite=information"))
    assert words == [
        *("dbae", "evaluate", "--config=my.py:sde", "--workdir=runs/my run"),
        *("--config.data.data_dir=/my data", "--config.model.dtype=bfloat16"),
        "--config.eval.suite=information",
    ]
    own = about.Command("runs/own/config.json", pathlib.Path("runs/own"))
    assert own("sample") == "dbae sample --workdir=runs/own"  # reads this config by itself


def test_a_loss_at_one_time_is_no_curve():
    entry = {"counts": {"test": 3}, "scores": {"unexplained_bits_per_dim": {"details": {}}}}
    details = entry["scores"]["unexplained_bits_per_dim"]["details"]
    details["curves"] = {"t": [0.5], "training_loss": [1.0], "error": [0.1]}
    command = about.Command("my.py", pathlib.Path("run"))
    missing = contents._loss_by_time(entry, command)
    assert "one time per image" in missing.sentence
    assert missing.command.endswith("information --config.eval.information_points=32")
    details["curves"] = {"t": [0.5, 0.1], "training_loss": [1.0, 2.0], "error": [0.1, 0.2]}
    assert contents._loss_by_time(entry, command).caption.startswith("Means over 3 images")


def test_suites_without_results_are_named(directory):
    config = tiny.config()
    model = trained_model.open_model(config, directory).model
    context = trained_model.make_context(model, directory)
    command = about.Command("my.py", directory)
    some = {name: entry for name, entry in RESULTS.items() if entry["suite"] != "probe"}
    model = {"step": STEP, "fingerprint": context.model.fingerprint}
    measured = {"model": model, "results": some}
    *_, last = about.missing_scores(context, measured, command)
    assert re.search(r"^Not measured yet: (\w+, )*probe\b", last.sentence)
    assert re.search(r"dbae evaluate .* --config.eval.suite=(\w+,)*probe\b", last.command)
    older = {"model": {"step": STEP - 1}, "results": RESULTS}
    (only,) = about.missing_scores(context, older, command)
    assert (
        "The scores in results.json belong to step 6, but the model is at step 7" in only.sentence
    )
    assert about.measurements(context, older) == []
    assert about.current(older, context.model) == {}
    other = {"model": model | {"fingerprint": "0"}, "results": RESULTS}
    (only,) = about.missing_scores(context, other, command)
    assert "The scores in results.json belong to different weights of step 7" in only.sentence
    assert about.current(other, context.model) == {}
    del context.__dict__["known"]
    context.splits = {name: ArraySource(tiny.images(4)) for name in ("train", "test")}
    sentences = [part.sentence for part in about.missing_scores(context, measured, command)]
    assert any(re.match("The suite probe does not apply: .* neither labels", s) for s in sentences)
    made, note = contents._edits(context, AMOUNTS)
    assert re.match("There is nothing to edit: .* labels", made.sentence) and note == ""


def test_images_that_training_saw_are_not_called_held_out():
    """FFHQ is an example: its test split is a part of its training split."""

    def words(train):
        splits = {"train": sources.digits(train, 16), "test": sources.digits("test", 16)}
        made = stubs.context(splits, **{"data.train_split": train})
        seen = made.overlap("train", "test")
        score = {"mse": {"value": 0.1}, "pca_mse": {"value": 0.2}}
        return seen, about.lead(made, seen=seen), cards._reconstruction(score, 8, seen).name

    seen, lead, name = words("train")
    assert (
        not seen and "are held out: they were not used in training (360 in the split 'test'" in lead
    )
    assert name == "Reconstruction error, held out"
    seen, lead, name = words("test")
    assert seen and "are not held out: the model was trained on all or some of them" in lead
    assert (
        "(the split 'test' of digits)" in lead and name == "Reconstruction error, training images"
    )


def test_a_workdir_without_a_model_is_refused(tmp_path):
    with pytest.raises(
        CheckpointError, match="does not exist; name the workdir of a trained model"
    ):
        report.report(tiny.config(), tmp_path / "none")


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A workdir of a model."""
    directory = tmp_path_factory.mktemp("runs") / "run"
    write_model(directory, tiny.config())
    return directory


def test_a_wrong_config_or_results_file_is_refused_before_the_page_is_made(
    directory, tmp_path, monkeypatch
):
    copied = shutil.copytree(directory, tmp_path / "run")
    monkeypatch.setattr(report, "make_page", None)
    with pytest.raises(ConfigError, match="latent_dim"):
        report.report(tiny.config(**{"model.latent_dim": 4}), copied)
    (copied / "results.json").write_text("{")
    with pytest.raises(DataError, match="is no valid file of results"):
        report.report(tiny.config(), copied)


def test_a_chart_puts_points_where_its_ticks_say():
    steps, losses = np.arange(1, 1001), 10.0 ** -np.linspace(0, 3, 1000)
    series = charts.Series("a", steps, losses)
    made = charts.chart([series], title="t", x_label="x", y_label="y", log_y=True)
    assert [tick.text for tick in made.x_ticks] == ["0", "200", "400", "600", "800", "1000"]
    assert [tick.text for tick in made.y_ticks] == ["0.001", "0.01", "0.1", "1"]
    points = np.array([[float(v) for v in p.split(",")] for p in made.lines[0].points.split()])
    assert len(points) == charts.MAX_POINTS
    # A straight line in these axes, through the ticks.
    x_ticks = np.array([(tick.place, float(tick.text)) for tick in made.x_ticks])
    y_ticks = np.array([(-tick.place, np.log10(float(tick.text))) for tick in made.y_ticks])
    x = np.interp(points[:, 0], *x_ticks.T)
    y = np.interp(-points[:, 1], *y_ticks.T)
    np.testing.assert_allclose(y, -3 * (x - 1) / 999, atol=0.01)
    assert points[:, 0].min() >= charts.LEFT and points[:, 1].min() >= charts.TOP


def test_a_chart_leaves_out_values_that_are_not_finite_or_positive():
    bad = charts.Series("bad", [1, 2, 3, 4], [np.nan, 1.0, 0.0, 2.0])
    labels = {"title": "t", "x_label": "x", "y_label": "y"}
    made = charts.chart([bad, charts.Series("one", [1], [1])], log_y=True, **labels)
    assert [len(line.points.split()) for line in made.lines] == [2]
    assert charts.chart([charts.Series("one", [1], [1])], **labels) is None
    flat = charts.chart([charts.Series("flat", [1, 2], [3, 3])], **labels)
    assert flat.lines[0].end[1] == pytest.approx((charts.TOP + charts.HEIGHT - charts.BOTTOM) / 2)


def test_formats_of_numbers():
    assert [
        tables.format_number(v) for v in (0.95560, 0.0000123456, 15.5, 12345.6, 0.0, 360, -0.5)
    ] == [*("0.9556", "1.235e-05", "15.50", "12,346", "0.000", "360.0", "-0.5000")]
    assert [charts.number(v) for v in (0.02, 800, 20_000, 1_500_000, 1e-5)] == [
        *("0.02", "800", "20k", "1.5M", "1e-5")
    ]


def test_explanations_of_scores():
    assert glossary.explain("probe", "mse") != glossary.explain("reconstruction", "mse")
    term = glossary.explain("probe", "ridge_r")
    assert term.name == "Pearson r, ridge" and term.meaning.endswith("fitted in closed form")
    assert glossary.explain("probe", "r_best_on_test").name == "Pearson r, best on test"
    floor = glossary.explain("generation", "fd_digits_net_floor")
    assert floor.name == "Fréchet distance, floor" and "digits net" in floor.meaning
    assert "published Inception" in glossary.explain("generation", "precision").meaning
    others = glossary.explain("editing", "others_fixed").meaning
    assert others.startswith("mean absolute change of the uncorrelated attributes")
    assert (
        "to the intended class only after"
        in glossary.explain("editing", "flipped_following").meaning
    )
    assert glossary.explain("other", "some_thing") == ("some thing", "")


def test_a_table_of_the_paper_has_a_column_for_this_model():
    ap = {"value": 0.661, "std": 0.0012, "values": [0.66, 0.662], "better": "higher", "details": {}}
    entry = {"suite": "probe", "data": "celeba", "scores": {"ap": ap}, "settings": {}}
    entry["counts"] = {"test": 19_962}
    model = {"step": 1, "stochastic": False, "latent_dim": 512, "image_size": 64}
    found = {"model": model, "results": {"probe/celeba": entry}}
    (table,) = tables.compare_with_paper(found, "celeba")
    methods = ["DiffAE", "PDAE", "DiTi", "DBAE-d", "DBAE"]
    assert table.header == ["score", "this model", *methods]
    precision, *others = table.rows
    assert precision.cells[:2] == ["0.661 ± 0.001", "0.603"] and precision.cells[-2] == "0.650"
    assert precision.meaning == "probe on celeba; this model: ap, 19,962 images"
    assert [row.cells[0] for row in others] == [tables.NONE] * 2
    assert tables.compare_with_paper(found, "digits") == []
    found["model"] = model | {"latent_dim": 32}
    assert tables.compare_with_paper(found, "celeba") == []


def test_the_page_edits_the_attributes_with_the_best_separated_codes(tmp_path):
    rng = np.random.default_rng(0)
    attributes = rng.integers(0, 2, (400, 4)).astype(np.int8)
    attributes[:, 3] = 1  # constant: no direction
    z = rng.normal(size=(400, 5)).astype(np.float32)
    z[:, :3] += np.array([0.5, 6.0, 2.0]) * attributes[:, :3]

    class Codes:
        mean, known = z, {"attributes": attributes}

    class Context:
        cache, attribute_names, config = (
            None,
            ("faint", "clear", "visible", "always"),
            tiny.config(),
        )
        codes = staticmethod(lambda split: Codes)
        settings = staticmethod(lambda: dict.fromkeys(OF_CODES))
        limit = staticmethod(lambda split: 400)
        splits = {"train": None}  # noqa: RUF012
        identity_of = staticmethod(lambda split: {"split": split})

    chosen = edited_attributes.choose(Context, 2)
    assert chosen.directions.names == ("clear", "visible") and chosen.known == 4
    # At scale 1 a code moves by the square root of D; the mean codes are 6 and 2 apart.
    assert chosen.apart == pytest.approx(4 / np.sqrt(5), rel=0.1)
    scales = chosen.scales(5)
    assert scales[2] == 0 and scales[-1] == -scales[0] == pytest.approx(3, abs=0.5)
    attributes[:] = 1
    assert edited_attributes.choose(Context, 2) is None


class _Photos:
    """A model of any image size: its images are a photograph, its states a noisy one."""

    batch_size, gaussian_endpoint = 8, False

    def __init__(self, size):
        china = Image.fromarray(load_sample_image("china.jpg")).crop((100, 0, 527, 427))
        photo = np.asarray(china.resize((size, size), Image.Resampling.BILINEAR))
        noise = np.random.default_rng(0).normal(0, 60, photo.shape)
        self.photo = np.float32(photo / 127.5 - 1)
        self.noisy = np.float32(np.clip(photo + noise, 0, 255) / 127.5 - 1)

    def images(self, *counts):
        return np.broadcast_to(self.photo, (*counts, *self.photo.shape))

    def encode(self, images, rng=None):
        return np.zeros((len(images), 4), np.float32)

    def endpoint(self, z):
        return np.broadcast_to(self.noisy, (len(z), *self.noisy.shape))

    def decode(self, z, *args, **plan):
        return self.images(len(z))

    def interpolate(self, first, second, points, **plan):
        return self.images(len(first), points)

    def edit(self, images, step, scales, **plan):
        return self.images(len(images), len(scales))

    def trajectory(self, z, *, rng, plan, clip_path):
        steps = plan.steps
        path = np.broadcast_to(self.noisy, (steps + 1, len(z), *self.noisy.shape))
        return Sample(path[-1], path, np.linspace(1, 0, steps + 1), steps)

    def sample(self, num, rng, **how):
        return self.images(num)


@pytest.mark.parametrize("size", [64, 128, 256])
def test_pages_of_large_photographs_stay_below_15_mb(size):
    model, sample, amounts = _Photos(size), tiny.config().sample, contents.Amounts.of_size(size)
    names = tuple(map(str, range(amounts.directions)))
    steps, scales = np.zeros((len(names), 4)), range(amounts.scales)
    images, pairs = model.images(amounts.among), [(0, 1)] * amounts.pairs
    every = {"steps": contents.TRAJECTORY_STEPS, "every": amounts.every}
    shown = [
        image_grids.interpolation(model, images, pairs, sample, points=amounts.points),
        *image_grids.edits(
            model, images[: amounts.edited], Directions(names, steps), scales, sample
        ),
        image_grids.trajectories(model, images[: amounts.trajectories], **every),
    ]
    strips = [panel.strip for one in shown for group in one.groups for panel in group]
    made = reconstructions.reconstructions(model, images, sample, first=8, worst=amounts.worst)
    strips += [strip for one in made.first + made.worst for strip in one[:4]]
    strips += 2 * pictures.strips(samples.draw(model, amounts.samples))  # and the nearest images
    traversed = np.zeros((amounts.values, size, size, 3)) + model.photo
    strips += amounts.dimensions * [pictures.strip(traversed)]
    assert sum(len(strip.uri) for strip in strips) < 14e6
    assert all(strip.count * size < 16_384 for strip in strips)  # limit of browsers


class _PhotosAndCodes(_Photos, stubs.Model):
    """The same model with codes; x_T is Gaussian or decoded from z."""

    variables, prior = {"params": {}}, types.SimpleNamespace(step=9)

    def __init__(self, config, gaussian):
        _Photos.__init__(self, config.data.image_size)
        stubs.Model.__init__(self, config)
        self.photo = self.photo.mean(axis=-1, keepdims=True)
        self.noisy = self.noisy.mean(axis=-1, keepdims=True)
        self.gaussian_endpoint = gaussian

    def encode(self, images, rng=None):
        return np.zeros((len(images), self.latent_dim), np.float32)

    def sample_codes(self, num, rng, *, sampler, steps):
        return np.random.default_rng(rng).normal(size=(num, self.latent_dim))

    def draw_x_T(self, num, rng):
        return self.images(num)


# Texts on the page for one kind of x_T that are absent for the other.
OF_DECODED = (
    "<h1>A diffusion bridge autoencoder trained on digits</h1>",
    "A decoder maps z to the endpoint x_T of a diffusion bridge",
    "in encoder, decoder and U-Net",
    "the endpoint x_T, decoded from z alone;",
    "The endpoint x_T is recomputed from each code.",
    "with x_T recomputed or held fixed",
    "The ODE of the bridge",
    "The endpoint x_T is decoded from z, and the sampler integrates the bridge",
)
OF_GAUSSIAN = (
    "<h1>A diffusion autoencoder trained on digits</h1>",
    "x_T is Gaussian noise that is independent of z",
    "in encoder and U-Net",
    "the endpoint x_T, sampled as Gaussian noise;",
    "The endpoint x_T is sampled once per image and held fixed while the slider moves.",
    "or inferred from the image with --fix_endpoint",
    "The ODE of the diffusion",
    "The endpoint x_T is sampled as Gaussian noise, and the sampler integrates the diffusion",
)


@pytest.mark.parametrize("gaussian", [False, True], ids=["decoded", "gaussian"])
def test_the_page_explains_the_models_kind_of_x_T(tmp_path, monkeypatch, gaussian):
    monkeypatch.setattr(origin, "provenance", lambda *args: [])
    z = np.random.default_rng(0).uniform(-0.3, 0.3, (40, 8))
    data = stubs.Data(stubs.images(z), label=np.int64(z[:, 0] > 0))
    model = _PhotosAndCodes(tiny.config(), gaussian)
    context = stubs.context({"train": data, "test": data}, model=model)
    command = about.Command("my.py", tmp_path)
    text = page.render(contents.make_page(context, tmp_path, None, command, AMOUNTS))
    text = " ".join(text.replace("x<sub>T</sub>", "x_T").split())
    present, absent = (OF_GAUSSIAN, OF_DECODED) if gaussian else (OF_DECODED, OF_GAUSSIAN)
    assert [words for words in present if words not in text] == []
    assert [words for words in absent if words in text] == []
    assert text.count(present[4]) == 3  # with the interpolation, the edits and the traversals
