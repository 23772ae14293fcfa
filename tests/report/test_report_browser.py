"""The report in a browser: it loads from disk without a network and fits the screen."""

import contextlib
import io
import itertools
import json

import numpy as np
import pytest
from PIL import Image

from dbae_jax.commands import report
from dbae_jax.workdirs import workdir
from tests.helpers import browser, tiny
from tests.helpers.report_workdirs import AMOUNTS, pixels, write_model, write_prior, write_results


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A workdir with every part of the report, and the report."""
    directory = tmp_path_factory.mktemp("runs") / "run"
    config = tiny.config()
    write_model(directory, config)
    write_prior(directory, config)
    write_results(directory)
    report.report(config, directory, config_path="configs/tiny.py", amounts=AMOUNTS)
    return directory


@pytest.fixture(scope="module")
def driver():
    with browser.browser() as driver:
        yield driver


@pytest.fixture(scope="module")
def page(driver, directory):
    browser.open_page(driver, (directory / workdir.REPORT).as_uri())
    return driver


def _one(page, selector):
    return page.find_element("css selector", selector)


def _shown(page, element):
    """Returns the screenshot of an element, as gray levels."""
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    return np.asarray(Image.open(io.BytesIO(element.screenshot_as_png)).convert("L"), int)


def test_the_page_loads_from_disk_without_errors_and_without_a_network(page):
    assert page.get_log("browser") == []
    asked = browser.requested(page)
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
    page.get_log("browser")  # discards the refusals


@pytest.mark.parametrize("name", ["interpolation", "trajectory"])
def test_a_slider_moves_its_own_images_only(page, name):
    slider = _one(page, f"#{name}-slider")
    strip = _one(page, f"#{name} img.strip")
    fixed = _one(page, "#samples img")
    texts, seen = [], []
    for position in range(int(slider.get_attribute("max")) + 1):
        page.execute_script(
            "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))",
            *(slider, position),
        )
        place = f"{-int(strip.get_attribute('width')) * position}px 0px"
        assert strip.value_of_css_property("object-position") == place
        texts.append(_one(page, f"#{name} output").text)
        seen.append((_shown(page, strip), _shown(page, fixed)))
        assert slider.get_attribute("aria-valuetext") == texts[-1]
    moving, standing = zip(*seen, strict=True)
    assert len(set(texts)) == len(texts)
    for a, b in itertools.pairwise(moving):
        assert np.abs(a - b).max() > 5
    assert np.abs(standing[0] - standing[-1]).max() == 0
    # The screenshot is the last image of the strip, each pixel a square.
    images_of_strip = pixels(strip.get_attribute("src"))
    size = moving[-1].shape[0] // 16
    shown = moving[-1][size // 2 :: size, size // 2 :: size]
    np.testing.assert_allclose(shown, images_of_strip[:, -16:], atol=1)


def test_sliders_react_to_the_keyboard_and_to_their_play_button(page):
    slider = _one(page, "#interpolation-slider")
    slider.send_keys("\ue010")  # end
    assert slider.get_attribute("value") == slider.get_attribute("max")
    slider.send_keys("\ue011", "\ue014", "\ue014")  # home, arrow right twice
    assert slider.get_attribute("value") == "2"
    slider.send_keys("\ue011")
    assert slider.get_attribute("value") == "0"
    assert _one(page, "#interpolation output").text == "0%"
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
    for number in ("0.006123", "0.02010", "0.9512", "± 0.012", "± 0.067", "2.345"):
        assert number in text
    assert "PSNR is not defined here: an image is exact." in text
    assert "1,437 train, 360 test" in text
    for details in page.find_elements("css selector", "#measurements summary"):
        details.click()
    assert "round <b> 0.750" in _one(page, "#measurements").text
    headline = _one(page, "header").text
    for number in (
        "0.00612",
        "2.35 bits",
        "0.951",
        "5m 13s",
        "dimension 8",
        "360 in the split",
    ):
        assert number in headline


def test_every_image_and_control_has_a_description(page):
    assert page.execute_script("return [...document.images].filter(i => !i.alt).length") == 0
    controls = """return [...document.querySelectorAll('input, select')].every(
      i => i.labels.length === 1)"""
    assert page.execute_script(controls)


@contextlib.contextmanager
def _screen(driver, width, height, scheme="light"):
    """Emulates a screen, and a preference for light or dark pages."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    prefers = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": prefers})
    driver.execute_script("window.scrollTo(0, 0)")
    try:
        yield
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def _brightness(color):
    """Returns the brightness of a CSS color such as "rgba(18, 21, 24, 1)", from 0 to 255."""
    return np.mean([float(part) for part in color.partition("(")[2].strip(")").split(",")[:3]])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1200, 900), (390, 844), (360, 740)])
def test_the_page_fits_the_screen_and_begins_with_images(page, width, height, scheme):
    with _screen(page, width, height, scheme):
        assert page.execute_script("return document.documentElement.scrollWidth") <= width
        rows = page.find_elements("css selector", "header .reconstructions tr")
        names = [row.find_element("css selector", "th").text for row in rows]
        assert names == ["test image", "endpoint xT", "reconstruction", "|error|", "MSE × 1,000"]  # noqa: RUF001
        for row in rows[:4]:  # all four are above the fold
            image = row.find_element("css selector", "img")
            assert image.rect["y"] + image.rect["height"] <= height
            assert image.rect["width"] >= 80
        ground = _one(page, "body").value_of_css_property("background-color")
        ink = _one(page, "body").value_of_css_property("color")
        assert (_brightness(ground) > _brightness(ink)) == (scheme == "light")
        assert abs(_brightness(ground) - _brightness(ink)) > 150


def test_the_selector_shows_one_grid_of_edits(page):
    def shown():
        grids = page.find_elements("css selector", ".choice")
        return [grid.get_attribute("id") for grid in grids if grid.is_displayed()]

    assert shown() == ["edit-0"]
    select = _one(page, "#edit-choice")
    options = select.find_elements("css selector", "option")
    assert [option.text for option in options] == ["class 0", "class 1"] or len(options) == 2
    options[1].click()
    assert shown() == ["edit-1"]
    grid = _one(page, "#edit-1")
    assert options[1].text in grid.text
    assert len(grid.find_elements("css selector", ".positions span")) == AMOUNTS.scales
    rows = grid.find_elements("css selector", "img.image-row")
    assert len(rows) == AMOUNTS.edited
    # The whole strip is visible: all scales are there before anything is touched.
    assert rows[0].rect["width"] == pytest.approx(AMOUNTS.scales * rows[0].rect["height"])
    options[0].click()
    assert shown() == ["edit-0"]


def test_printing_shows_every_grid_and_no_slider(page):
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert all(grid.is_displayed() for grid in page.find_elements("css selector", ".choice"))
        hidden = page.find_elements("css selector", ".slider, .chooser, button")
        assert hidden and not any(part.is_displayed() for part in hidden)
        assert _one(page, "#interpolation-1-1").is_displayed()
    finally:
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_a_chart_tells_the_values_at_the_pointer(page):
    chart = _one(page, "#training svg[data-hover]")
    points = json.loads(chart.get_attribute("data-hover"))
    readout = chart.find_element("xpath", "following-sibling::output")
    assert readout.text.strip() == ""
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", chart)
    move = """
      const [chart, place] = arguments, box = chart.getBoundingClientRect();
      const x = box.left + place / chart.viewBox.baseVal.width * box.width;
      chart.dispatchEvent(new PointerEvent('pointermove', {clientX: x, clientY: box.top + 9}));"""
    for place, text in points:
        page.execute_script(move, chart, place)
        assert readout.text == text
    assert "training step 4: training 0.75" in {text for _, text in points}
    page.execute_script("arguments[0].dispatchEvent(new PointerEvent('pointerleave'))", chart)
    assert readout.text.strip() == ""


def test_a_command_can_be_copied(page):
    button = _one(page, "#interpolations button.copy")
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
    button.click()
    script = """
      const [button, done] = arguments;
      const look = () => button.textContent === 'Copy' ? setTimeout(look, 20)
        : done([button.textContent, getSelection().toString()]);
      look();"""
    said, selected = page.execute_async_script(script, button)
    assert said in ("Copied", "Selected")
    assert selected.startswith("dbae interpolate ") and "--workdir=" in selected


def test_tables_stack_on_a_phone_and_wide_parts_say_that_they_scroll(page):
    cell = _one(page, "#measurements td.number")
    name = cell.find_element("xpath", "preceding-sibling::th")
    assert cell.rect["x"] > name.rect["x"] and cell.rect["y"] < name.rect["y"] + name.rect["height"]
    with _screen(page, 390, 844):
        assert cell.rect["y"] > name.rect["y"] + name.rect["height"] - 2
    with _screen(page, 180, 844):  # the images of this small page fit a phone
        page.execute_script("dispatchEvent(new Event('resize'))")
        wide = page.execute_script(
            """return [...document.querySelectorAll('.scroll')].map(e => [
              e.scrollWidth > e.clientWidth + 1, e.classList.contains('wide'),
              getComputedStyle(e, '::after').content.includes('scroll')])"""
        )
        assert all(a == b == c for a, b, c in wide)
        assert any(a for a, *_ in wide)


def test_the_comparison_of_two_runs_shows_both(driver, directory, tmp_path_factory):
    other = tmp_path_factory.mktemp("others") / "other"
    config = tiny.config(seed=3)
    write_model(other, config)
    write_results(other)
    path = report.report(tiny.config(), directory, compare=other)
    driver.get(path.as_uri())
    assert driver.get_log("browser") == []
    names = {
        row.text.partition(":")[0]
        for row in driver.find_elements("css selector", "header .reconstructions th")
    }
    assert {directory.name, "other"} <= names
    for width, height in ((1200, 900), (390, 844)):
        with _screen(driver, width, height):
            assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    text = _one(driver, "#measurements").text
    assert text.count("0.9512 ± 0.012") == 2 and "equal" in text
    assert "other, training" in _one(driver, "#training").text
    assert "seed 0 3" in " ".join(_one(driver, "#settings").text.split())
