"""The report's pieces, and what it says where something is missing."""

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
    charts,
    contents,
    edited_attributes,
    glossary,
    pictures,
    sliders,
    tables,
)
from dbae_jax.runtime import sharding
from dbae_jax.sampling.integrate import Sample
from dbae_jax.workdirs import workdir
from tests.helpers import stubs, tiny
from tests.helpers.report_workdirs import AMOUNTS, RESULTS, STEP, pixels, write_model


def test_what_is_missing_is_said_with_the_command_that_makes_it(tmp_path):
    config = tiny.config()
    write_model(tmp_path / "run", config)
    (tmp_path / "run" / workdir.METRICS).unlink()
    path = report.report(config, tmp_path / "run", config_path="my.py", amounts=AMOUNTS)
    text = path.read_text()
    command = f"python -m dbae_jax.main --config=my.py --workdir={tmp_path / 'run'} --mode="
    assert "no latent prior to sample from" in text and f"{command}train_prior<" in text
    assert "Nothing has been measured yet." in text and f"{command}evaluate<" in text
    assert "The loss of test images over time is not measured yet." in text
    assert "no record of training" in text


def test_commands_repeat_what_the_command_line_changed():
    """Quoted for a shell; a flag of the command goes before the same key of the command line."""
    changed = {"data.data_dir": "/my data", "eval.suite": "probe", "model.dtype": "bfloat16"}
    command = about.Command("my.py:sde", pathlib.Path("runs/my run"), changed)
    words = shlex.split(command("evaluate", "--config.eval.suite=information"))
    assert words[:3] == ["python", "-m", "dbae_jax.main"]
    assert words[3:] == [
        *("--config=my.py:sde", "--workdir=runs/my run", "--mode=evaluate"),
        *("--config.data.data_dir=/my data", "--config.model.dtype=bfloat16"),
        "--config.eval.suite=information",
    ]


def test_a_loss_at_one_time_is_no_curve():
    entry = {"counts": {"test": 3}, "scores": {"unexplained_bits_per_dim": {"details": {}}}}
    details = entry["scores"]["unexplained_bits_per_dim"]["details"]
    details["curves"] = {"t": [0.5], "training_loss": [1.0], "error": [0.1]}
    command = about.Command("my.py", pathlib.Path("run"))
    missing = contents._loss_by_time(entry, command)
    assert "one time an image" in missing.sentence
    assert missing.command.endswith("information --config.eval.information_points=32")
    details["curves"] = {"t": [0.5, 0.1], "training_loss": [1.0, 2.0], "error": [0.1, 0.2]}
    assert contents._loss_by_time(entry, command).caption.startswith("Of 3 images")


def test_suites_without_results_are_named(directory):
    config = tiny.config()
    mesh = sharding.make_mesh()
    loaded = workdir.load(directory, sharding=sharding.replicated(mesh))
    context = trained_model.make_context(config, directory, loaded, mesh)
    command = about.Command("my.py", directory)
    some = {name: entry for name, entry in RESULTS.items() if entry["suite"] != "probe"}
    model = {"step": STEP, "fingerprint": context.model.fingerprint}
    measured = {"model": model, "results": some}
    *_, last = about.unmeasured(context, measured, command)
    assert re.search(r"^Not measured yet: (\w+, )*probe\b", last.sentence)
    assert re.search(r"--mode=evaluate --config.eval.suite=(\w+,)*probe\b", last.command)
    older = {"model": {"step": STEP - 1}, "results": RESULTS}
    (only,) = about.unmeasured(context, older, command)
    assert "results.json is of step 6, the model of step 7" in only.sentence
    assert about.measurements(context, older) == []
    assert about.current(older, context.model) == {}
    other = {"model": model | {"fingerprint": "0"}, "results": RESULTS}
    (only,) = about.unmeasured(context, other, command)
    assert "results.json is of other weights of step 7 than the model's" in only.sentence
    assert about.current(other, context.model) == {}
    del context.__dict__["known"]
    context.splits = {name: ArraySource(tiny.images(4)) for name in ("train", "test")}
    sentences = [part.sentence for part in about.unmeasured(context, measured, command)]
    assert any(re.match("The suite probe does not apply: .* neither labels", s) for s in sentences)
    made, note = contents._edits(context, AMOUNTS)
    assert re.match("There is nothing to edit: .* labels", made.sentence) and note == ""


def test_images_that_training_saw_are_not_called_held_out():
    """As FFHQ's, whose test split is a part of what it is trained on."""

    def words(train):
        splits = {"train": sources.digits(train, 16), "test": sources.digits("test", 16)}
        made = stubs.context(splits, **{"data.train_split": train})
        seen = made.overlap("train", "test")
        score = {"mse": {"value": 0.1}, "pca_mse": {"value": 0.2}}
        return seen, about.lead(made, seen=seen), about._reconstruction(score, 8, seen).name

    seen, lead, name = words("train")
    assert not seen and "held out, not seen in training (360 in the split 'test'" in lead
    assert name == "Held-out error"
    seen, lead, name = words("test")
    assert seen and "are not held out: the model was trained on them, or on some of them" in lead
    assert "(the split 'test' of digits)" in lead and name == "Error on seen images"


def test_a_workdir_without_a_model_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist; train a model there first"):
        report.report(tiny.config(), tmp_path / "none")


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A workdir of a model."""
    directory = tmp_path_factory.mktemp("runs") / "run"
    write_model(directory, tiny.config())
    return directory


def test_what_does_not_fit_is_refused_before_pictures_are_made(directory, tmp_path, monkeypatch):
    copied = shutil.copytree(directory, tmp_path / "run")
    monkeypatch.setattr(report, "make_page", None)
    with pytest.raises(ConfigError, match="latent_dim"):
        report.report(tiny.config(**{"model.latent_dim": 4}), copied)
    (copied / "results.json").write_text("{")
    with pytest.raises(DataError, match="holds no results of an evaluation"):
        report.report(tiny.config(), copied)


@pytest.mark.parametrize(("size", "channels"), [(16, 1), (16, 3), (128, 3), (64, 1)])
def test_a_strip_holds_its_frames_side_by_side(size, channels):
    rng = np.random.default_rng(0)
    shades = rng.uniform(-1, 1, (3, 1, 1, channels)).astype(np.float32)
    images = np.broadcast_to(shades, (3, size, size, channels))
    strip = pictures.strip(images)
    shown = pixels(strip.uri).reshape(size, 3 * size, -1)
    assert (strip.count, strip.size) == (3, size)
    exact = pictures.is_lossless(size)
    assert strip.uri.startswith(f"data:image/{'png' if exact else 'jpeg'};base64,")
    want = np.round((shades + 1) * 127.5)
    for i in range(3):  # no frame bleeds into another
        frame = shown[:, i * size : (i + 1) * size]
        np.testing.assert_allclose(frame, np.broadcast_to(want[i], frame.shape), atol=1 - exact)


def test_images_are_shown_at_whole_multiples_of_their_size():
    assert [pictures.shown_size(size, 96) for size in (16, 32, 64, 128, 256)] == [
        *(96, 96, 128, 128, 256)
    ]


def test_a_chart_puts_points_where_its_ticks_say():
    steps, losses = np.arange(1, 1001), 10.0 ** -np.linspace(0, 3, 1000)
    series = charts.Series("a", steps, losses)
    drawn = charts.chart([series], title="t", x_label="x", y_label="y", log_y=True)
    assert [tick.text for tick in drawn.x_ticks] == ["0", "200", "400", "600", "800", "1000"]
    assert [tick.text for tick in drawn.y_ticks] == ["0.001", "0.01", "0.1", "1"]
    points = np.array([[float(v) for v in p.split(",")] for p in drawn.lines[0].points.split()])
    assert len(points) == charts.MAX_POINTS
    # A straight line in these axes, through the ticks.
    x_ticks = np.array([(tick.place, float(tick.text)) for tick in drawn.x_ticks])
    y_ticks = np.array([(-tick.place, np.log10(float(tick.text))) for tick in drawn.y_ticks])
    x = np.interp(points[:, 0], *x_ticks.T)
    y = np.interp(-points[:, 1], *y_ticks.T)
    np.testing.assert_allclose(y, -3 * (x - 1) / 999, atol=0.01)
    assert points[:, 0].min() >= charts.LEFT and points[:, 1].min() >= charts.TOP


def test_a_chart_leaves_out_what_cannot_be_drawn():
    bad = charts.Series("bad", [1, 2, 3, 4], [np.nan, 1.0, 0.0, 2.0])
    labels = {"title": "t", "x_label": "x", "y_label": "y"}
    drawn = charts.chart([bad, charts.Series("one", [1], [1])], log_y=True, **labels)
    assert [len(line.points.split()) for line in drawn.lines] == [2]
    assert charts.chart([charts.Series("one", [1], [1])], **labels) is None
    flat = charts.chart([charts.Series("flat", [1, 2], [3, 3])], **labels)
    assert flat.lines[0].end[1] == pytest.approx((charts.TOP + charts.HEIGHT - charts.BOTTOM) / 2)


def test_numbers_and_times_are_written_shortly():
    assert [tables.figure(v) for v in (0.95560, 0.0000123456, 15.5, 12345.6, 0.0, 360, -0.5)] == [
        *("0.9556", "1.235e-05", "15.50", "12,346", "0.000", "360.0", "-0.5000")
    ]
    assert [charts.number(v) for v in (0.02, 800, 20_000, 1_500_000, 1e-5)] == [
        *("0.02", "800", "20k", "1.5M", "1e-5")
    ]
    assert [about.duration(s) for s in (12, 313, 12_000, 352_800)] == [
        *("12 s", "5 min 13 s", "3 h 20 min", "4 d 2 h")
    ]


def test_scores_are_told_in_words():
    assert glossary.explain("probe", "mse") != glossary.explain("reconstruction", "mse")
    term = glossary.explain("probe", "ridge_r")
    assert term.name == "Pearson r, ridge" and term.meaning.endswith("in closed form")
    assert glossary.explain("probe", "r_best_on_test").name == "Pearson r, best on test"
    floor = glossary.explain("generation", "fd_digits_net_floor")
    assert floor.name == "Fréchet distance, floor" and "digits net" in floor.meaning
    assert "published Inception" in glossary.explain("generation", "precision").meaning
    others = glossary.explain("editing", "others_fixed").meaning
    assert others.startswith("mean absolute change of attributes not correlated with it")
    assert "judged as asked for" in glossary.explain("editing", "flipped_following").meaning
    assert glossary.explain("other", "some_thing") == ("some thing", "")


def test_the_papers_figures_stand_beside_ours():
    ap = {"value": 0.661, "std": 0.0012, "values": [0.66, 0.662], "better": "higher", "details": {}}
    entry = {"suite": "probe", "data": "celeba", "scores": {"ap": ap}, "settings": {}}
    entry["counts"] = {"test": 19_962}
    model = {"step": 1, "stochastic": False, "latent_dim": 512, "image_size": 64}
    found = {"model": model, "results": {"probe/celeba": entry}}
    (table,) = tables.beside_paper(found, "celeba")
    assert table.header == ["figure", "ours", "DiffAE", "PDAE", "DiTi", "DBAE-d", "DBAE", "better"]
    precision, *others = table.rows
    assert precision.cells[:2] == ["0.661 ± 0.001", "0.603"] and precision.cells[-3] == "0.650"
    assert precision.term.meaning == "probe on celeba; ours: ap, 19,962 images"
    assert [row.cells[0] for row in others] == [tables.NONE] * 2
    assert tables.beside_paper(found, "digits") == []
    found["model"] = model | {"latent_dim": 32}
    assert tables.beside_paper(found, "celeba") == []


def test_attributes_to_edit_are_those_that_codes_tell_best(tmp_path):
    rng = np.random.default_rng(0)
    attributes = rng.integers(0, 2, (400, 4)).astype(np.int8)
    attributes[:, 3] = 1  # always there: no direction
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

    chosen = edited_attributes.choose(Context, 2)
    assert chosen.directions.names == ("clear", "visible") and chosen.known == 4
    # At scale 1 a code moves by the square root of its width; the means are 6 and 2 apart.
    assert chosen.apart == pytest.approx(4 / np.sqrt(5), rel=0.1)
    scales = chosen.scales(5)
    assert scales[2] == 0 and scales[-1] == -scales[0] == pytest.approx(3, abs=0.5)
    attributes[:] = 1
    assert edited_attributes.choose(Context, 2) is None


class _Photos:
    """A model of any size whose pictures are a photograph, and noisy ones on the way to it."""

    free = False

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

    def trajectory(self, z, *, steps, **plan):
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
    every = {"steps": contents.WALK_STEPS, "every": amounts.every}
    shown = [
        sliders.interpolation(model, images, pairs, sample, points=amounts.points),
        *sliders.edits(model, images[: amounts.edited], Directions(names, steps), scales, sample),
        sliders.trajectories(model, images[: amounts.walks], **every),
    ]
    strips = [picture.strip for film in shown for group in film.groups for picture in group]
    made = pictures.reconstructions(model, images, sample, first=8, worst=amounts.worst)
    strips += [strip for one in made.first + made.worst for strip in one[:3]]
    strips += pictures.samples(model, amounts.samples)
    assert sum(len(strip.uri) for strip in strips) < 14e6
    assert all(strip.count * size < 16_384 for strip in strips)  # what browsers decode


class _Walker(_Photos, stubs.Model):
    """The same with codes; x_T is free or not."""

    variables, prior = {"params": {}}, types.SimpleNamespace(step=9)

    def __init__(self, config, free):
        _Photos.__init__(self, config.data.image_size)
        stubs.Model.__init__(self, config)
        self.gaussian_endpoint = free

    def draw_x_T(self, num, rng):
        return self.images(num)


# What is true of the one kind of x_T and not of the other.
OF_DECODED = (
    "<h1>A diffusion bridge autoencoder of digits</h1>",
    "A decoder turns them into the end of a diffusion",
    "encoder, decoder and U-Net",
    "made of its code alone",
    "The endpoint follows the code.",
    "the endpoint following or kept",
    "by the bridge's ODE",
    "then x_T made of it, then the bridge walked",
)
OF_FREE = (
    "<h1>A diffusion autoencoder of digits</h1>",
    "walks to the image from x_T, which is noise",
    ">encoder and U-Net",
    "drawn at random, where the walk back",
    "The endpoint x_T is drawn at random, and stays as it is while the slider moves.",
    "with --fix_endpoint inferred from the image",
    "by the diffusion's ODE",
    "x_T at random, and the diffusion is walked from there",
)


@pytest.mark.parametrize("free", [False, True], ids=["decoded", "free"])
def test_the_page_says_of_x_T_what_is_true(tmp_path, monkeypatch, free):
    monkeypatch.setattr(about, "provenance", lambda *args: [])
    z = np.random.default_rng(0).uniform(-0.3, 0.3, (40, 8))
    data = stubs.Data(stubs.images(z), label=np.int64(z[:, 0] > 0))
    model = _Walker(tiny.config(), free)
    context = stubs.context({"train": data, "test": data}, model=model)
    command = about.Command("my.py", tmp_path)
    text = contents.page.render(contents.make_page(context, tmp_path, None, command, AMOUNTS))
    text = " ".join(text.replace("x<sub>T</sub>", "x_T").split())
    said, unsaid = (OF_FREE, OF_DECODED) if free else (OF_DECODED, OF_FREE)
    assert [words for words in said if words not in text] == []
    assert [words for words in unsaid if words in text] == []
    assert text.count(said[4]) == 2  # where codes are walked between, and where they are edited
