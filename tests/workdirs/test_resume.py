"""What ties a run to its workdir: its lock, its data, its config, and its records."""

import functools
import json
import shutil

import numpy as np
import pytest

from dbae_jax.commands import evaluate, train, train_prior
from dbae_jax.data import registry
from dbae_jax.data.sources import ArraySource
from dbae_jax.errors import CheckpointError, DataError, WorkdirInUseError
from dbae_jax.runtime import sharding
from dbae_jax.training.jitted_step import make_training
from dbae_jax.workdirs import checkpoint, lock, records
from tests.helpers import tiny


@functools.cache
def _training():
    return make_training(tiny.config(), sharding.make_mesh())


def _train(directory, steps, **overrides):
    config = tiny.config(**{"train.num_steps": steps} | overrides)
    return train.train(config, directory, _training())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("finished") / "run"
    _train(directory, 2)
    return directory


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture
def replace_images(monkeypatch):
    """Returns a function that replaces the images of every split."""
    make = registry.make_source

    def replace(change):
        def changed(data, split):
            source = make(data, split)
            return ArraySource(change(source.images), source.labels)

        monkeypatch.setattr(registry, "make_source", changed)

    return replace


def test_a_second_training_is_refused_and_changes_nothing(run):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with lock.held(run), pytest.raises(WorkdirInUseError, match="is in use: process"):
        _train(run, 4)
    with lock.held(run / "prior"), pytest.raises(WorkdirInUseError, match="is in use: process"):
        train_prior.train_prior(tiny.config(), run)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_prior_of_a_missing_workdir_makes_no_folder(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        train_prior.train_prior(tiny.config(), tmp_path / "runs" / "a")
    assert list(tmp_path.iterdir()) == []


def test_checkpoints_know_their_data(run):
    data = checkpoint.read_meta(run, 2)["data"]
    assert (data["num_images"], data["image_shape"]) == (1437, [16, 16, 1])


def test_other_images_of_the_same_number_and_size_get_a_warning(run, replace_images, caplog):
    replace_images(lambda images: 255 - images)
    _train(run, 4)
    assert "The training images have changed since the last checkpoint: sha256 (" in caplog.text


@pytest.mark.parametrize("change", [lambda images: images[:-1], lambda images: images[:, :8, :8]])
def test_another_number_or_size_of_images_is_refused(run, replace_images, change):
    replace_images(change)
    words = r"trained on 1437 images of 16x16x1, hash .*, and .* are now .* --init_from="
    with pytest.raises(DataError, match=words):
        _train(run, 4)
    assert checkpoint.steps(run) == [2] and not (run / lock.FILE).exists()


def test_a_prior_that_resumes_compares_its_images_too(run, replace_images, caplog):
    train_prior.train_prior(tiny.config(), run)
    replace_images(lambda images: 255 - images)
    train_prior.train_prior(tiny.config(), run)
    assert "The training images have changed since the last checkpoint: sha256 (" in caplog.text
    replace_images(lambda images: images[:-1])
    with pytest.raises(DataError, match=r"trained on 1437 images .* delete .* to train a new pr"):
        train_prior.train_prior(tiny.config(), run)


def test_garbage_in_the_records_does_not_stop_a_run(run, caplog):
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 3, "loss"\n\x00\xff\xfe\n[1, 2]\n{"loss": 1}\n"text"')
    _train(run, 4)
    assert "5 of the 7 lines of" in caplog.text
    assert [row["step"] for row in records.read(run)] == [1, 2, 3, 4]


def test_the_earlier_config_is_kept_beside_a_changed_one(run, caplog):
    caplog.set_level("INFO")
    _train(run, 4, **{"train.log_every_steps": 2, "data.num_threads": 3})
    assert "data.num_threads (2 in the workdir, 3 in this command)" in caplog.text
    assert "train.log_every_steps (1 in the workdir, 2 in this command)" in caplog.text
    kept, now = (
        json.loads((run / name).read_text())["train"]["log_every_steps"]
        for name in ("config_until_step_2.json", "config.json")
    )
    assert (kept, now) == (1, 2)


def test_a_run_that_resumes_keeps_its_data_in_new_checkpoints(run):
    _train(run, 4)
    assert checkpoint.read_meta(run, 4)["data"] == checkpoint.read_meta(run, 2)["data"]
    assert np.all(np.diff(checkpoint.steps(run)) > 0)


def test_evaluation_says_what_it_measures_and_warns_of_other_training_images(
    run, replace_images, caplog
):
    caplog.set_level("INFO")
    config = tiny.config(**{"eval.suite": "probe", "eval.num_train_images": 100})
    evaluate.evaluate(config, run)
    assert "digits, test: 360 images of 16x16x1, hash" in caplog.text
    assert "was trained on" not in caplog.text
    caplog.clear()
    evaluate.evaluate(config, run)
    assert "has been measured with the same settings" in caplog.text
    caplog.clear()
    replace_images(lambda images: 255 - images)
    evaluate.evaluate(config, run)
    assert "The model was trained on 1437 images of 16x16x1, hash" in caplog.text
    assert "has been measured" not in caplog.text
