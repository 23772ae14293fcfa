"""DBAE and DiffAE: the split of errors and variances, and the command that compares them."""

import dataclasses
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from dbae_jax.configs import diffae_digits, digits

from dbae_jax import comparison
from dbae_jax.configuration.config import from_config_dict
from dbae_jax.data.sources import ArraySource
from dbae_jax.errors import ConfigError
from dbae_jax.evaluation import endpoint_split
from dbae_jax.evaluation.endpoint_split import Measured
from dbae_jax.training.optimizer import make_optimizer
from dbae_jax.training.state import state_from_variables
from dbae_jax.workdirs import checkpoint, workdir
from tests.helpers import tiny

SETTINGS = comparison.Settings(num_images=4, draws=2, evaluations=(2,))


def _draws(count, images=4000, within=0.03, between=0.05):
    """Returns m(z) and x_hat = m(z) + e; the variances are `between` for m and `within` for e."""
    rng = np.random.default_rng(0)
    means = between**0.5 * rng.standard_normal((1, images, 2, 2, 1))
    return means, means + within**0.5 * rng.standard_normal((count, images, 2, 2, 1))


@pytest.mark.parametrize("count", [2, 5])
def test_variance_splits_without_bias(count):
    _, draws = _draws(count)
    assert endpoint_split.within_variance(draws) == pytest.approx(0.03, rel=0.03)
    assert endpoint_split.variance_share(draws) == pytest.approx(0.03 / 0.08, rel=0.03)


def test_one_draw_has_no_variance_of_its_own():
    assert endpoint_split.within_variance(_draws(1)[1]) == 0
    assert endpoint_split.variance_share(_draws(1)[1]) == 0


def test_errors_split_into_the_loss_of_z_and_the_variance_of_draws():
    """For x_0 = m + lost, MSE = (lost + within) / 4, and the mean of the draws has lost / 4."""
    means, draws = _draws(3, images=400)
    pad = [(0, 0), (0, 0), (0, 10), (0, 10), (0, 0)]  # SSIM needs 11 pixels
    rng = np.random.default_rng(1)
    x_0 = np.pad(means + 0.1 * rng.standard_normal(means.shape), pad)[0].clip(-1, 1)
    figures = endpoint_split.figures(Measured(np.pad(draws, pad), "z", {}, 5), x_0)
    pixels = 4 / 144
    assert figures["mse"] == pytest.approx((0.01 + 0.03) / 4 * pixels, rel=0.05)
    assert figures["mse_of_mean"] == pytest.approx(0.01 / 4 * pixels, rel=0.1)
    assert figures["draws"] == 3 and figures["nfe"] == 5 and 0 < figures["ssim"] < 1


def test_the_derived_config_is_the_file_s():
    derived = comparison.gaussian_config(from_config_dict(digits.get_config()))
    assert derived == from_config_dict(diffae_digits.get_config())
    with pytest.raises(ConfigError, match="the config of the DBAE"):
        comparison.gaussian_config(derived)


def _save(config, directory, shift=0.0):
    """Saves initial weights instead of training, which test_system and test_diffae test."""
    if not checkpoint.steps(directory):
        drawn, optimizer = tiny.variables(config), make_optimizer(config)
        variables = jax.tree.map(lambda leaf: leaf + shift, drawn)
        state = state_from_variables(variables, optimizer)
        with checkpoint.Writer(directory, keep_last=1, keep_every_steps=0) as writer:
            writer.save(state, config.train.num_steps, workdir.meta(config))


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    directory, trained = tmp_path_factory.mktemp("comparison"), []
    config = tiny.config(**{"train.num_steps": 1, "eval.information_points": 2})

    def train(config, directory, training):
        trained.append((config.bridge.endpoint, config.seed, directory.name))
        _save(config, directory)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison.train, "train", train)
        record = comparison.compare(config, directory, [3], SETTINGS)
    assert trained == [("decoded", 3, "dbae-3"), ("free", 3, "diffae-3")]
    return config, directory, record


@pytest.mark.slow
def test_a_comparison_trains_measures_and_writes(compared):
    _, directory, record = compared
    assert checkpoint.steps(directory / "dbae-3") == checkpoint.steps(directory / "diffae-3") == [1]
    assert json.loads((directory / "comparison.json").read_text()) == record
    assert (directory / "comparison.png").stat().st_size > 2000
    rows = record["seeds"][0]["rows"]
    assert [(r["model"], r["how"], r["nfe"]) for r in rows] == [
        ("dbae", "z alone", 2),
        ("dbae", "z, SDE noise", 2),
        ("diffae", "z, random x_T", 2),
        ("diffae", "z, inferred x_T", 4),
    ]
    for row in rows:
        assert (row["variance_share"] > 0) == (row["draws"] > 1)
        assert row["mse_of_mean"] <= row["mse"]
    of = {(r["how"], r["evaluations"]): r for r in rows}
    ratio = of["z, random x_T", 2]["mse"] / of["z alone", 2]["mse"]
    assert record["summary"]["compared"]["2"]["ratio"] == pytest.approx([ratio] * 3)
    bounds = record["summary"]["information"]
    assert set(bounds) == {"dbae", "diffae"}
    assert all(np.isfinite(b["unexplained_bits_per_dim"]).all() for b in bounds.values())
    text = (directory / "comparison_table.md").read_text()
    assert "| diffae | z, random x_T | dbim | 2 |" in text and f"| 2 | {ratio:.2f} |" in text


def test_all_seeds_of_a_model_share_one_training(tmp_path, monkeypatch):
    """Each model's training step then compiles once."""
    given = {}

    def train(config, directory, training):
        given.setdefault(config.bridge.endpoint, []).append(training)

    monkeypatch.setattr(comparison.train, "train", train)
    for name in ("_measure_seed", "summarised", "_paint"):
        monkeypatch.setattr(comparison, name, lambda *args: {})
    monkeypatch.setattr(comparison, "table", lambda record: "")
    comparison.compare(tiny.config(), tmp_path, [0, 1], SETTINGS)
    assert {name: len(trainings) for name, trainings in given.items()} == {"decoded": 2, "free": 2}
    for first, second in given.values():
        assert first is second


@pytest.mark.slow
def test_what_is_done_is_not_done_again(compared, monkeypatch):
    config, directory, record = compared

    def never(*args, **kwargs):
        raise AssertionError("measured again")

    monkeypatch.setattr(comparison, "_paint", lambda *args: None)
    with monkeypatch.context() as patch:
        patch.setattr(comparison, "measure", never)
        assert comparison.compare(config, directory, [3], SETTINGS) == record
        with pytest.raises(AssertionError, match="measured again"):
            other = dataclasses.replace(SETTINGS, draws=3)
            comparison.compare(config, directory, [3], other)
    wider = dataclasses.replace(config, model=dataclasses.replace(config.model, latent_dim=4))
    with pytest.raises(
        ConfigError, match=r"model.latent_dim \(8 in the workdir, 4 in this command\)"
    ):
        comparison.compare(wider, directory, [3], SETTINGS)


def _again(directory, monkeypatch, config):
    """Compares once more: True if something is measured, which then ends it."""

    def measured(*args, **kwargs):
        raise InterruptedError

    monkeypatch.setattr(comparison, "_paint", lambda *args: None)
    monkeypatch.setattr(comparison.train, "train", lambda *args: None)
    monkeypatch.setattr(comparison, "measure", measured)
    try:
        comparison.compare(config, directory, [3], SETTINGS)
    except InterruptedError:
        return True
    return False


@pytest.mark.slow
def test_results_that_are_not_valid_are_measured_again(compared, tmp_path, monkeypatch):
    """After another training, with another number format, on other images, or damaged."""
    config, directory, _ = compared
    run = pathlib.Path(shutil.copytree(directory, tmp_path / "run"))
    with monkeypatch.context() as patch:
        patch.setattr(ArraySource, "__repr__", lambda self: "others")
        assert _again(run, monkeypatch, config)
    text = (run / "figures-3.json").read_text()
    identity = json.loads(text)["identity"]["models"]["diffae"]
    assert identity["dtype"] == "float32" and identity["matmul_precision"]
    for torn in (text[:100], text.replace('"float32"', '"bfloat16"', 1)):
        (run / "figures-3.json").write_text(torn)
        assert _again(run, monkeypatch, config)
    (run / "figures-3.json").write_text(text)
    assert not _again(run, monkeypatch, config)
    shutil.rmtree(run / "dbae-3" / checkpoint.FOLDER)
    _save(dataclasses.replace(config, seed=3), run / "dbae-3", shift=0.01)
    assert checkpoint.steps(run / "dbae-3") == [1] and _again(run, monkeypatch, config)


def test_seeds_sum_up_to_means_and_ranges():
    def seed(factor):
        rows = [
            {"model": model, "how": how, "plan": {}, "evaluations": 5, "nfe": 5, "draws": 1}
            | dict.fromkeys(("mse_of_mean", "ssim", "variance_share"), 0.5)
            | {"mse": factor * mse}
            for model, how, mse in (
                ("dbae", "z alone", 1.0),
                ("dbae", "z, SDE noise", 1.5),
                ("diffae", "z, random x_T", factor * 3.0),
                ("diffae", "z, inferred x_T", 0.6),
            )
        ]
        bounds = {"information_bound_nats": factor, "unexplained_bits_per_dim": 2.0}
        return {"rows": rows, "information": {"dbae": bounds, "diffae": bounds}}

    summary = comparison.summarised([seed(1.0), seed(2.0)])
    assert summary["rows"][0]["mse"] == [1.5, 1.0, 2.0]
    assert summary["compared"]["5"]["ratio"] == [4.5, 3.0, 6.0]
    assert summary["compared"]["5"]["ratio_of_draws"] == [3.0, 2.0, 4.0]
    assert summary["compared"]["5"]["ratio_of_means"] == [1.0, 1.0, 1.0]
    assert summary["compared"]["5"]["explained_by_x_T"] == pytest.approx([0.85, 0.8, 0.9])
    assert summary["information"]["dbae"] == {
        "information_bound_nats": [1.5, 1.0, 2.0],
        "unexplained_bits_per_dim": [2.0, 2.0, 2.0],
    }


@pytest.mark.parametrize("values", [[], ["1", "x"], ["-1"], [""], ["1.5"]])
def test_wrong_lists_of_integers_are_refused(values):
    with pytest.raises(ConfigError, match="--seeds must be integers, 0 or more"):
        comparison._integers("seeds", values, 0)
    assert comparison._integers("seeds", ["2", " 0", "2"], 0) == [2, 0]
