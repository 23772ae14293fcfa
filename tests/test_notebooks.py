"""The notebooks run from top to bottom, and agree with their text versions."""

import pathlib

import pytest

from tests.helpers.paths import ROOT

jupytext = pytest.importorskip("jupytext", reason="needs the extra notebooks")
nbclient = pytest.importorskip("nbclient", reason="needs the extra notebooks")

NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.py"))


def _sources(notebook):
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path: pathlib.Path, tmp_path):
    notebook = jupytext.read(path)
    # Training takes a few steps only.
    for cell in notebook.cells:
        cell.source = cell.source.replace("STEPS = 400", "STEPS = 4")
    client = nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in shown) >= 3


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_agree_with_their_text_versions(path):
    """Edit the .py file, then run `jupytext --to ipynb` on it."""
    assert _sources(jupytext.read(path)) == _sources(jupytext.read(path.with_suffix(".ipynb")))
