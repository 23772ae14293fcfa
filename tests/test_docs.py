"""The documentation: its links, commands and Python code, and the site that is built from it."""

import ast
import dataclasses
import html
import importlib
import os
import re
import subprocess
import sys
import textwrap

import pytest
from absl import flags
from dbae_jax.configs import base

from dbae_jax import main
from dbae_jax.configuration import arguments
from dbae_jax.configuration.config import Config
from tests.helpers.paths import ROOT

PAGES = {str(p.relative_to(ROOT)): p for p in sorted((ROOT / "docs").rglob("*.md"))}
TEXTS = PAGES | {name: ROOT / name for name in ("README.md", "CONTRIBUTING.md")}
COMMANDS = ("data.prepare", "convert", "comparison", "benchmark", "data.loader_speed")
RUN = ("README.md", "docs/tutorials/trained_model.md")  # pages whose code needs no data set
NEEDED = ("mkdocs", "material", "mkdocstrings", "latex2mathml")
# Values of attributes that a browser loads without a click.
LOADED = re.compile(r'(?:src|srcset|<link[^>]*href)="((?:https?:)?//[^"]*)"')


def _commands(text):
    """Yields the commands of this package in a page, each as one line."""
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        if re.match(r"( {4,}|\| `)(dbae|python -m dbae_jax\S*|launch/\S+\.sh) ", line):
            yield line.strip(" |")


def test_files_that_code_and_pages_name_exist():
    """Code, configs, scripts and pages name pages by their paths; a moved page changes all."""
    named = re.compile(r"\bdocs/[\w/.-]+\.\w+")
    folders = ("dbae_jax", "configs", "launch", "tests")
    files = [p for f in folders for p in (ROOT / f).rglob("*") if p.suffix in (".py", ".sh")]
    missing = {
        (str(path.relative_to(ROOT)), name)
        for path in (*files, *TEXTS.values())
        for name in named.findall(path.read_text())
        if not (ROOT / name).exists()
    }
    assert not missing


@pytest.mark.parametrize("page", TEXTS)
def test_commands_have_the_flags_that_a_page_shows(page):
    for name in COMMANDS:
        importlib.import_module(f"dbae_jax.{name}")
    importlib.import_module("dbae_jax.evaluation.sampler_study")
    for command in _commands(TEXTS[page].read_text()):
        given = re.findall(r"(?<=\s)--[\w.]+(?:=\S*)?", command)
        assert arguments.explain_overrides(given, base.get_config()) is None, command
        for flag in given:
            name = flag.removeprefix("--").partition("=")[0]
            assert name.startswith("config.") or name in flags.FLAGS or name == "help", command


@pytest.mark.parametrize("page", TEXTS)
def test_python_code_is_valid(page):
    for code in re.findall(r"^ *```python\n(.*?)^ *```", TEXTS[page].read_text(), re.M | re.S):
        assert ast.parse(textwrap.dedent(code)).body, page


@pytest.mark.parametrize("page", RUN)
def test_python_code_runs_as_printed(page, tmp_path, monkeypatch):
    blocks = re.findall(r"^```python\n(.*?)^```", TEXTS[page].read_text(), re.M | re.S)
    monkeypatch.chdir(tmp_path)
    exec("\n".join(blocks), {"__name__": page})
    written = {path.name for path in tmp_path.iterdir()}
    assert written == set(re.findall(r'"(\w+\.png)"', "".join(blocks)))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site, built with every warning as an error."""
    for package in NEEDED:
        pytest.importorskip(package, reason="the extra `docs` is not installed")
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "GITHUB_REPOSITORY": "owner/name"}
    done = subprocess.run(
        build, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def _page(site, name):
    return html.unescape((site / name / "index.html").read_text())


def _keys(section, path=""):
    for field in dataclasses.fields(section):
        if dataclasses.is_dataclass(field.type):
            yield from _keys(field.type, f"{path}{field.name}.")
        else:
            yield path + field.name


def test_the_site_has_a_page_for_every_file(site):
    for name in PAGES:
        page = name.removeprefix("docs/").removesuffix(".md").removesuffix("index")
        assert (site / page / "index.html").exists(), name


def test_the_site_loads_nothing_from_other_servers(site):
    loaded = {
        found
        for path in (*site.rglob("*.html"), *site.rglob("*.css"))
        for found in LOADED.findall(path.read_text())
    }
    assert not loaded


def test_equations_are_set(site):
    pages = [path.read_text() for path in site.rglob("*.html")]
    assert not [page for page in pages if 'class="arithmatex"' in page]
    assert sum(page.count("<math") for page in pages) > 50
    assert "(DBAE 13)" in _page(site, "tutorials/paper_to_code")


def test_notebooks_open_in_colab_where_the_address_is_known(site):
    for page, notebook in (("trained_model", "quickstart"), ("own_images", "own_images")):
        address = f"/github/owner/name/blob/main/examples/notebooks/{notebook}.ipynb"
        assert address in _page(site, f"tutorials/{page}")
        assert (ROOT / "examples" / "notebooks" / f"{notebook}.ipynb").exists()


def test_every_config_key_is_explained(site):
    page = _page(site, "reference/config")
    missing = [key for key in _keys(Config) if f"<code>{key}</code>" not in page]
    assert not missing


def test_every_mode_and_flag_is_listed(site):
    page = _page(site, "reference/commands")
    listed = [f"dbae {name}" for name in main.MODES]
    listed += [f"<code>--{flag}</code>" for mode in main.MODES.values() for flag in mode.flags]
    listed += [f"dbae_jax.{name}" for name in COMMANDS]
    assert not [text for text in listed if text not in page]


def test_the_api_is_listed(site):
    page = _page(site, "reference/api/model")
    for name in ("encode", "endpoint", "decode", "sample", "interpolate", "edit"):
        assert f'id="dbae_jax.DBAE.{name}"' in page
