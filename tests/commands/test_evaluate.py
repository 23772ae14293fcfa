"""The runner: which suites, what is not measured again, other data, one sentence for what fails."""

import functools
import pathlib
import shutil

import numpy as np
import pytest

from dbae_jax.commands import evaluate, trained_model
from dbae_jax.commands import report as report_command
from dbae_jax.errors import CheckpointError, ConfigError, TooFewError
from dbae_jax.evaluation import registry, results
from dbae_jax.evaluation.context import Suite
from dbae_jax.evaluation.results import Measured, score
from tests.helpers import commands, stubs, tiny
from tests.helpers.report_workdirs import AMOUNTS

SHAPES = {
    "data.name": "shapes",
    "data.image_size": 32,
    "data.channels": 3,
    "eval.num_images": 24,
    "eval.num_train_images": 24,
    "eval.num_probe_images": 64,
    "eval.seeds": 2,
    "eval.probe_epochs": 2,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The workdir of a model of shapes."""
    directory = tmp_path_factory.mktemp("runs") / "run"
    tiny.write_workdir(_config(), directory)
    return directory


@pytest.fixture
def run_copy(trained, tmp_path):
    return pathlib.Path(shutil.copytree(trained, tmp_path / "run"))


def _config(**overrides):
    return tiny.config(**SHAPES | overrides)


@pytest.fixture
def counted(monkeypatch):
    """Suites "one", "two" and "never", which does not apply; a list of what was measured."""
    done = []

    def suite(name, obstacle=None):
        def measure(context):
            done.append(name)
            return Measured({"length": score(len(context.images("test")), None)}, {"test": 24})

        return Suite(lambda context: obstacle, lambda context: {"of": name}, measure)

    suites = {"one": suite("one"), "two": suite("two"), "never": suite("never", "it is night")}
    groups = {"default": ("one", "never"), "all": tuple(suites)}
    monkeypatch.setattr(registry, "SUITES", suites)
    monkeypatch.setattr(registry, "GROUPS", groups)
    monkeypatch.setattr(evaluate, "SUITES", suites)
    return done


@pytest.mark.slow
def test_probe_of_shapes_end_to_end(run_copy):
    """Attributes and labels, with a split to choose on; codes are computed once."""
    config = _config(**{"eval.suite": "probe", "eval.validation_split": "val"})
    found = evaluate.evaluate(config, run_copy)
    entry = results.read(run_copy)["results"]["probe/shapes"]
    assert {"accuracy", "ridge_accuracy", "ap", "auroc", "ridge_ap"} <= entry["scores"].keys()
    assert entry["counts"] == {"train": 64, "validation": 5000, "test": 24}
    assert len(entry["scores"]["ap"]["values"]) == 2
    assert found == {"probe": entry} and not (run_copy / "reconstructions.png").exists()
    model = results.read(run_copy)["model"]
    assert model["step"] == 1 and model["parameters"] > 10_000 and not model["stochastic"]

    files = sorted(path.name for path in (run_copy / "evaluation").iterdir())
    assert files == ["shapes_test.npz", "shapes_train.npz", "shapes_validation.npz"]
    before = (run_copy / "evaluation" / "shapes_train.npz").stat().st_mtime_ns
    again = _config(**{"eval.suite": "probe", "eval.validation_split": "val", "eval.seeds": 1})
    evaluate.evaluate(again, run_copy)
    assert (run_copy / "evaluation" / "shapes_train.npz").stat().st_mtime_ns == before
    values = results.read(run_copy)["results"]["probe/shapes"]["scores"]["ap"]
    assert values["value"] == pytest.approx(entry["scores"]["ap"]["values"][0], rel=1e-6)


def test_what_is_measured_is_not_measured_again(run_copy, counted, caplog):
    with caplog.at_level("INFO", logger="dbae_jax"):
        evaluate.evaluate(_config(), run_copy)
        assert counted == ["one"]
        assert "The suite never does not apply: it is night." in caplog.text
        evaluate.evaluate(_config(**{"eval.suite": "all"}), run_copy)
    assert counted == ["one", "two"] and "one/shapes has been measured" in caplog.text
    evaluate.evaluate(_config(**{"eval.suite": "two, one"}), run_copy)
    assert counted == ["one", "two"]
    evaluate.evaluate(_config(**{"eval.suite": "one", "data.test_split": "val"}), run_copy)
    assert counted == ["one", "two", "one"]


def test_a_killed_evaluation_goes_on(run_copy, counted, monkeypatch):
    def killed(context):
        raise KeyboardInterrupt

    whole = registry.SUITES["two"]
    monkeypatch.setitem(registry.SUITES, "two", Suite(whole.obstacle, whole.settings, killed))
    with pytest.raises(KeyboardInterrupt):
        evaluate.evaluate(_config(**{"eval.suite": "all"}), run_copy)
    assert set(results.read(run_copy)["results"]) == {"one/shapes"}
    monkeypatch.setitem(registry.SUITES, "two", whole)
    evaluate.evaluate(_config(**{"eval.suite": "all"}), run_copy)
    assert counted == ["one", "two"]
    assert set(results.read(run_copy)["results"]) == {"one/shapes", "two/shapes"}


def test_too_few_images_for_one_suite_of_a_group_leave_the_others(
    run_copy, counted, monkeypatch, caplog
):
    def scarce(context):
        raise TooFewError("two are needed, here is 1.")

    monkeypatch.setitem(
        registry.SUITES, "one", Suite(lambda context: None, lambda context: {}, scarce)
    )
    with caplog.at_level("WARNING", logger="dbae_jax"):
        evaluate.evaluate(_config(**{"eval.suite": "all"}), run_copy)
    assert "The suite one does not apply: two are needed, here is 1." in caplog.text
    assert set(results.read(run_copy)["results"]) == {"two/shapes"} and counted == ["two"]
    with pytest.raises(TooFewError, match="two are needed"):
        evaluate.evaluate(_config(**{"eval.suite": "all,one"}), run_copy)


def test_one_process_decides_for_all_which_images_are_missing(tmp_path, monkeypatch):
    """This process sees none of them; what counts is what the process that writes sees."""
    made = []
    for name in ("reconstructions", "trajectories"):
        monkeypatch.setattr(evaluate.pictures, name, lambda path, *_: made.append(path.stem))
    context = stubs.context({"test": stubs.Data(tiny.images(4))})
    both = ["reconstructions", "trajectory"]
    for there, measured_now, expected in (
        (True, False, []),
        (True, True, both),
        (False, False, both),
    ):
        monkeypatch.setattr(evaluate.processes, "from_writer", lambda look, there=there: there)
        made.clear()
        evaluate._paint(context, tmp_path, measured_now=measured_now)
        assert made == expected


@pytest.mark.parametrize(
    "changes", [{"eval.label": "other"}, {"data.name": "shapes_correlated"}, {}], ids=repr
)
def test_images_are_of_results_without_a_label_on_the_data_of_training(
    run_copy, counted, monkeypatch, changes
):
    shown, suites = [], evaluate.SUITES
    monkeypatch.setitem(suites, "reconstruction", suites["one"])
    monkeypatch.setattr(evaluate, "_paint", lambda *given, **how: shown.append(given))
    monkeypatch.setattr(evaluate.summary, "report", lambda entries: None)
    evaluate.evaluate(_config(**{"eval.suite": "one"} | changes), run_copy)
    assert not shown
    evaluate.evaluate(_config(**{"eval.suite": "reconstruction"} | changes), run_copy)
    assert len(shown) == (not changes)


def test_other_data_have_entries_of_their_own(run_copy, counted):
    evaluate.evaluate(_config(), run_copy)
    other = {"data.name": "shapes_correlated", "train.batch_size": 32, "seed": 3}
    evaluate.evaluate(_config(**other), run_copy)
    assert set(results.read(run_copy)["results"]) == {"one/shapes", "one/shapes_correlated"}
    for changed in ({"data.image_size": 64}, {"model.latent_dim": 4}, {"bridge.beta_d": 1.0}):
        key, value = next(iter(changed.items()))
        with pytest.raises(
            ConfigError, match=rf"{key} \(.* in the workdir, {value} in this command\)"
        ):
            evaluate.evaluate(_config(**changed), run_copy)


def test_bad_suites_and_data_are_refused_before_work(run_copy, counted, tmp_path):
    for suites, words in (
        (
            "probes",
            "'probes' is not a suite; there are the suites one, two, never and the groups",
        ),
        (",", "',' is not a suite"),
        ("one,never", "names 'never', which does not apply: it is night"),
    ):
        with pytest.raises(ConfigError, match=words):
            evaluate.evaluate(_config(**{"eval.suite": suites}), run_copy)
    with pytest.raises(ConfigError, match="no split 'validation'"):
        evaluate.evaluate(_config(**{"eval.validation_split": "validation"}), run_copy)
    with pytest.raises(CheckpointError, match="does not exist"):
        evaluate.evaluate(_config(), tmp_path / "nothing")
    assert counted == [] and not (run_copy / "results.json").exists()


def test_codes_of_other_images_are_not_taken(run_copy):
    config = _config(**{"data.flip": True})

    def make(config):
        model = trained_model.open_model(config, run_copy, trained_model.OF_MODEL).model
        return trained_model.make_context(model, run_copy)

    context = make(config)
    plain, mirrored = context.codes("train"), context.codes("train", flip=True)
    images = context.images("train")
    np.testing.assert_allclose(plain.mean, context.model.encode(images), atol=1e-6)
    np.testing.assert_allclose(mirrored.mean, context.model.encode(images[:, :, ::-1]), atol=1e-6)
    assert set(plain.known) == {"label", "attributes", "factors"} and not mirrored.known
    path = run_copy / "evaluation" / "shapes_train.npz"
    written = path.stat().st_mtime_ns
    again = make(config).codes("train")
    np.testing.assert_array_equal(again.known["factors"], plain.known["factors"])
    assert path.stat().st_mtime_ns == written
    fewer = make(_config(**{"eval.num_probe_images": 32})).codes("train")
    assert len(fewer.mean) == 32 and path.stat().st_mtime_ns != written
    path.write_bytes(path.read_bytes()[:100])
    assert len(make(config).codes("train").mean) == 64


def test_a_report_is_written_after_the_evaluation(tmp_path):
    tiny.write_workdir(tiny.config(), tmp_path)
    suite = "--config.eval.suite=reconstruction"
    done = commands.run("main", "evaluate", f"--workdir={tmp_path}", suite, "--report")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "report.html").read_text()
    mse = results.read(tmp_path)["results"]["reconstruction/digits"]["scores"]["mse"]["value"]
    assert f"{mse:.4g}" in text  # the report was made after the measurement
    assert "dbae train_prior --workdir=" in text and suite not in text


def test_the_report_gets_the_model_of_the_evaluation(run_copy, monkeypatch):
    config = _config(**{"eval.suite": "probe"})
    models = []
    write = functools.partial(report_command.report, config, run_copy, amounts=AMOUNTS)

    def report(*, model):
        models.append(model)
        monkeypatch.setattr(trained_model, "open_model", lambda *_, **__: pytest.fail("opened"))
        write(model=model)

    evaluate.evaluate(config, run_copy, report=report)
    assert models[0].step and (run_copy / "report.html").exists()


def test_a_report_that_will_be_refused_is_refused_before_the_evaluation(run_copy):
    config = _config(**{"data.crop": "d2c"})

    def report(**_):
        pytest.fail("The report was written.")

    with pytest.raises(ConfigError, match=r"data\.crop"):
        evaluate.evaluate(config, run_copy, report=report)
    (run_copy / "report.html").mkdir()
    with pytest.raises(ConfigError, match=r"report\.html"):
        evaluate.evaluate(_config(), run_copy, report=report)
    assert results.read(run_copy) is None
