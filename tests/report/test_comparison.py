"""The page that compares two runs."""

import json
import shutil

import numpy as np
import pytest

from dbae_jax.commands import report
from dbae_jax.errors import CheckpointError, ConfigError
from dbae_jax.evaluation.results import score
from dbae_jax.report import about
from dbae_jax.report.comparison import content, scores
from dbae_jax.report.sections.reconstructions import Decoded
from dbae_jax.report.tables import NONE
from dbae_jax.workdirs import workdir
from tests.helpers import tiny
from tests.helpers.report_workdirs import RESULTS, write_model, write_results


def _seeds(value, std):
    return {"value": value, "std": std, "values": [value] * 3, "better": "higher", "details": {}}


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (_seeds(0.90, 0.01), _seeds(0.92, 0.01), "within the spread"),
        (_seeds(0.90, 0.01), _seeds(0.93, 0.01), "better, beyond the spread"),
        (_seeds(0.93, 0.01), _seeds(0.90, 0.01), "worse, beyond the spread"),
        (score(1.0, "lower"), score(0.9, "lower"), "better; spread unknown"),
        (score(1.0, "lower"), _seeds(0.9, 0.1) | {"better": "lower"}, "better; spread unknown"),
        (score(1.0, None), score(0.9, None), "differs; spread unknown"),
        (score(1.0, "lower"), score(1.0, "lower"), "equal"),
        (score(1.0, "lower"), score(np.nan, "lower", reason="none"), NONE),
        (
            score(1.0, "lower", standard_error=0.1),
            score(1.3, "lower", standard_error=0.1),
            "worse, beyond the spread",
        ),
    ],
)
def test_a_difference_is_held_against_the_spread(first, second, words):
    assert scores.verdict(first, second) == words


def test_scores_that_one_run_lacks_and_other_settings_are_said():
    first = {"probe/digits": RESULTS["probe/digits"], "information/digits": {}}
    changed = RESULTS["probe/digits"] | {"settings": {"seeds": 5, "step": 9}}
    second = {"probe/digits": changed}
    (made,) = scores.tables(first, second, ("a", "b"))
    assert made.header == ["score", "a", "b", "difference", "b is"]
    assert made.rows[0].cells[2:] == ["0.00", "equal"]
    assert made.notes == [
        "The measurements of a and b differ in their settings: seeds. The scores may not be "
        "comparable."
    ]
    assert scores.only_one(first, second, ("a", "b")) == [
        "information/digits was measured for a, but not for b."
    ]
    assert scores.only_one(second, first, ("b", "a")) == [
        "information/digits was measured for a, but not for b."
    ]


def test_configs_are_compared_key_by_key():
    rows = content.differing(tiny.config(), tiny.config(**{"seed": 3, "model.latent_dim": 4}))
    assert {row.name: row.cells for row in rows} == {
        "seed": ["0", "3"],
        "model.latent_dim": ["8", "4"],
    }
    assert content.differing(tiny.config(), tiny.config()) == []


def test_errors_are_compared_image_by_image():
    rng = np.random.default_rng(0)
    real = np.zeros((50, 4, 4, 1))
    hard = rng.uniform(0.1, 0.9, (50, 1, 1, 1))  # some images are harder for both
    good, bad = (Decoded(real, real, hard * factor + real) for factor in (1.0, 1.05))
    note = content.note(("a", "b"), [good, bad])
    assert "On the first 50 test images" in note
    assert "higher" in note and "the difference exceeds 2 standard errors" in note
    assert "lower" in content.note(("b", "a"), [bad, good])
    mixed = Decoded(real, real, hard[::-1] + real)
    assert "does not exceed" in content.note(("a", "b"), [good, mixed])


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory):
    """Two runs that differ in their seed, of which the first has results."""
    folder = tmp_path_factory.mktemp("runs")
    for name, seed in (("one", 0), ("two", 3)):
        config = tiny.config(seed=seed)
        write_model(folder / name, config)
        workdir.write_config(folder / name, config)
    write_results(folder / "one")
    return folder


def test_the_page_shows_both_runs(workdirs):
    path = report.report(tiny.config(), workdirs / "one", compare=workdirs / "two")
    assert path == workdirs / "one" / "comparison.html"
    text = " ".join(path.read_text().split())
    assert "<h1>two compared with one</h1>" in text
    assert "two has no scores of its current weights: evaluate it first." in text
    assert "probe/digits was measured for one, but not for two." in text
    assert "one, training" in text and "two, training" in text  # the legend of the loss
    assert 'data-label="two">3</td>' in text  # the seed
    assert text.count("reconstruction 1 of ") == 2


def test_both_runs_are_in_the_tables_if_both_have_results(workdirs, tmp_path):
    copied = shutil.copytree(workdirs, tmp_path / "runs")
    better = json.loads(json.dumps(RESULTS))
    better["probe/digits"]["scores"]["logistic_accuracy"]["value"] = 0.9999
    write_results(copied / "two", results=better)
    path = report.report(tiny.config(), copied / "one", compare=copied / "two")
    text = path.read_text()
    assert "0.9512 ± 0.012" in text and "0.9999 ± 0.012" in text
    assert "+0.0487" in text and "better, beyond the spread" in text
    assert "evaluate it first" not in text


def test_runs_of_different_images_share_their_scores_only(workdirs, tmp_path):
    other = tmp_path / "wide"
    config = tiny.config(**{"data.image_size": 32})
    write_model(other, config)
    workdir.write_config(other, config)
    text = report.report(tiny.config(), workdirs / "one", compare=other).read_text()
    text = " ".join(text.split()).replace(about.TIMES, "x")
    assert "one has images of 16 x 16 x 1, and wide of 32 x 32 x 1" in text
    assert "32</td>" in text


def test_a_run_is_not_compared_with_itself_or_with_nothing(workdirs, tmp_path):
    with pytest.raises(ConfigError, match="is the workdir itself; name a different workdir"):
        report.report(tiny.config(), workdirs / "one", compare=workdirs / "two" / ".." / "one")
    with pytest.raises(
        CheckpointError, match="does not exist; name the workdir of a trained model"
    ):
        report.report(tiny.config(), workdirs / "one", compare=tmp_path / "none")


def test_a_comparison_of_runs_on_different_data_says_so(tmp_path):
    data = {"num_images": 90, "image_shape": [16, 16, 1], "entries": ["image"], "sha256": "0a1b"}
    more, files = data | {"num_images": 95}, {}
    for name, images in (("one", data), ("two", more), ("three", data)):
        tiny.write_workdir(tiny.config(), tmp_path / name, data=images)
    for name in ("two", "three"):
        path = report.report(tiny.config(), tmp_path / "one", compare=tmp_path / name)
        files[name] = " ".join(path.read_text().split())
    warning = "The runs were trained on different data: one on 90 images of 16x16x1, hash 0a1b"
    assert warning in files["two"] and "95 images of 16x16x1" in files["two"]
    assert "They differ in num_images." in files["two"]
    assert warning not in files["three"] and files["three"].count("90 images of 16x16x1") == 2
