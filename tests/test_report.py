"""The report: its pieces, and the page of a tiny model in a real browser, which loads nothing."""

import base64
import io
import itertools
import json
import re
import shutil
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from dbae_jax import build, checkpoint, evaluate, prior, sharding, workdir
from dbae_jax.data.sources import ArraySource
from dbae_jax.errors import CheckpointError, ConfigError, DataError
from dbae_jax.report import about, charts, edits, frames, glossary, report, tables
from tests import tiny

STEP = 7
AMOUNTS = report.Amounts(
    among=5,
    worst=2,
    pairs=2,
    points=5,
    edited=2,
    scales=3,
    directions=2,
    walks=1,
    every=10,
    samples=3,
)
# As evaluation writes them; the numbers are chosen to be found on the page.
RESULTS = {
    "reconstruction/digits": {
        "suite": "reconstruction",
        "data": "digits",
        "settings": {"step": STEP, "nfe": 3, "sampler": {"sampler": "dbim", "steps": 3}},
        "counts": {"train": 1437, "test": 360},
        "scores": {
            "mse": {"value": 0.006123, "better": "lower", "details": {}},
            "pca_mse": {"value": 0.0201, "better": "lower", "details": {"components": 8}},
            "psnr": {"value": None, "better": "higher", "details": {"reason": "an image is met"}},
        },
        "seconds": 12.3,
    },
    "probe/digits": {
        "suite": "probe",
        "data": "digits",
        "settings": {"seeds": 3},
        "counts": {"test": 360},
        "scores": {
            "logistic_accuracy": {
                "value": 0.9512,
                "std": 0.0123,
                "values": [0.94, 0.95, 0.96],
                "better": "higher",
                "details": {"per_attribute": {"round <b>": 0.75, "straight": 0.25}},
            },
        },
        "seconds": 2.0,
    },
    "information/digits": {
        "suite": "information",
        "data": "digits",
        "settings": {"points": 4},
        "counts": {"test": 360},
        "scores": {
            "unexplained_bits_per_dim": {
                "value": 2.345,
                "better": "lower",
                "details": {
                    "standard_error": 0.067,
                    "curves": {
                        "t": [1.0, 0.1, 0.01],
                        "training_loss": [0.2, 0.1, 0.05],
                        "error": [0.3, 0.03, 0.003],
                    },
                },
            },
        },
        "seconds": 5.0,
    },
}
METRICS = [
    {"step": 1, "loss": 1.5, "images_per_second": 90.0, "train_seconds": 1.0},
    {"step": 4, "loss": 0.75, "images_per_second": 100.0, "train_seconds": 200.0},
    {"step": STEP, "loss": 0.5, "eval_loss": 0.625, "train_seconds": 313.0},
]


def _pixels(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def _write_model(directory, config):
    """Writes a workdir of drawn weights, which decode to something else than gray."""
    tiny.write_workdir(config, directory, step=STEP)
    rows = "".join(json.dumps(row) + "\n" for row in METRICS)
    (directory / workdir.METRICS).write_text(rows)


def _write_prior(directory, config):
    stats = {"mean": jnp.zeros(8), "std": jnp.ones(8)}
    optimizer = build.make_prior_optimizer(config)
    network = build.make_latent_network(config)
    state = prior.create(network, optimizer, jax.random.key(0), stats)
    meta = workdir.meta(config, **{prior.AUTOENCODER: {"step": STEP, "weights": "ema"}})
    with checkpoint.Writer(directory / prior.FOLDER, keep_last=1, keep_every_steps=0) as writer:
        writer.save(state, 4, meta)


def _write_results(directory, step=STEP, results=RESULTS):
    model = {"step": step, "weights": "ema", "stochastic": False}
    found = {"model": model, "results": results}
    (directory / "results.json").write_text(json.dumps(found))


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A workdir with all that the report can show, and the report."""
    directory = tmp_path_factory.mktemp("runs") / "run"
    config = tiny.config()
    _write_model(directory, config)
    _write_prior(directory, config)
    _write_results(directory)
    report.report(config, directory, config_path="configs/tiny.py", amounts=AMOUNTS)
    return directory


@pytest.fixture(scope="module")
def browser():
    """A browser that has its network log on."""
    selenium = pytest.importorskip("selenium.webdriver", reason="the extra `test` has selenium")
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in programs:
        pytest.skip("needs chromium and chromedriver (Debian: apt-get install chromium-driver)")
    options = selenium.ChromeOptions()
    options.binary_location = programs[0]
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with tempfile.TemporaryDirectory() as profile:
        for flag in (
            *("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "no-first-run"),
            *("disable-background-networking", "disable-component-update", "disable-sync"),
            *(f"user-data-dir={profile}", "window-size=1200,900"),
        ):
            options.add_argument(f"--{flag}")
        service = selenium.ChromeService(executable_path=programs[1])
        driver = selenium.Chrome(options=options, service=service)
        yield driver
        driver.quit()


@pytest.fixture(scope="module")
def page(browser, directory):
    browser.get("about:blank")
    browser.get_log("performance")  # takes out what the browser's own first page asked for
    browser.get((directory / report.FILE).as_uri())
    return browser


def _one(page, selector):
    return page.find_element("css selector", selector)


def test_the_page_loads_from_disk_without_errors_and_without_a_network(page):
    assert page.get_log("browser") == []
    events = [json.loads(row["message"])["message"] for row in page.get_log("performance")]
    asked = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert asked and {url.partition(":")[0] for url in asked} <= {"file", "data"}
    loaded = page.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert all(name.startswith("data:") for name in loaded)
    broken = "return [...document.images].filter(i => !i.complete || !i.naturalWidth).length"
    assert page.execute_script(broken) == 0
    assert page.execute_script("return document.images.length") > 20
    duplicated = """
      const ids = [...document.querySelectorAll('[id]')].map(e => e.id);
      return ids.filter((id, i) => ids.indexOf(id) !== i);"""
    assert page.execute_script(duplicated) == []


def test_a_network_is_forbidden_by_the_page_itself(page):
    blocked = """
      const done = arguments[0];
      document.addEventListener('securitypolicyviolation', e => done(e.effectiveDirective));
      fetch('https://example.org/').catch(() => {});"""
    assert page.execute_async_script(blocked) == "connect-src"
    page.get_log("browser")  # takes the refusals out


@pytest.mark.parametrize("film", ["interpolation", "edit-0", "edit-1", "trajectory"])
def test_a_slider_moves_its_pictures_and_no_others(page, film):
    slider = _one(page, f"#{film}-slider")
    strip = _one(page, f"#{film} img.strip")
    still = _one(page, "#samples img")
    said, seen = [], []
    for frame in range(int(slider.get_attribute("max")) + 1):
        page.execute_script(
            "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))",
            *(slider, frame),
        )
        assert strip.value_of_css_property("object-position") == f"{-96 * frame}px 0px" or (
            film.startswith("edit")
        )
        said.append(_one(page, f"#{film} output").text)
        seen.append((strip.screenshot_as_png, still.screenshot_as_png))
        assert slider.get_attribute("aria-valuetext") == said[-1]
    moving, standing = (
        [np.asarray(Image.open(io.BytesIO(png)).convert("L"), int) for png in column]
        for column in zip(*seen, strict=True)
    )
    assert len(set(said)) == len(said)
    for a, b in itertools.pairwise(moving):
        assert np.abs(a - b).max() > 5
    assert np.abs(standing[0] - standing[-1]).max() == 0
    # What is seen is the frame of the strip, each pixel a square.
    frames_of_strip = _pixels(strip.get_attribute("src"))
    size = moving[-1].shape[0] // 16
    shown = moving[-1][size // 2 :: size, size // 2 :: size]
    np.testing.assert_allclose(shown, frames_of_strip[:, -16:], atol=1)


def test_sliders_answer_to_the_keyboard_and_play_by_themselves(page):
    slider = _one(page, "#interpolation-slider")
    slider.send_keys("\ue010")  # end
    assert slider.get_attribute("value") == slider.get_attribute("max")
    slider.send_keys("\ue011", "\ue014", "\ue014")  # home, arrow right twice
    assert slider.get_attribute("value") == "2"
    slider.send_keys("\ue011")
    assert slider.get_attribute("value") == "0"
    assert _one(page, "#interpolation output").text == "0% of the way"
    label = _one(page, "#interpolation label")
    assert label.get_attribute("for") == slider.get_attribute("id")
    button = _one(page, "#interpolation button")
    button.click()
    script = """
      const [slider, done] = arguments;
      const look = () => slider.value === slider.max ? done(true) : setTimeout(look, 20);
      look();"""
    assert page.execute_async_script(script, slider)
    assert button.text == "Play"


def test_the_page_shows_the_numbers_of_results_json(page):
    text = _one(page, "#measurements").text
    for number in ("0.006123", "0.02010", "0.9512", "± 0.012 (std of 3)", "± 0.067", "2.345"):
        assert number in text
    assert "PSNR is not defined here: an image is met." in text
    assert "1,437 train, 360 test" in text
    for details in page.find_elements("css selector", "#measurements summary"):
        details.click()
    assert "round <b>" in _one(page, "#measurements").text
    headline = _one(page, "header").text
    for number in ("0.00612", "2.35 bits", "0.951", "5 min 13 s", "8 numbers", "360 in the split"):
        assert number in headline


def test_every_picture_says_what_it_is_and_the_page_fits_a_phone(page):
    unnamed = """return [...document.images].filter(
      i => !i.alt && !i.closest('[role=img][aria-label]')).length"""
    assert page.execute_script(unnamed) == 0
    controls = "return [...document.querySelectorAll('input')].every(i => i.labels.length === 1)"
    assert page.execute_script(controls)
    size = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        assert page.execute_script("return document.documentElement.scrollWidth") <= 360
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_what_is_missing_is_said_with_the_command_that_makes_it(tmp_path):
    config = tiny.config()
    _write_model(tmp_path / "run", config)
    (tmp_path / "run" / workdir.METRICS).unlink()
    path = report.report(config, tmp_path / "run", config_path="my.py", amounts=AMOUNTS)
    text = path.read_text()
    command = f"python -m dbae_jax.main --config=my.py --workdir={tmp_path / 'run'} --mode="
    assert "no latent prior to sample from" in text and f"{command}train_prior<" in text
    assert "Nothing has been measured yet." in text and f"{command}evaluate<" in text
    assert "The held-out loss over time is not measured yet." in text
    assert "no record of training" in text
    _write_results(tmp_path / "run", step=STEP - 1)
    text = report.report(config, tmp_path / "run", amounts=AMOUNTS).read_text()
    assert "results.json is of step 6, the model of step 7" in text and "0.006123" not in text


def test_suites_without_results_are_named(directory):
    config = tiny.config()
    mesh = sharding.make_mesh()
    loaded = workdir.load(directory, sharding=sharding.replicated(mesh))
    context = evaluate.make_context(config, directory, loaded, mesh)
    command = about.Command("my.py", directory)
    some = {name: entry for name, entry in RESULTS.items() if entry["suite"] != "probe"}
    measured = {"model": {"step": STEP}, "results": some}
    *_, last = about.unmeasured(context, measured, command)
    assert re.search(r"^Not measured yet: (\w+, )*probe\b", last.sentence)
    assert re.search(r"--mode=evaluate --config.eval.suite=(\w+,)*probe\b", last.command)
    del context.__dict__["known"]
    context.splits = {name: ArraySource(tiny.images(4)) for name in ("train", "test")}
    sentences = [part.sentence for part in about.unmeasured(context, measured, command)]
    assert any(re.match("The suite probe does not apply: .* neither labels", s) for s in sentences)
    made, note = report._edits(context, AMOUNTS)
    assert "neither labels nor attributes" in made.sentence and note == ""


def test_a_workdir_without_a_model_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist; train a model there first"):
        report.report(tiny.config(), tmp_path / "none")


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
    strip = frames.strip(images)
    pixels = _pixels(strip.uri).reshape(size, 3 * size, -1)
    assert (strip.count, strip.size) == (3, size)
    exact = frames.is_lossless(size)
    assert strip.uri.startswith(f"data:image/{'png' if exact else 'jpeg'};base64,")
    want = np.round((shades + 1) * 127.5)
    for i in range(3):  # no frame bleeds into another
        shown = pixels[:, i * size : (i + 1) * size]
        np.testing.assert_allclose(shown, np.broadcast_to(want[i], shown.shape), atol=1 - exact)


def test_images_are_shown_at_whole_multiples_of_their_size():
    assert [frames.shown_size(size, 96) for size in (16, 32, 64, 128, 256)] == [
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
    assert floor.name == "Fréchet distance, of real images" and "digits net" in floor.meaning
    assert "published Inception" in glossary.explain("generation", "precision").meaning
    assert glossary.explain("other", "some_thing") == ("some thing", "")


def test_the_papers_figures_stand_beside_ours():
    ap = {"value": 0.661, "std": 0.0012, "values": [0.66, 0.662], "better": "higher", "details": {}}
    entry = {"suite": "probe", "data": "celeba", "scores": {"ap": ap}}
    found = {"model": {"step": 1, "stochastic": False}, "results": {"probe/celeba": entry}}
    (table,) = tables.beside_paper(found, "celeba")
    assert table.header == ["figure", "ours", "DiffAE", "PDAE", "DiTi", "DBAE-d", "DBAE", "better"]
    precision, *others = table.rows
    assert precision.cells[:2] == ["0.661 ± 0.001", "0.603"] and precision.cells[-3] == "0.650"
    assert [row.cells[0] for row in others] == [tables.NONE] * 2
    assert tables.beside_paper(found, "digits") == []


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
        settings = staticmethod(lambda: dict.fromkeys(("step", "weights", "dtype")))
        limit = staticmethod(lambda split: 400)
        splits = {"train": None}  # noqa: RUF012

    chosen = edits.choose(Context, 2)
    assert chosen.directions.names == ("clear", "visible") and chosen.known == 4
    # At scale 1 a code moves by the square root of its width; the means are 6 and 2 apart.
    assert chosen.apart == pytest.approx(4 / np.sqrt(5), rel=0.1)
    scales = chosen.scales(5)
    assert scales[2] == 0 and scales[-1] == -scales[0] == pytest.approx(3, abs=0.5)
    attributes[:] = 1
    assert edits.choose(Context, 2) is None
