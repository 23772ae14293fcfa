"""The system by running it: train, resume, torn checkpoints, runs that must stop.

Kills are in test_kills.py, signals and lost processes in test_processes.py.
"""

import dataclasses
import functools
import json
import pathlib
import re
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

import dbae_jax
from dbae_jax.commands import evaluate, train
from dbae_jax.errors import CheckpointError, ConfigError, NonFiniteError
from dbae_jax.evaluation import results
from dbae_jax.runtime import sharding
from dbae_jax.training import determinism
from dbae_jax.training.jitted_step import make_training
from dbae_jax.workdirs import checkpoint, records, workdir
from tests.helpers import tiny


@functools.cache
def _training():
    """Returns what trainings of different lengths share, compiled once."""
    return make_training(tiny.config(), sharding.make_mesh())


def _train(directory, **overrides):
    """Trains with keys of `train` and `checkpoint` other than those of `tiny.config`."""
    return train.train(tiny.config(**overrides), directory, _training())


def _params(directory, step=None, weights="raw"):
    return jax.device_get(workdir.load(directory, weights, step).variables)


def _logged_steps(directory):
    return [row["step"] for row in records.read(directory) if "loss" in row]


def _programs(directory):
    """Returns the training steps that were compiled, by file, with the times of writing."""
    files = (directory / determinism.FOLDER).glob("jit_train_step-*-cache")
    return {path.name: path.stat().st_mtime_ns for path in files}


def _assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The workdir of a run of 6 steps; tests copy it before they touch it."""
    directory = tmp_path_factory.mktemp("runs") / "whole"
    _train(directory, **{"train.num_steps": 6})
    return directory


@pytest.fixture
def run_copy(finished, tmp_path):
    return pathlib.Path(shutil.copytree(finished, tmp_path / "run"))


def test_a_run_leaves_what_it_should(finished):
    assert checkpoint.steps(finished) == [2, 4, 6]
    assert _logged_steps(finished) == [1, 2, 3, 4, 5, 6]
    first = records.read(finished)[0]
    assert {"images_per_second", "learning_rate", "grad_norm", "train_seconds"} <= first.keys()
    saved = json.loads((finished / "config.json").read_text())
    assert saved["model"]["latent_dim"] == 8
    assert checkpoint.read_meta(finished, 6)["config"] == saved
    items = {path.name for path in (finished / "checkpoints" / "6").iterdir() if path.is_dir()}
    assert items >= {"params", "ema", "optimizer", "meta"}


def test_an_interrupted_run_ends_as_the_uninterrupted_one(finished, tmp_path):
    """With the compiled programs kept in the workdir; test_kills.py has a run without."""
    directory, exact = tmp_path / "run", {"train.deterministic": True}
    folder = jax.config.jax_compilation_cache_dir
    train.train(tiny.config(**{"train.num_steps": 4} | exact), directory)
    kept = _programs(directory)
    assert kept
    train.train(tiny.config(**{"train.num_steps": 6} | exact), directory)
    assert _programs(directory) == kept  # read, not compiled again
    assert jax.config.jax_compilation_cache_dir == folder
    for weights in ("raw", "ema"):
        _assert_same(_params(directory, 6, weights), _params(finished, 6, weights))
    assert _logged_steps(directory) == [1, 2, 3, 4, 5, 6]


def test_seeds_that_share_a_training_compile_its_step_once(finished, tmp_path):
    config = tiny.config(**{"train.num_steps": 2})
    training = _training()
    for seed in (0, 1):
        train.train(dataclasses.replace(config, seed=seed), tmp_path / str(seed), training)
    assert training.train_step._cache_size() == 1
    first, second = (_params(tmp_path / seed, 2) for seed in ("0", "1"))
    _assert_same(first, _params(finished, 2))
    kernels = [variables["params"]["unet"]["conv_in"]["kernel"] for variables in (first, second)]
    assert not np.array_equal(*kernels)


def test_hooks_and_evaluation_write_what_they_should(tmp_path, caplog):
    overrides = {
        "train.num_steps": 2,
        "train.diagnose_every_steps": 1,
        "train.picture_every_steps": 2,
        "train.evaluate_every_steps": 2,
    }
    config = tiny.config(**overrides)
    with caplog.at_level("INFO", logger="dbae_jax"):
        train.train(config, tmp_path / "run")
    rows = records.read(tmp_path / "run")
    assert len([r for r in rows if {"z_variance", "code_gap", "eval_loss"} <= r.keys()]) == 2
    assert [r["step"] for r in rows if "test_mse" in r] == [2]
    assert (tmp_path / "run" / "pictures" / "reconstructions_00000002.png").exists()
    data, first, *others = caplog.messages
    assert data.startswith("Data: digits at 16x16x1, 1,437 training images, 360 test images")
    assert first.startswith("Training on 8 devices (cpu), 1 process, jax ")
    what = r": digits, \S+M parameters, 2 steps of 16 images, float32\. The workdir is "
    assert re.search(what, first)
    assert others[0] == "Compiling the training step ..." and others[1].startswith("Compiled in ")
    line = (
        r"step 2/2, loss \d\.\d{4}, gradient norm \S+, learning rate \S+, \d+ images/s, "
        r"\d+\.\d% waiting for data, 0s left"
    )
    assert any(re.fullmatch(line, message) for message in others)
    assert "(a change near 0 means that z is not used)" in caplog.text
    assert "z is hardly used" in caplog.text  # after two steps it is not
    assert "test loss" in caplog.text and "MSE of test images" in caplog.text

    entries = evaluate.evaluate(config, tmp_path / "run")
    found = results.read(tmp_path / "run")
    assert found["results"] == {f"{suite}/digits": entry for suite, entry in entries.items()}
    assert found["model"]["step"] == 2 and found["model"]["latent_dim"] == 8
    assert {"train_seconds", "images_per_second"} <= found["model"].keys()
    assert "logistic_accuracy" in entries["probe"]["scores"]
    assert "information_bound_nats" in entries["information"]["scores"]
    assert entries["reconstruction"]["settings"]["nfe"] == 3
    assert entries["reconstruction"]["scores"]["mse"]["value"] == pytest.approx(
        next(r["test_mse"] for r in rows if "test_mse" in r), rel=1e-4
    )
    for name in ("reconstructions", "trajectory"):
        assert Image.open(tmp_path / "run" / f"{name}.png").size[0] > 100
    with pytest.raises(ConfigError, match=r"model\.latent_dim"):
        evaluate.evaluate(tiny.config(**{"model.latent_dim": 4}), tmp_path / "run")


def test_a_finished_run_has_nothing_to_do(run_copy):
    before = _params(run_copy)
    state = _train(run_copy, **{"train.num_steps": 6})
    assert int(state.step) == 6
    _assert_same(before, _params(run_copy))


def test_keep_last_and_keep_every(tmp_path):
    overrides = {
        "train.num_steps": 7,
        "checkpoint.every_steps": 1,
        "checkpoint.keep_last": 2,
        "checkpoint.keep_every_steps": 3,
    }
    _train(tmp_path / "run", **overrides)
    assert checkpoint.steps(tmp_path / "run") == [3, 6, 7]


@pytest.mark.parametrize("item", ["params", "ema", "optimizer", "meta"])
def test_a_torn_newest_checkpoint_is_skipped(run_copy, item, caplog):
    torn = run_copy / "checkpoints" / "6" / item
    for path in [p for p in torn.rglob("*") if p.is_file()]:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with caplog.at_level("WARNING", logger="dbae_jax"):
        state = _train(run_copy, **{"train.num_steps": 6})
    assert "step 6" in caplog.text and "unreadable" in caplog.text
    assert [path.name for path in (run_copy / "torn").iterdir()] == ["6-0"]
    assert int(state.step) == 6
    assert checkpoint.steps(run_copy) == [2, 4, 6]
    assert workdir.load(run_copy).step == 6  # written anew, whole


def test_a_torn_checkpoint_is_skipped_by_readers_too(run_copy, caplog):
    for path in (run_copy / "checkpoints" / "6" / "ema").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    model = dbae_jax.DBAE.load(run_copy)
    assert "unreadable" in caplog.text
    _assert_same(jax.device_get(model.variables), _params(run_copy, 4, "ema"))
    assert (run_copy / "checkpoints" / "6").exists()  # a reader removes nothing


def test_when_nothing_is_readable_it_says_so(run_copy):
    for path in run_copy.rglob("*"):
        if path.is_file() and "checkpoints" in path.parts:
            path.write_bytes(path.read_bytes()[:10])
    with pytest.raises(CheckpointError, match=r"No checkpoint under .* can be read"):
        dbae_jax.DBAE.load(run_copy)
    with pytest.raises(CheckpointError, match=r"No checkpoint under .* can be read"):
        _train(run_copy, **{"train.num_steps": 8})


def test_configs_that_do_not_fit_are_refused_with_their_keys(run_copy):
    before = sorted(run_copy.rglob("*"))
    changed = {"model.latent_dim": 4, "bridge.schedule": "ve", "train.num_steps": 8}
    with pytest.raises(ConfigError) as caught:
        train.train(tiny.config(**changed), run_copy)
    assert "model.latent_dim (8 in the workdir, 4 in this command)" in str(caught.value)
    assert "bridge.schedule ('vp' in the workdir, 've' in this command)" in str(caught.value)
    assert "num_steps" not in str(caught.value)
    assert sorted(run_copy.rglob("*")) == before


def test_free_keys_may_change(run_copy):
    free = {"train.num_steps": 7, "optim.learning_rate": 1e-4, "model.dtype": "bfloat16"}
    assert int(train.train(tiny.config(**free), run_copy).step) == 7


def test_other_device_counts_can_go_on(run_copy):
    """The run was made on 8 devices; its arrays are read onto one."""
    loaded = workdir.load(run_copy, "ema")
    kernel = loaded.variables["params"]["unet"]["conv_in"]["kernel"]
    assert len(kernel.sharding.device_set) == 1


def test_a_non_finite_loss_stops_the_run_and_keeps_the_last_checkpoint(tmp_path):
    directory = tmp_path / "run"
    _train(directory, **{"train.num_steps": 2})
    before = _params(directory, 2)
    with pytest.raises(NonFiniteError) as caught:
        train.train(tiny.config(**{"train.num_steps": 40, "optim.learning_rate": 1e30}), directory)
    sentence = str(caught.value)
    assert "at step" in sentence and "the checkpoint of step" in sentence
    assert "learning_rate" in sentence and "grad_clip_norm" in sentence
    kept = checkpoint.steps(directory)
    assert 2 in kept
    for step in kept:
        leaves = jax.tree.leaves(_params(directory, step))
        assert all(np.isfinite(leaf).all() for leaf in leaves)
    rows = [row for row in records.read(directory) if "param_norm" in row]
    assert all(np.isfinite(row["param_norm"]) for row in rows)
    _assert_same(before, _params(directory, 2))


def test_metrics_after_the_resumed_step_are_made_again(run_copy):
    path = run_copy / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 9, "loss": 1}\n{"step": 10, "lo')
    _train(run_copy, **{"train.num_steps": 7})
    assert _logged_steps(run_copy) == [1, 2, 3, 4, 5, 6, 7]
