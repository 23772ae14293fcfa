"""The app in a browser, as a visitor uses it: upload, sliders, mixing, sampling."""

import base64
import contextlib
import importlib.util
import io
import json
import os
import pathlib
import re
import signal
import urllib.error
import urllib.request

import numpy as np
import pytest
from PIL import Image

from dbae_jax import DBAE
from dbae_jax.app import launching, pictures
from dbae_jax.commands import app
from dbae_jax.data.sources import digits
from dbae_jax.errors import ConfigError
from tests.helpers import browser, commands, tiny
from tests.helpers.running_app import started, upload, wait

MISSING = importlib.util.find_spec("gradio") is None
needs_gradio = pytest.mark.skipif(MISSING, reason="the extra `app` is not installed")


# Visible elements that reach beyond the right edge of the screen.
CUT_OFF = """
  return [...document.querySelectorAll('.gradio-container *')].filter(
    e => e.checkVisibility({visibilityProperty: true, opacityProperty: true})
      && e.clientWidth > 1 && e.getBoundingClientRect().right > innerWidth + 1
  ).map(e => e.tagName + ' ' + e.className)"""


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    log = tmp_path_factory.mktemp("app") / "log"
    with started(log, "--weights=digits") as (process, address):
        yield process, address, log


@pytest.fixture(scope="module")
def page(running):
    with browser.browser() as driver:
        browser.resize(driver, 1200, 900)
        browser.open_page(driver, running[1])
        yield driver


def _all(page, selector):
    return page.find_elements("css selector", selector)


def _pixels(page, selector):
    """Returns the pixels of the pictures that a selector finds, once there are some."""
    script = "return [...document.querySelectorAll(arguments[0])].map(i => i.src)"
    urls = wait(lambda: page.execute_script(script, selector), selector)
    content = [base64.b64decode(url.partition(",")[2]) for url in urls]
    return [np.asarray(Image.open(io.BytesIO(png)).convert("L"), int) for png in content]


def _click(page, words, kind="button:not([role=tab])"):
    """Clicks the visible button with these words."""
    (button,) = [b for b in _all(page, kind) if b.text == words and b.is_displayed()]
    page.execute_script("arguments[0].click()", button)


def _open_tab(page, name):
    _click(page, name, ".tab-container:not(.visually-hidden) button[role=tab]")


@pytest.fixture
def two(tmp_path):
    """Files of two digits in colour, four times as large as the model's, and wider."""
    paths = []
    for place in (0, 1):
        square = digits("test", 16).images[place][..., 0].repeat(4, axis=0).repeat(4, axis=1)
        wide = np.pad(square, ((0, 0), (20, 20)))
        paths.append(tmp_path / f"{place}.png")
        Image.fromarray(wide).convert("RGB").save(paths[-1])
    return paths


@needs_gradio
def test_an_upload_is_reconstructed_and_a_slider_changes_the_picture(page, two):
    assert len(_pixels(page, "#edited img")) == 4  # a picture of the test set
    upload(page, two[0])
    original = digits("test", 16).images[0][..., 0].astype(int)

    def shown():
        found = _pixels(page, "#edited img")
        return found if np.abs(found[0] - original).mean() < 10 else None

    image, x_T, reconstruction, edited = wait(shown, "picture of the upload")
    assert np.abs(reconstruction - image).mean() < 15
    assert x_T.min() == 0 and x_T.max() == 255 and np.abs(x_T - image).max() > 30
    np.testing.assert_array_equal(edited, reconstruction)
    text = _all(page, "#edited")[0].text
    assert re.search(r"MSE 0\.\d{5}\nPSNR \d\d\.\d dB", text) and "z is unchanged" in text
    assert re.search(r"own scale, from -\d\.\d\d to \d\.\d\d", text)

    (slider,) = _all(page, "input[type=range][aria-label*='Towards 7']")
    slider.send_keys("\ue010")  # the end key: scale 1
    moved = wait(
        lambda: (p := _pixels(page, "#edited img")) and (p[3] != edited).any() and p, "edit"
    )
    np.testing.assert_array_equal(moved[2], reconstruction)
    assert np.abs(moved[3] - edited).max() > 50 and (moved[1] != x_T).any()
    assert "z moved by" in _all(page, "#edited")[0].text

    _click(page, "Set all sliders to 0")
    wait(lambda: (_pixels(page, "#edited img")[3] == edited).all(), "first picture again")
    (shift,) = _all(page, "input[type=range][aria-label*='Shift']")
    shift.send_keys("\ue011")  # the home key: -3 standard deviations
    wait(lambda: (_pixels(page, "#edited img")[3] != edited).any(), "moved dimension")


@needs_gradio
def test_a_file_that_is_no_picture_is_answered_by_a_sentence(page, tmp_path):
    path = tmp_path / "text.png"
    path.write_text("no picture")
    upload(page, path)
    problem = wait(lambda: _all(page, "#edited .problem"), "sentence")[0]
    assert "not an image that can be read" in problem.text


@needs_gradio
def test_two_pictures_are_mixed(page, two):
    _open_tab(page, "Mix")
    upload(page, two[0])
    upload(page, two[1], place=1)
    mixed = _pixels(page, "#mixed img")
    assert len(mixed) == 11
    for end, place in ((mixed[0], 0), (mixed[-1], 1)):
        assert np.abs(end - digits("test", 16).images[place][..., 0].astype(int)).mean() < 20


@needs_gradio
def test_samples_follow_the_seed_and_the_number_of_evaluations(page):
    _open_tab(page, "Sample")
    _click(page, "Sample")
    first = _pixels(page, "#sampled img")
    assert len(first) == 16 and "5 network evaluations" in _all(page, "#sampled")[0].text
    (choice,) = _all(page, "input[type=radio][value='3']")
    page.execute_script("arguments[0].click()", choice)
    _click(page, "Sample")
    wait(lambda: "3 network evaluations" in _all(page, "#sampled")[0].text, "samples")
    assert any((a != b).any() for a, b in zip(_pixels(page, "#sampled img"), first, strict=True))


@needs_gradio
@pytest.mark.parametrize("width", [1200, 390])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits_its_screen_in_light_and_dark(page, width, dark):
    browser.resize(page, width, 844, dark=dark)
    page.refresh()
    _pixels(page, "#edited img")
    for tab in ("Reconstruct", "Mix", "Sample"):
        _open_tab(page, tab)
        assert page.execute_script("return document.documentElement.scrollWidth") <= width
        assert page.execute_script(CUT_OFF) == []
    style = "return getComputedStyle(document.body).backgroundColor"
    shade = [int(level) for level in re.findall(r"\d+", page.execute_script(style))[:3]]
    assert max(shade) < 60 if dark else min(shade) > 200


@needs_gradio
def test_nothing_is_loaded_from_elsewhere(page, running):
    """Of all that the tests above did, and of what the server did for them."""
    own = running[1].partition("//")[2]
    asked = [url for url in browser.requested(page) if not url.startswith(("data:", "blob:"))]
    assert len(asked) > 20 and {url.split("/")[2] for url in asked} == {own}
    fonts = "return [...document.fonts].filter(f => f.status === 'loaded').map(f => f.family)"
    assert page.execute_script(fonts) == []
    blocked = """
      const done = arguments[0];
      document.addEventListener('securitypolicyviolation', e => done(e.effectiveDirective));
      fetch('https://example.org/').catch(() => {});"""
    assert page.execute_async_script(blocked) == "connect-src"
    assert "WENT OUT" not in running[2].read_text()


@needs_gradio
def test_a_large_upload_is_refused_by_the_server(running):
    border = b"--x\r\n"
    head = b'Content-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    body = border + head + bytes(pictures.MOST_BYTES + 1) + b"\r\n--x--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    request = urllib.request.Request(f"{running[1]}/gradio_api/upload", body, kind)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)
    assert refused.value.code == 413


@needs_gradio
def test_the_server_downloads_nothing_for_a_visitor(running):
    picture = {"path": "http://203.0.113.1/x.png", "meta": {"_type": "gradio.FileData"}}
    call = {"data": [[{"value": picture}]], "fn_index": 0, "session_hash": "s", "event_data": None}
    for name in ("queue/join", "run/predict"):
        request = urllib.request.Request(
            f"{running[1]}/gradio_api/{name}",
            json.dumps(call).encode(),
            {"Content-Type": "application/json"},
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request)
        assert refused.value.code == 400
        assert b"nothing from other servers" in refused.value.read()


@needs_gradio
def test_no_function_is_offered_to_programs(running):
    with urllib.request.urlopen(f"{running[1]}/gradio_api/info") as answer:
        assert answer.read() == b'{"named_endpoints":{},"unnamed_endpoints":{}}'


@needs_gradio
def test_ctrl_c_ends_the_app_of_a_workdir(tmp_path):
    """A model without latent prior, directions and test images."""
    tiny.write_workdir(tiny.config(**{"data.name": "faces"}), tmp_path / "run")
    log = tmp_path / "log"
    with started(log, f"--workdir={tmp_path / 'run'}") as (process, address):
        page = urllib.request.urlopen(address).read().decode()
        assert "has no latent prior" in page and "There are no directions" in page
        assert "Take a picture" not in page
        uploads = set(pathlib.Path(os.environ.get("TMPDIR", "/tmp")).glob("dbae_jax-app-*"))
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    said = log.read_text().splitlines()
    assert said[-1] == "error: interrupted." and "Traceback" not in log.read_text()
    assert "no pictures of the test set" in said[0] and len(said) == 3
    assert uploads and any(not folder.exists() for folder in uploads)


WRONG = {
    "no model": ([], "Name a model: --workdir=WORKDIR, or --weights=digits."),
    "two models": (["--weights=digits", "--workdir=x"], "leave out --workdir."),
    "dry run": (["--weights=digits", "--dry_run"], "--dry_run is a flag of train, "),
    "flag of another command": (["--weights=digits", "--seed=1"], "--seed is a flag of sample"),
    "port": (["--weights=digits", "--port=70000"], "70000 is not an integer in the range"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_flags_are_answered_by_a_sentence(name):
    words, said = WRONG[name]
    done = commands.run("main", "--mode=app", *words)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


def test_without_gradio_the_command_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install -e '.\[app\]'"):
        app.app(None, None, weights="digits")


def test_a_port_that_is_taken_is_named():
    with contextlib.closing(launching.listen("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert launching.address("127.0.0.1", taken) == f"http://127.0.0.1:{port}"
        assert launching.address("::1", taken) == f"http://[::1]:{port}"
        with pytest.raises(ConfigError, match=f"--port={port}: Address already in use"):
            launching.listen("127.0.0.1", port)
    with pytest.raises(ConfigError, match=r"cannot listen on --host=256.0.0.1"):
        launching.listen("256.0.0.1", 0)


def test_a_model_without_its_data_set_gets_the_example_pictures(tmp_path, caplog, monkeypatch):
    colour = {"data.name": "emoji", "data.channels": 3, "data.data_dir": str(tmp_path)}
    model = DBAE(tiny.config(**colour), {})
    with caplog.at_level("INFO", logger="dbae_jax"):
        found = app.pictures_for(model)
    assert len(found) == 12 and found[3]["image"].shape == (16, 16, 3)
    assert "because it has no test set" in caplog.text
    monkeypatch.setattr(app, "EXAMPLES", tmp_path)
    assert app.pictures_for(model) is None
    assert len(app.pictures_for(DBAE(tiny.config(), {}))) == 360  # digits are always there
