"""results.json: scores as JSON can hold them, entries that are valid, files of former models."""

import json
import math

import numpy as np
import pytest

from dbae_jax.errors import DataError
from dbae_jax.evaluation import results
from dbae_jax.evaluation.results import Book, Measured, score

MODEL = {"step": 3, "weights": "ema"}
SETTINGS = {"seeds": 2, "sampler": {"grid": "lambda", "sizes": (1, 2)}}


def _book(directory, **changes):
    return Book(directory, MODEL | changes)


def _add(book, value=1.0, suite="probe", data="digits", **settings):
    measured = Measured({"ap": score(value, "higher")}, {"test": 5})
    book.add(suite, data, SETTINGS | settings, measured, seconds=0.123)


def test_scores_of_seeds_have_mean_and_sample_standard_deviation():
    values = [0.5, 0.75, 1.0]
    found = score(values, "higher", net="x", nothing=None)
    assert found["value"] == pytest.approx(np.mean(values))
    assert found["std"] == pytest.approx(np.std(values, ddof=1))
    assert found["values"] == values and found["details"] == {"net": "x"}
    assert score(np.float32(0.5), "lower") == {"value": 0.5, "better": "lower", "details": {}}
    assert score([0.5], None) == {"value": 0.5, "better": None, "details": {}}


@pytest.mark.parametrize("value", [math.inf, [1.0, math.nan]])
def test_what_is_not_finite_becomes_null_with_a_reason(value, tmp_path):
    book = _book(tmp_path)
    measured = Measured({"psnr": score(value, "higher", reason="met exactly")}, {})
    book.add("reconstruction", "digits", {}, measured, seconds=1)
    there = results.read(tmp_path)["results"]["reconstruction/digits"]["scores"]["psnr"]
    assert there == {"value": None, "better": "higher", "details": {"reason": "met exactly"}}


def test_an_entry_is_valid_while_its_settings_are_those_of_now(tmp_path):
    _add(_book(tmp_path))
    book = _book(tmp_path)
    assert book.has("probe/digits", SETTINGS)  # tuples came back as lists
    assert not book.has("probe/digits", SETTINGS | {"seeds": 3})
    assert not book.has("probe/shapes", SETTINGS)
    _add(book, data="shapes")
    _add(book, value=2.0, seeds=3)
    there = results.read(tmp_path)
    assert set(there["results"]) == {"probe/digits", "probe/shapes"}
    entry = there["results"]["probe/digits"]
    assert entry["scores"]["ap"]["value"] == 2 and entry["settings"]["seeds"] == 3
    assert entry["counts"] == {"test": 5} and entry["seconds"] == 0.12
    assert there["model"] == MODEL


def test_labels_keep_results_of_one_suite_apart(tmp_path):
    book = _book(tmp_path)
    for label in ("", "sde"):
        book.add("probe", "digits", SETTINGS, Measured({}, {}), seconds=1, label=label)
    assert set(results.read(tmp_path)["results"]) == {"probe/digits", "probe/digits:sde"}


def test_results_of_a_previous_step_are_kept_under_another_name(tmp_path):
    _add(_book(tmp_path))
    book = _book(tmp_path, step=5)
    assert not book.entries and results.read(tmp_path)["model"]["step"] == 3
    _add(book, value=7.0, suite="information")
    assert set(results.read(tmp_path)["results"]) == {"information/digits"}
    former = json.loads((tmp_path / "results_00000003.json").read_text())
    assert set(former["results"]) == {"probe/digits"} and former["model"] == MODEL


def test_results_of_other_weights_of_the_same_step_are_kept_too(tmp_path):
    _add(_book(tmp_path, fingerprint="aa"))
    assert _book(tmp_path, fingerprint="aa").entries
    book = _book(tmp_path, fingerprint="bb")
    assert not book.entries
    _add(book, value=7.0, suite="information")
    assert set(results.read(tmp_path)["results"]) == {"information/digits"}
    former = json.loads((tmp_path / "results_00000003_aa.json").read_text())
    assert set(former["results"]) == {"probe/digits"}


@pytest.mark.parametrize("text", ["{", "[]", '{"results": {}}'])
def test_another_file_of_that_name_is_refused(text, tmp_path):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(
        DataError, match=r"results\.json is no valid file of results .* Rename or delete it"
    ):
        _book(tmp_path)
